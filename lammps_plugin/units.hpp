// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace LAMMPS_NS {
class Force;
class Update;
}  // namespace LAMMPS_NS

namespace adatom_lammps {

/// The engine's units in those of the LAMMPS run.
struct Units {
  double electronvolt = 1.0;  ///< 1 eV in the energy unit of the run
  double angstrom = 1.0;      ///< 1 angstrom in the length unit of the run
};

/// From LAMMPS's own constants: lengths by Force::angstrom. Energies of `real` by the factor with which LAMMPS converts potentials from metal to
/// real units; of all others by the ratio of Boltzmann's constant in the units of the run to that in eV/K.
/// Throws std::invalid_argument for `units lj`, which have no scale.
Units native_units(const LAMMPS_NS::Update& update, const LAMMPS_NS::Force& force);

}  // namespace adatom_lammps
