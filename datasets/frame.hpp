// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "adatom/structure.hpp"

/// Labelled configurations: reading, writing, caching, examining and splitting them.
/// Units: eV, angstrom, eV/angstrom; stress in eV/angstrom^3 with ASE's sign (positive: the cell wants to shrink, dE/d(strain) / V > 0),
/// Voigt order xx yy zz yz xz xy. Frames and atoms are counted from 0, lines from 1.
namespace adatom::datasets {

using Voigt = std::array<double, 6>;

/// A data file or a frame that cannot be used. The message names the file, the frame and, in text files, the line, and says what to do.
struct DataError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Factors of the loss, multiplied with each other: a frame's energy term has config * energy.
struct Weights {
  double config = 1.0, energy = 1.0, forces = 1.0, stress = 1.0;
  bool operator==(const Weights&) const = default;
};

/// One configuration with what a DFT calculation says about it. A label that is absent is empty.
struct Frame {
  Structure structure;
  std::optional<double> energy;  ///< eV, of all atoms
  std::vector<Vector3> forces;   ///< [n] or empty, eV/angstrom
  std::optional<Voigt> stress;   ///< eV/angstrom^3
  std::vector<double> charges;   ///< [n] or empty, elementary charges
  Weights weights;
  std::string config_type;  ///< free label, e.g. "bulk", "IsolatedAtom"
  std::string group;        ///< what must stay together in a split, e.g. the name of a trajectory
  std::string head;         ///< level of theory; empty: the only one

  std::size_t size() const { return structure.numbers.size(); }
};

/// What is wrong with a frame, whatever it is used for; empty if nothing is: rows that do not fit the number of atoms, no atoms, atomic numbers that
/// are no element, values that are not finite, coordinates beyond `farthest`, a periodic cell without volume, negative weights. Each entry is one sentence
/// without the frame's name.
std::vector<std::string> defects(const Frame& frame);

/// Volume of the cell, angstrom^3; 0 for a cell without.
double volume(const Matrix3& cell);

/// An atom alone: no other atom or periodic image within `isolation_distance`, or one atom whose config_type is IsolatedAtom (any case, also
/// isolated_atom).
bool is_isolated_atom(const Frame& frame);
inline constexpr double isolation_distance = 7.0;  // angstrom

/// One atom whose charge says that it is an ion, so that its energy is not that of the atom.
bool is_ion(const Frame& frame);

/// Coordinates and cell vectors beyond it are taken for damage: fractional coordinates and neighbour grids no longer fit their numbers.
inline constexpr double farthest = 1e8;  // angstrom
bool is_within_reach(const Vector3& v);  ///< false for NaN

}  // namespace adatom::datasets
