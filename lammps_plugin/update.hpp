// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <string>

namespace adatom_lammps {

/// What LAMMPS the plugin was compiled for, for instance "22 Jul 2025 - Update 4".
std::string compiled_for();

/// What the LAMMPS is that has loaded the plugin, in the same form. Uses none of its classes.
std::string loaded_by(void* lmp);

}  // namespace adatom_lammps
