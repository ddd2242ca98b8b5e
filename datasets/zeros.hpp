// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "datasets/frame.hpp"

/// Labels of exactly zero, which were never read or which a constraint has put in the place of forces.
namespace adatom::datasets {

/// How one-sided the surroundings of each atom are, from 0 to 1:  |sum_j w_j r_ij/r| / sum_j w_j  with w_j = a(Z_j) (1 - r/r_c)^2 over the neighbours
/// within r_c = 4.5 angstrom; the larger of those with a = 1 and a = Z. Where symmetry makes the force on an atom zero it makes this zero too: a site
/// whose symmetry leaves no vector as it is. 0 for an atom without neighbours.
/// Throws std::invalid_argument for structures that have no neighbour list.
std::vector<double> one_sidedness(const Structure& structure);

/// Atoms of a frame whose force is exactly zero without a symmetry that makes it so.
int zeroed_atoms(const Frame& frame);

}  // namespace adatom::datasets
