// SPDX-License-Identifier: MIT
// Scalar features of nodes: handed out, weighted, or judged by the detectors of uncertainty (gnn/detectors.hpp).
//
// Layer by layer PassFeatures takes what is wanted of the features, also (x - mean) for the detectors, whose matrices are a linear map of the nodes like any
// other (linear.hpp); DetectNodes turns its output into distances and deviations.
#pragma once
#include "gnn/cuda/graph.hpp"
#include "gnn/kernels/detect.hpp"

namespace adatom::gnn::cuda {

/// Of one layer. Arrays of the caller are in its order, [receivers][width]. A warp per node.
template <class S>
struct PassFeatures {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  using Sum = SumOf<S>;
  const int *node = nullptr, *species = nullptr;  ///< [nodes] number in the caller's graph; species
  const int* offsets = nullptr;                   ///< [count] of the scalar features in a node's row
  int count = 0, first = 0, width = 0;            ///< number of them; place of the first among those of all layers, and the number of these
  const S* h = nullptr;                           ///< [nodes][size]
  int size = 0;
  double *values = nullptr, *tangents = nullptr;  ///< null, or where they go
  const double* weights = nullptr;                ///< null, or: their sum is the energy
  S* gh = nullptr;                                ///< [nodes][size] its adjoint; null without the reverse pass
  Sum* energies = nullptr;                        ///< added to
  const T* mean = nullptr;                        ///< [species][centred_size]
  T* centred = nullptr;                           ///< null, or [nodes][centred_size] x - mean
  int centred_size = 0;

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const std::size_t i = team.index(), own = std::size_t(node[i]) * width + first;
    auto sum = team.template local<Sum>();
    team.each([&](int lane) {
      sum[lane] = Sum(0.0);
      for (int k = lane; k < count; k += warp_size) {
        const std::size_t at = i * size + offsets[k];
        const S x = h[at];
        if (values) values[own + k] = value(x);
        if constexpr (is_dual<S>)
          if (tangents) tangents[own + k] = x.d;
        if (centred) centred[i * centred_size + first + k] = value(x) - mean[std::size_t(species[i]) * centred_size + first + k];
        if (!weights) continue;
        sum[lane] = sum[lane] + weights[own + k] * widen(x);
        if (gh) gh[at] = S(static_cast<T>(weights[own + k]));
      }
    });
    if (!weights) return;
    team.warps([&](const Warp& warp) {
      const Sum total = warp.sum(sum);
      warp.each([&](int lane) {
        if (lane == 0) energies[i] = energies[i] + total;
      });
    });
  }
};

/// As Detectors, on the device.
struct DeviceDetectors {
  int components = 0, members = 0, bands = 0;
  const int* band_ends = nullptr;          ///< [bands]
  const double* distance_scale = nullptr;  ///< [species]
  const double* force = nullptr;           ///< [species][bands + 2]
};

/// A warp per node. Results are in the caller's order; null: not wanted.
template <class T>
struct DetectNodes {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  DeviceDetectors d;
  const int *node = nullptr, *species = nullptr;
  const T* y = nullptr;  ///< [nodes][size] whitened features, then what members add
  int size = 0;
  double *member_energies = nullptr, *force_std = nullptr, *distances = nullptr, *whitened = nullptr;

  static std::size_t shared(int bands) { return shared_bytes<double>(bands + 1); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const std::size_t i = team.index(), to = node[i];
    const int z = species[i];
    const T* row = y + i * size;
    double* squares = team.template shared<double>(d.bands + 1);  // sums over bands; the last one over members
    auto sum = team.template local<Array<double, 1>>();
    for (int b = 0; b <= d.bands; ++b) {
      const int begin = b > 0 ? d.band_ends[b - 1] : 0, end = b < d.bands ? d.band_ends[b] : d.components + d.members;
      team.each([&](int lane) {
        sum[lane][0] = 0.0;
        for (int k = begin + lane; k < end; k += warp_size) sum[lane][0] += double(row[k]) * double(row[k]);
      });
      team.warps([&](const Warp& warp) { warp.sum_to(sum, squares + b); });
    }
    team.each([&](int lane) {
      if (lane == 0) judge(z, to, squares);
      const double scale = d.distance_scale[z];
      for (int k = lane; whitened && k < d.components; k += warp_size)
        whitened[to * d.components + k] = scale > 0.0 ? double(row[k]) / scale : double(INFINITY);
      for (int k = lane; member_energies && k < d.members; k += warp_size)
        member_energies[to * d.members + k] = scale > 0.0 ? double(row[d.components + k]) : double(INFINITY);
    });
  }

 private:
  ADATOM_DEVICE void judge(int z, std::size_t to, const double* squares) const {
    const double* a = d.force + std::size_t(z) * (d.bands + 2);
    ForceDeviation deviation{a[0]};
    double all = 0.0;
    for (int b = 0, begin = 0; b < d.bands; ++b) {
      deviation.add(a[b + 1], squares[b] / (d.band_ends[b] - begin));
      all += squares[b];
      begin = d.band_ends[b];
    }
    deviation.add(a[d.bands + 1], d.members ? squares[d.bands] / d.members : 0.0);
    const double scale = d.distance_scale[z];
    if (distances) distances[to] = feature_distance(all / d.components, scale);
    if (force_std) force_std[to] = scale > 0.0 ? deviation.value() : double(INFINITY);
  }
};

}  // namespace adatom::gnn::cuda
