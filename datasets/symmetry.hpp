// SPDX-License-Identifier: MIT
#pragma once
#include <string>

#include "adatom/structure.hpp"

namespace adatom::datasets {

/// Space group of a crystal by spglib (Togo, Shinohara, Tanaka, Sci. Technol. Adv. Mater. Meth. 4, 2384822, 2024), as in "Fm-3m (225)".
/// `tolerance`: how far atoms may lie from their symmetric places, angstrom. Empty if the structure is not periodic along all vectors or spglib finds
/// none (atoms too close).
std::string space_group(const Structure& structure, double tolerance);

}  // namespace adatom::datasets
