// SPDX-License-Identifier: MIT
#include "gnn/cpu/backend.hpp"
#include "gnn/cpu/evaluator.hpp"
#include "gnn/cpu/width.hpp"

namespace adatom::gnn::cpu {

Evaluator* make_dual64(std::shared_ptr<const Network> network, Threads& team) {
  return new CpuEvaluator<Dual<double>, vector_bytes / sizeof(Base<Dual<double>>), linear_rows / 2>(std::move(network), team);
}

}  // namespace adatom::gnn::cpu
