// SPDX-License-Identifier: MIT
// Detectors of uncertainty for the nodes of a tile: one dense product per element.
#pragma once
#include "gnn/cpu/maps.hpp"
#include "gnn/detectors.hpp"

namespace adatom::gnn::cpu {

template <class T>
struct PackedDetectors {
  const Detectors* spec = nullptr;
  std::vector<AlignedVector<T>> mean;
  std::vector<PackedMatrix<T>> matrices;
  int in = 0, out = 0;  ///< padded

  PackedDetectors() = default;
  explicit PackedDetectors(const Detectors& d) : spec(&d), in(padded(d.features)), out(padded(d.outputs())) {
    for (const auto& m : d.mean) {
      mean.emplace_back(m.begin(), m.end());
      mean.back().resize(in);
    }
    for (const Matrix& m : d.matrices) matrices.push_back(pack<T>(m, false));
  }
};

/// Where the results of detectors are wanted; as in GraphResult.
struct DetectorResults {
  double *member_energies = nullptr, *force_std = nullptr, *distances = nullptr, *whitened = nullptr;
  bool wanted() const { return member_energies || force_std || distances || whitened; }
};

/// For nodes first .. first + nodes - 1, whose scalar features are the rows of w.scalars, `in` wide; what is beyond the features is zero.
template <class S, int W, int RB>
void detect(const PackedDetectors<Base<S>>& detectors, int first, int nodes, const int* species, const DetectorResults& results, Workspace<S>& w) {
  const Detectors& d = *detectors.spec;
  S* x = w.scalars.data();
  S* y = need(w.detected, std::size_t(nodes) * detectors.out);
  for (int i = 0; i < nodes; ++i)
    for (int k = 0; k < d.features; ++k) x[std::size_t(i) * detectors.in + k] = x[std::size_t(i) * detectors.in + k] - detectors.mean[species[i]][k];
  for_rows(
      static_cast<int>(detectors.matrices.size()), nodes, species, 1, [&](int i, int) -> const S* { return x + std::size_t(i) * detectors.in; },
      [&](int i, int) { return y + std::size_t(i) * detectors.out; }, w,
      [&](int z, int rows) { linear<S, W, RB>(rows, w.x.data(), 0, w.y.data(), 0, detectors.matrices[z], false); });
  for (int i = 0; i < nodes; ++i) {
    const S* row = y + std::size_t(i) * detectors.out;
    const std::size_t at = first + i;
    if (results.distances) results.distances[at] = d.distance(species[i], row);
    if (results.force_std) results.force_std[at] = d.force_std(species[i], row);
    if (results.whitened)
      for (int k = 0; k < d.components; ++k) results.whitened[at * d.components + k] = d.scaled(species[i], row[k]);
    if (results.member_energies)
      for (int k = 0; k < d.members; ++k) results.member_energies[at * d.members + k] = d.member(species[i], row[d.components + k]);
  }
}

}  // namespace adatom::gnn::cpu
