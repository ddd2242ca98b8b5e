// SPDX-License-Identifier: MIT
#include "gnn/cpu/backend.hpp"
#include "gnn/cpu/evaluator.hpp"
#include "gnn/cpu/width.hpp"

namespace adatom::gnn::cpu {

Evaluator* make_dual32(std::shared_ptr<const Network> network, Threads& team) {
  return new CpuEvaluator<Dual<float>, vector_bytes / sizeof(Base<Dual<float>>), linear_rows / 2>(std::move(network), team);
}

}  // namespace adatom::gnn::cpu
