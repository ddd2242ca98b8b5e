// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <vector>

namespace adatom {

using Vector3 = std::array<double, 3>;
using Matrix3 = std::array<Vector3, 3>;

/// Atoms in a cell that may be periodic along any of its vectors.
struct Structure {
  Matrix3 cell{};                  ///< rows are the lattice vectors, angstrom; rows of directions that are not periodic may be zero
  std::array<bool, 3> pbc{};       ///< periodic along each lattice vector
  std::vector<int> numbers;        ///< atomic numbers
  std::vector<Vector3> positions;  ///< angstrom; need not lie inside the cell
};

}  // namespace adatom
