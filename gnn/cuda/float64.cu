// SPDX-License-Identifier: MIT
#include "gnn/cuda/backend.hpp"
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

Evaluator* make_float64(std::shared_ptr<const Network> network) { return new CudaEvaluator<double>(std::move(network)); }

}  // namespace adatom::gnn::cuda
