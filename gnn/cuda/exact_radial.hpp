// SPDX-License-Identifier: MIT
// Radial functions without splines, per edge: for checks of the tables, not for speed.
#pragma once
#include "gnn/cuda/graph.hpp"

namespace adatom::gnn::cuda {

/// What radial_basis() reads of a Radial.
struct DeviceRadial {
  struct Basis {
    RadialBasis::Type type = RadialBasis::Type::bessel;
    const double* parameters = nullptr;
    double factor = 0.0;
    int count = 0;
    ADATOM_DEVICE int size() const { return count; }
  } basis;
  CutoffFunction cutoff;
  DistanceTransform transform;
  bool cutoff_on_basis = true;
};

struct DeviceMlpLayer {
  int in, out;
  const double *weight, *bias, *norm_weight, *norm_bias;  ///< null where there is none
};

/// phi and dphi/dr of an edge, [edge of the block][hidden], and the density. A warp per edge.
template <class S>
struct ExactRadial {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  using D = Dual<S>;
  DeviceGraph g;
  const int* receiver = nullptr;  ///< [edges]
  const EdgeVector<S>* vectors = nullptr;
  int first_edge = 0;
  DeviceRadial radial;
  const double* radii = nullptr;  ///< [species]; null if the functions do not depend on the pair
  const DeviceMlpLayer* layers = nullptr;
  int layer_count = 0, widest = 0;
  Activation activation = Activation::silu;
  bool constant = false;
  int hidden = 0;
  S *phi = nullptr, *slopes = nullptr;
  const double* density_weights = nullptr;  ///< [basis] or null
  S* density = nullptr;                     ///< [edges][2]

  static std::size_t shared(int widest) { return 2 * shared_bytes<D>(widest) + shared_bytes<D>(1); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const std::size_t row = team.index();
    const int e = first_edge + static_cast<int>(row);
    const EdgeVector<S> v = vectors[e];
    if (!is_active(v)) return;
    D* x = team.template shared<D>(widest);
    D* next = team.template shared<D>(widest);
    D* factor = team.template shared<D>(1);
    int size = radial.basis.size();
    team.each([&](int lane) {
      if (lane > 0) return;
      const S sum = radii ? S(T(radii[g.species[receiver[e]]] + radii[g.species[g.sender[e]]])) : S(T(0));
      *factor = radial_basis(radial, D(v[3], S(T(1))), D(sum), x);
      if (!density_weights) return;
      D d(S(T(0)));
      for (int n = 0; n < size; ++n) d = d + x[n] * density_weights[n];
      d = tanh(d * d) * *factor;
      density[2 * std::size_t(e)] = d.v, density[2 * std::size_t(e) + 1] = d.d;
    });
    for (int l = 0; l < layer_count; ++l) {
      const DeviceMlpLayer& layer = layers[l];
      team.each([&](int lane) {
        for (int o = lane; o < layer.out; o += warp_size) {
          D sum = layer.bias ? D(S(T(layer.bias[o]))) : D(S(T(0)));
          for (int i = 0; i < layer.in; ++i) sum = sum + x[i] * layer.weight[std::size_t(i) * layer.out + o];
          next[o] = sum;
        }
      });
      if (layer.norm_weight)
        team.each([&](int lane) {
          if (lane > 0) return;
          D mean(S(T(0))), variance(S(T(0)));
          for (int o = 0; o < layer.out; ++o) mean = mean + next[o];
          mean = mean * (1.0 / layer.out);
          for (int o = 0; o < layer.out; ++o) variance = variance + (next[o] - mean) * (next[o] - mean);
          const D inverse = D(S(T(1))) / sqrt(variance * (1.0 / layer.out) + 1e-5);
          for (int o = 0; o < layer.out; ++o) next[o] = (next[o] - mean) * inverse * layer.norm_weight[o] + layer.norm_bias[o];
        });
      team.each([&](int lane) {
        for (int o = lane; o < layer.out; o += warp_size) x[o] = activate(activation, next[o]);
      });
      size = layer.out;
    }
    team.each([&](int lane) {
      for (int n = lane; n < hidden; n += warp_size) {
        const D y = n < size ? x[n] * *factor : n == size && constant ? *factor : D(S(T(0)));
        phi[row * hidden + n] = y.v, slopes[row * hidden + n] = y.d;
      }
    });
  }
};

}  // namespace adatom::gnn::cuda
