// SPDX-License-Identifier: MIT
#pragma once
#include <memory>

#include "gnn/evaluator.hpp"

namespace adatom::gnn::cuda {

// One function a file, so that they compile side by side.
Evaluator* make_float32(std::shared_ptr<const Network> network, Matmul matmul);
Evaluator* make_float64(std::shared_ptr<const Network> network, Matmul matmul);
Evaluator* make_dual32(std::shared_ptr<const Network> network, Matmul matmul);
Evaluator* make_dual64(std::shared_ptr<const Network> network, Matmul matmul);

}  // namespace adatom::gnn::cuda
