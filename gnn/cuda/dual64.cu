// SPDX-License-Identifier: MIT
#include "gnn/cuda/backend.hpp"
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

Evaluator* make_dual64(std::shared_ptr<const Network> network) { return new CudaEvaluator<Dual<double>>(std::move(network)); }

}  // namespace adatom::gnn::cuda
