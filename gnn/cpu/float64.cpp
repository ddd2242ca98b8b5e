// SPDX-License-Identifier: MIT
#include "gnn/cpu/backend.hpp"
#include "gnn/cpu/evaluator.hpp"
#include "gnn/cpu/width.hpp"

namespace adatom::gnn::cpu {

Evaluator* make_float64(std::shared_ptr<const Network> network, Threads& team) {
  return new CpuEvaluator<double, vector_bytes / sizeof(Base<double>), linear_rows>(std::move(network), team);
}

}  // namespace adatom::gnn::cpu
