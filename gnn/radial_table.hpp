// SPDX-License-Identifier: MIT
#pragma once
#include <functional>

#include "gnn/network.hpp"

namespace adatom::gnn {

/// Evaluates radial functions of a pair of species, and their derivatives, at r (angstrom).
using RadialFunctions = std::function<void(int pair, Dual<double> r, Dual<double>* values)>;

/// Tabulates functions that vanish at the cutoff. `kink`: where their second derivative jumps, 0 for nowhere. The number of knots is doubled until
/// the largest error between knots is below `tolerance` of the largest value, and four times that of the largest slope for slopes, which are what forces
/// are made of. Throws std::runtime_error if 8192 knots do not do.
SplineTable make_spline_table(const RadialFunctions& f, int count, int pairs, double cutoff, double kink, double tolerance);

/// Few combinations psi = phi P of the radial functions phi that span R = phi M on (0, cutoff): R = psi M'.
struct ReducedFunctions {
  Matrix projection;  ///< P [hidden][functions]
  Matrix matrix;      ///< M' [functions][columns]
};

/// By a singular value decomposition of R sampled on a grid; the functions that are left out contribute less than `tolerance` of the largest |R|.
ReducedFunctions reduce_functions(const RadialFunctions& phi, const Matrix& m, int pairs, double cutoff, double tolerance);

}  // namespace adatom::gnn
