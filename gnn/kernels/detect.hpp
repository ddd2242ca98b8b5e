// SPDX-License-Identifier: MIT
// What detectors of uncertainty say of an atom (gnn/detectors.hpp), from mean squares over bands of its whitened features and of what the members of the
// ensemble add to its energy.
#pragma once
#include "gnn/kernels/scalar.hpp"

namespace adatom::gnn {

/// Root mean square of the whitened features in units of `scale`; 0: an element that training data did not have.
ADATOM_FUNCTION inline double feature_distance(double mean_square, double scale) { return scale > 0.0 ? sqrt(mean_square) / scale : double(INFINITY); }

/// Standard deviation of a force component, eV/angstrom: exp(a_0 + sum_b a_b log(rms of band b) + a log(rms of the members)).
struct ForceDeviation {
  double log;  ///< a_0 to begin with
  ADATOM_FUNCTION void add(double coefficient, double mean_square) { log += coefficient * 0.5 * ::log(mean_square + 1e-24); }
  ADATOM_FUNCTION double value() const { return exp(log); }
};

}  // namespace adatom::gnn
