// SPDX-License-Identifier: MIT
#pragma once
#include "gnn/cpu/weights.hpp"
#include "gnn/flops.hpp"

namespace adatom::gnn::cpu {

template <class T>
double count_flops(const std::vector<PackedLayer<T>>& layers, double nodes, double edges, int harmonics, bool forces) {
  double flops = 0.0;
  for (const PackedLayer<T>& l : layers) flops += gnn::count_flops(*l.spec, nodes, edges, harmonics, forces, l.keeps_gradient);
  return flops;
}

}  // namespace adatom::gnn::cpu
