// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "datasets/report.hpp"

namespace adatom::datasets {

/// Signs that a head's energies, forces or stresses are not in eV and angstrom. Ranges only raise a suspicion: the numbers of, say, a data set of
/// relaxed structures may rightly be small. The slope of energies against forces is proof.
std::vector<UnitSuspicion> suspect_units(const HeadSummary& head);

/// eV per unit of energy.
inline constexpr double hartree = 27.211386245988, rydberg = hartree / 2, kcal_per_mol = 0.043364104, kJ_per_mol = 0.010364270;  // CODATA 2018
inline constexpr double bohr = 0.529177210903;                                                                                   // angstrom

}  // namespace adatom::datasets
