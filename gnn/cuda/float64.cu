// SPDX-License-Identifier: MIT
#include "gnn/cuda/backend.hpp"
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

Evaluator* make_float64(std::shared_ptr<const Network> network, Matmul matmul) { return new CudaEvaluator<double>(std::move(network), matmul); }

}  // namespace adatom::gnn::cuda
