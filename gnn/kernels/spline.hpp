// SPDX-License-Identifier: MIT
// Uniform cubic B-splines: f(r) = sum_n w_n(t) c[knot + n], with r = (knot + t) h, 0 <= t < 1, n = 0..3.
//
// One coefficient per knot and function (a quarter of a table of polynomials), twice continuously differentiable, and the derivative is the exact
// derivative of the value: dw_n/dr.
#pragma once
#include "gnn/kernels/lane.hpp"

namespace adatom::gnn {

inline constexpr int spline_taps = 4;

/// Weights w and their derivatives dw with respect to r, from t and 1/h (a number, or a lane of numbers without derivatives).
template <class N, class H>
ADATOM_INLINE void spline_weights(N t, H inverse_h, N (&w)[spline_taps], N (&dw)[spline_taps]) {
  const N s = N(1) - t, t2 = t * t, s2 = s * s;
  w[0] = s2 * s * (1.0 / 6);
  w[3] = t2 * t * (1.0 / 6);
  w[1] = t2 * (t * 0.5 - 1.0) + 2.0 / 3;
  w[2] = s2 * (s * 0.5 - 1.0) + 2.0 / 3;
  dw[0] = s2 * -0.5 * inverse_h;
  dw[3] = t2 * 0.5 * inverse_h;
  dw[1] = t * (t * 1.5 - 2.0) * inverse_h;
  dw[2] = s * (2.0 - s * 1.5) * inverse_h;
}

}  // namespace adatom::gnn
