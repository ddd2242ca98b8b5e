// SPDX-License-Identifier: MIT
#pragma once
#include "gnn/kernels/spline.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn {

/// Of one layer, counted from the bounds of the loops over lanes; a multiply-add is 2. Geometry, spline weights and gates are left out. `harmonics`: number of
/// Y_lm; `keeps_gradient`: the contraction's products are formed once for both directions.
inline double count_flops(const Layer& l, double nodes, double edges, int harmonics, bool forces, bool keeps_gradient) {
  const double taps = 2.0 * spline_taps, reverse = forces ? 1.0 : 0.0, both = 1.0 + reverse;
  const auto of_map = [](const LinearMap& map) {
    double f = 0.0;
    for (const LinearPart& p : map.parts) f += 2.0 * p.ir.dim() * p.matrices[0].in * p.matrices[0].out;
    return f;
  };
  double flops = 0.0;
  if (l.merged()) {
    const double c = l.element_functions;
    flops += edges * c * (taps + 2 * harmonics + reverse * (2 * taps + 4 * harmonics + 2));
    flops += nodes * both * of_map(l.element_linear[0][0]);
  }
  for (const ConvolutionPath& p : l.paths) {
    const double n1 = 2 * p.l1 + 1, n3 = 2 * p.l3 + 1;
    flops += edges * p.channels * (taps + n1 + 2 * n1 * n3 + reverse * (2 * taps + 4 * n1 * n3 + 5 * n1 + 2));
  }
  flops += nodes * both * (of_map(l.up) + of_map(l.linear) + of_map(l.product) + of_map(l.skip));
  const double per_channel = nodes * l.contraction.channels;
  flops += per_channel * static_cast<double>(l.contraction.products.size()) * (keeps_gradient ? 1.0 : both);
  for (const ContractionComponent& c : l.contraction.components)
    flops += 2.0 * per_channel * (double(c.value.coefficients) + (reverse > 0 ? double(c.gradient.coefficients) : 0.0));
  return flops;
}

}  // namespace adatom::gnn
