// SPDX-License-Identifier: MIT
// Uniform quintic B-splines: f(r) = sum_n w_n(t) c[knot + n], with r = (knot + t) h, 0 <= t < 1, n = 0..5.
//
// One coefficient per knot and function (a sixth of a table of polynomials), four times continuously differentiable, and the derivative is the exact
// derivative of the value: dw_n/dr. Quintic rather than cubic, because slopes are what forces are made of: they converge as h^5 instead of h^3, so
// that few knots do; tables then stay in cache, and float does not lose digits in differences of coefficients of close knots.
#pragma once
#include "gnn/kernels/scalar.hpp"

namespace adatom::gnn {

inline constexpr int spline_taps = 6;

/// Weights w and their derivatives dw with respect to r, from t and 1/h (a number, or a lane of numbers without derivatives).
template <class N, class H>
ADATOM_INLINE void spline_weights(N t, H inverse_h, N (&w)[spline_taps], N (&dw)[spline_taps]) {
  // Three pieces; the other three are their mirror images.
  const auto outer = [](N x) { return x * x * x * x * x * (1.0 / 120); };
  const auto outer_slope = [](N x) { return x * x * x * x * (1.0 / 24); };
  const auto middle = [](N x) { return ((((x * 5.0 - 20.0) * x + 20.0) * x + 20.0) * x - 50.0) * x * (1.0 / 120) + 26.0 / 120; };
  const auto middle_slope = [](N x) { return (((x * 25.0 - 80.0) * x + 60.0) * x + 40.0) * x * (1.0 / 120) - 50.0 / 120; };
  const auto inner = [](N x) { return ((x * -10.0 + 30.0) * x * x - 60.0) * x * x * (1.0 / 120) + 66.0 / 120; };
  const auto inner_slope = [](N x) { return ((x * -50.0 + 120.0) * x * x - 120.0) * x * (1.0 / 120); };
  const N s = N(1) - t;
  w[0] = outer(s), w[1] = middle(t), w[2] = inner(t), w[3] = inner(s), w[4] = middle(s), w[5] = outer(t);
  dw[0] = -(outer_slope(s) * inverse_h), dw[1] = middle_slope(t) * inverse_h, dw[2] = inner_slope(t) * inverse_h;
  dw[3] = -(inner_slope(s) * inverse_h), dw[4] = -(middle_slope(s) * inverse_h), dw[5] = outer_slope(t) * inverse_h;
}

}  // namespace adatom::gnn
