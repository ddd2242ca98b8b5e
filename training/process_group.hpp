// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>

#include "training/communicator.hpp"

namespace adatom::training {

/// The processes of a torch.distributed group (c10d: Gloo, NCCL, MPI), found by the name under which torch.distributed has registered it.
/// Throws c10::Error if there is none.
std::shared_ptr<Communicator> process_group(const std::string& name);

}  // namespace adatom::training
