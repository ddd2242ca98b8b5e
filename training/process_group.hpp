// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>

#include "training/communicator.hpp"

namespace adatom::training {

/// The processes of a torch.distributed group (c10d: Gloo, NCCL, MPI), found by the name under which torch.distributed has registered it.
/// `on_device`: the group has NCCL for tensors of CUDA devices, and long sums go through the current device. Throws c10::Error if there is no such group.
std::shared_ptr<Communicator> process_group(const std::string& name, bool on_device = false);

}  // namespace adatom::training
