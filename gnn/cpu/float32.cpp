// SPDX-License-Identifier: MIT
#include "gnn/cpu/backend.hpp"
#include "gnn/cpu/evaluator.hpp"
#include "gnn/cpu/width.hpp"

namespace adatom::gnn::cpu {

Evaluator* make_float32(std::shared_ptr<const Network> network, Threads& team) {
  return new CpuEvaluator<float, vector_bytes / sizeof(Base<float>), linear_rows>(std::move(network), team);
}

}  // namespace adatom::gnn::cpu
