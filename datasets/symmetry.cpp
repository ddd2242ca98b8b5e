// SPDX-License-Identifier: MIT
#include "datasets/symmetry.hpp"

#include <spglib.h>

#include <cmath>
#include <memory>
#include <vector>

namespace adatom::datasets {

std::string space_group(const Structure& s, double tolerance) {
  if (!(s.pbc[0] && s.pbc[1] && s.pbc[2]) || s.numbers.empty()) return {};
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
