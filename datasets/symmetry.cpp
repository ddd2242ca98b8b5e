// SPDX-License-Identifier: MIT
#include "datasets/symmetry.hpp"

#include <spglib.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <vector>

#include "datasets/frame.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {

void require_tolerance(double tolerance) {
  if (!(tolerance > 0) || !std::isfinite(tolerance))
    throw std::invalid_argument("the tolerance of space groups is " + number_text(tolerance) + " angstrom, expected a positive number, such as 0.01");
}

std::string space_group(const Structure& s, double tolerance) {
  require_tolerance(tolerance);
  if (!(s.pbc[0] && s.pbc[1] && s.pbc[2]) || s.numbers.empty() || s.positions.size() != s.numbers.size()) return {};
  // Where its search fails, spglib frees what it has not allocated, and a huge cell keeps it for ever.
  if (!std::all_of(s.cell.begin(), s.cell.end(), is_within_reach) || !std::all_of(s.positions.begin(), s.positions.end(), is_within_reach)) return {};
  // Rows of ours are the vectors, columns of spglib's.
  double lattice[3][3];
  for (int k = 0; k < 3; ++k)
    for (int x = 0; x < 3; ++x) lattice[x][k] = s.cell[k][x];
  const auto cross = [](const Vector3& a, const Vector3& b) {
    return Vector3{a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
  };
  const auto dot = [](const Vector3& a, const Vector3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; };
  const double volume = dot(s.cell[0], cross(s.cell[1], s.cell[2]));
  if (volume == 0) return {};
  // Nor has a cell a symmetry in which an atom and its own image are one within the tolerance; spglib reads what is not its own there.
  for (int k = 0; k < 3; ++k) {
    const Vector3 normal = cross(s.cell[(k + 1) % 3], s.cell[(k + 2) % 3]);
    if (!(2 * tolerance * std::sqrt(dot(normal, normal)) < std::abs(volume))) return {};
  }
  std::vector<std::array<double, 3>> fractional;
  for (const Vector3& r : s.positions) {
    auto& f = fractional.emplace_back();
    for (int k = 0; k < 3; ++k) {
      f[k] = dot(cross(s.cell[(k + 1) % 3], s.cell[(k + 2) % 3]), r) / volume;
      f[k] -= std::floor(f[k]);  // spglib makes integers of them, which must fit
      if (!std::isfinite(f[k])) return {};
    }
  }
  static_assert(sizeof(fractional[0]) == sizeof(double[3]));
  const std::unique_ptr<SpglibDataset, void (*)(SpglibDataset*)> found(
      spg_get_dataset(lattice, reinterpret_cast<double(*)[3]>(fractional.data()), s.numbers.data(), static_cast<int>(s.numbers.size()), tolerance),
      spg_free_dataset);
  if (!found || found->spacegroup_number == 0) return {};
  return std::string(found->international_symbol) + " (" + std::to_string(found->spacegroup_number) + ")";
}

}  // namespace adatom::datasets
