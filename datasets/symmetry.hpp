// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "adatom/structure.hpp"

namespace adatom::datasets {

/// Space group of a crystal by spglib (Togo, Shinohara, Tanaka, Sci. Technol. Adv. Mater. Meth. 4, 2384822, 2024), as in "Fm-3m (225)".
/// `tolerance`: how far atoms may lie from their symmetric places, angstrom. Empty if the structure is not periodic along all vectors, has a
/// coordinate beyond `farthest` (frame.hpp), a height of the cell below twice the tolerance, or spglib finds none (atoms too close). Throws as require_tolerance.
std::string space_group(const Structure& structure, double tolerance);

/// Throws std::invalid_argument for a tolerance that is not positive or not finite: spglib crashes on negative ones, and tries for 15 s with zero.
void require_tolerance(double tolerance);

}  // namespace adatom::datasets
