// SPDX-License-Identifier: MIT
#pragma once
#include <functional>

#include "gnn/network.hpp"

namespace adatom::gnn {

/// Evaluates `count` radial functions of a pair of species at r (angstrom).
using RadialFunctions = std::function<void(int pair, double r, double* values)>;

/// Tabulates functions that vanish at the cutoff. The number of knots is doubled until the largest error between knots is below `tolerance` of the
/// largest value. Throws std::runtime_error if 8192 knots do not do.
SplineTable make_spline_table(const RadialFunctions& f, int count, int pairs, double cutoff, double tolerance);

/// Few combinations psi = phi P of the radial functions phi that span R = phi M on (0, cutoff): R = psi M'.
struct ReducedFunctions {
  Matrix projection;  ///< P [hidden][functions]
  Matrix matrix;      ///< M' [functions][columns]
};

/// By a singular value decomposition of R sampled on a grid; the functions that are left out contribute less than `tolerance` of the largest |R|.
ReducedFunctions reduce_functions(const RadialFunctions& phi, const Matrix& m, int pairs, double cutoff, double tolerance);

}  // namespace adatom::gnn
