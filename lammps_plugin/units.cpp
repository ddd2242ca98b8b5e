// SPDX-License-Identifier: GPL-2.0-or-later
#include "units.hpp"

#include <stdexcept>
#include <string>

#include <force.h>
#include <update.h>
#include <utils.h>

namespace adatom_lammps {

Units native_units(const LAMMPS_NS::Update& update, const LAMMPS_NS::Force& force) {
  const std::string style = update.unit_style;
  if (style == "lj")
    throw std::invalid_argument(
        "pair style adatom works in eV and angstrom, and 'units lj' has no scale to convert them to: use 'units metal' or any "
        "other physical units");
  if (style == "real") return {LAMMPS_NS::utils::get_conversion_factor(LAMMPS_NS::utils::ENERGY, LAMMPS_NS::utils::METAL2REAL), force.angstrom};
  const double boltzmann = 8.617343e-5;  // eV/K, the value of LAMMPS for `units metal`, so that the ratio is exactly 1 there
  return {force.boltz / boltzmann, force.angstrom};
}

}  // namespace adatom_lammps
