// SPDX-License-Identifier: MIT
#include "datasets/zeros.hpp"

#include <algorithm>
#include <cmath>

#include "adatom/neighbor_list.hpp"

namespace adatom::datasets {
namespace {

constexpr double cutoff = 4.5;             // angstrom
constexpr double least_one_sided = 0.004;  // fcc with atoms 0.05 angstrom off their sites has 0.02, coordinates of three decimals give 0.0005

bool is_zero(const Vector3& v) { return v[0] == 0 && v[1] == 0 && v[2] == 0; }

}  // namespace

std::vector<double> one_sidedness(const Structure& structure) {
  NeighborList list(cutoff);
  list.update(structure, 1);
  std::vector<double> result(structure.numbers.size());
  for (std::size_t i = 0; i < result.size(); ++i) {
    Vector3 sum[2] = {};
    double weights[2] = {};
    for (std::int64_t e = list.first_edge()[i]; e < list.first_edge()[i + 1]; ++e) {
      const int j = list.sender()[e];
      Vector3 r_ij = list.shifts()[list.shift()[e]];
      for (int x = 0; x < 3; ++x) r_ij[x] += list.positions()[j][x] - list.positions()[i][x];
      const double r = std::sqrt(r_ij[0] * r_ij[0] + r_ij[1] * r_ij[1] + r_ij[2] * r_ij[2]);
      const double near = (1 - r / cutoff) * (1 - r / cutoff);
      for (int k = 0; k < 2; ++k) {
        const double w = near * (k == 0 ? 1 : structure.numbers[j]);
        weights[k] += w;
        for (int x = 0; x < 3; ++x) sum[k][x] += w * r_ij[x] / r;
      }
    }
    for (int k = 0; k < 2; ++k)
      if (weights[k] > 0) result[i] = std::max(result[i], std::sqrt(sum[k][0] * sum[k][0] + sum[k][1] * sum[k][1] + sum[k][2] * sum[k][2]) / weights[k]);
  }
  return result;
}

int zeroed_atoms(const Frame& frame) {
  if (frame.size() < 2 || std::none_of(frame.forces.begin(), frame.forces.end(), is_zero)) return 0;
  const std::vector<double> one_sided = one_sidedness(frame.structure);
  int count = 0;
  for (std::size_t i = 0; i < frame.size(); ++i) count += is_zero(frame.forces[i]) && one_sided[i] > least_one_sided;
  return count;
}

}  // namespace adatom::datasets
