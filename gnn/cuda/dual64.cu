// SPDX-License-Identifier: MIT
#include "gnn/cuda/backend.hpp"
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

Evaluator* make_dual64(std::shared_ptr<const Network> network, Matmul matmul) { return new CudaEvaluator<Dual<double>>(std::move(network), matmul); }

}  // namespace adatom::gnn::cuda
