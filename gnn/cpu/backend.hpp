// SPDX-License-Identifier: MIT
#pragma once
#include <memory>

#include "gnn/evaluator.hpp"
#include "gnn/threads.hpp"

namespace adatom::gnn::cpu {

// One function a file, so that they compile side by side.
Evaluator* make_float32(std::shared_ptr<const Network> network, Threads& team);
Evaluator* make_float64(std::shared_ptr<const Network> network, Threads& team);
Evaluator* make_dual32(std::shared_ptr<const Network> network, Threads& team);
Evaluator* make_dual64(std::shared_ptr<const Network> network, Threads& team);

}  // namespace adatom::gnn::cpu
