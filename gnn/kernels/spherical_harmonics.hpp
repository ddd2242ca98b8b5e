// SPDX-License-Identifier: MIT
// Real spherical harmonics Y_lm of a unit vector (x, y, z), l = 0..3, and the reverse pass.
//
// Order and axes are e3nn's: m = -l..l about the y axis, index lm = l^2 + l + m; "component" normalisation, sum_m Y_lm^2 = 2l + 1.
// Written as homogeneous polynomials, so the reverse pass is the gradient with respect to (x, y, z) as free variables; projecting it onto the
// plane normal to the vector is the caller's (edge geometry's) step.
#pragma once
#include "gnn/kernels/scalar.hpp"

namespace adatom::gnn {

namespace detail {
inline constexpr double sqrt3 = 1.7320508075688772935, sqrt5 = 2.2360679774997896964, sqrt15 = 3.8729833462074168852, sqrt105 = 10.246950765959598383;
inline constexpr double half_sqrt7 = 1.3228756555322952953;  // sqrt(7)/2
inline constexpr double sqrt35_8 = 2.0916500663351888699;    // sqrt(35/8)
inline constexpr double sqrt21_8 = 1.6201851746019650764;    // sqrt(21/8)
}  // namespace detail

/// Y[lm] for l = 0..l_max; N is a number or a lane of numbers.
template <class N>
ADATOM_INLINE void spherical_harmonics(int l_max, N x, N y, N z, N* Y) {
  using namespace detail;
  Y[0] = N(1);
  if (l_max < 1) return;
  Y[1] = x * sqrt3;
  Y[2] = y * sqrt3;
  Y[3] = z * sqrt3;
  if (l_max < 2) return;
  const N x2 = x * x, y2 = y * y, z2 = z * z;
  Y[4] = x * z * sqrt15;
  Y[5] = x * y * sqrt15;
  Y[6] = (y2 - (x2 + z2) * 0.5) * sqrt5;
  Y[7] = y * z * sqrt15;
  Y[8] = (z2 - x2) * (0.5 * sqrt15);
  if (l_max < 3) return;
  Y[9] = x * (z2 * 3.0 - x2) * sqrt35_8;
  Y[10] = x * y * z * sqrt105;
  Y[11] = x * (y2 * 4.0 - x2 - z2) * sqrt21_8;
  Y[12] = y * (y2 * 2.0 - (x2 + z2) * 3.0) * half_sqrt7;
  Y[13] = z * (y2 * 4.0 - x2 - z2) * sqrt21_8;
  Y[14] = y * (z2 - x2) * (0.5 * sqrt105);
  Y[15] = z * (z2 - x2 * 3.0) * sqrt35_8;
}

/// g = sum_lm gY[lm] dY_lm/d(x, y, z).
template <class N>
ADATOM_INLINE void spherical_harmonics_reverse(int l_max, N x, N y, N z, const N* gY, N (&g)[3]) {
  using namespace detail;
  g[0] = g[1] = g[2] = N(0);
  if (l_max < 1) return;
  g[0] = gY[1] * sqrt3;
  g[1] = gY[2] * sqrt3;
  g[2] = gY[3] * sqrt3;
  if (l_max < 2) return;
  const N a4 = gY[4] * sqrt15, a5 = gY[5] * sqrt15, a6 = gY[6] * sqrt5, a7 = gY[7] * sqrt15, a8 = gY[8] * sqrt15;
  g[0] = g[0] + a4 * z + a5 * y - a6 * x - a8 * x;
  g[1] = g[1] + a5 * x + a6 * y * 2.0 + a7 * z;
  g[2] = g[2] + a4 * x - a6 * z + a7 * y + a8 * z;
  if (l_max < 3) return;
  const N x2 = x * x, y2 = y * y, z2 = z * z;
  const N b9 = gY[9] * sqrt35_8, b10 = gY[10] * sqrt105, b11 = gY[11] * sqrt21_8, b12 = gY[12] * half_sqrt7, b13 = gY[13] * sqrt21_8, b14 = gY[14] * sqrt105,
          b15 = gY[15] * sqrt35_8;
  const N xy = x * y, xz = x * z, yz = y * z;
  const N d = (z2 - x2) * 3.0;  // of 9 (x) and 15 (z)
  g[0] = g[0] + b9 * d + b10 * yz + b11 * (y2 * 4.0 - x2 * 3.0 - z2) - (b12 * xy + b15 * xz) * 6.0 - b13 * xz * 2.0 - b14 * xy;
  g[1] = g[1] + b10 * xz + (b11 * xy + b13 * yz) * 8.0 + b12 * (y2 * 6.0 - (x2 + z2) * 3.0) + b14 * ((z2 - x2) * 0.5);
  g[2] = g[2] + b9 * xz * 6.0 + b10 * xy - b11 * xz * 2.0 - b12 * yz * 6.0 + b13 * (y2 * 4.0 - x2 - z2 * 3.0) + b14 * yz + b15 * d;
}

}  // namespace adatom::gnn
