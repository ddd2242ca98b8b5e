// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <vector>

#include "training/optimizer.hpp"

namespace adatom::training {

/// SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's preconditioners, whose matrices are divided among the processes.
std::unique_ptr<Optimizer> make_soap(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks, std::shared_ptr<Communicator> communicator);

}  // namespace adatom::training
