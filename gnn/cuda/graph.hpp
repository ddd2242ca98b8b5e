// SPDX-License-Identifier: MIT
// The graph as the device sees it, and its edges.
#pragma once
#include <cstdint>

#include "gnn/cuda/portable.hpp"
#include "gnn/kernels/radial.hpp"
#include "gnn/kernels/spherical_harmonics.hpp"
#include "gnn/kernels/spline.hpp"

namespace adatom::gnn::cuda {

struct DeviceBox;

template <class S>
using SumOf = std::conditional_t<is_dual<S>, Dual<double>, double>;  ///< what sums over atoms and edges are formed in

ADATOM_INLINE double widen(float x) { return x; }
ADATOM_INLINE double widen(double x) { return x; }
template <class T>
ADATOM_INLINE Dual<double> widen(Dual<T> x) {
  return {double(x.v), double(x.d)};
}

template <class S>
ADATOM_INLINE S narrow(SumOf<S> x) {
  if constexpr (is_dual<S>)
    return S(static_cast<Base<S>>(x.v), static_cast<Base<S>>(x.d));
  else
    return static_cast<S>(x);
}

/// Nodes are numbered anew: receivers by species, so that those of one species lie side by side, then ghosts. Edges of a receiver are ordered by the species
/// of their sender.
struct DeviceGraph {
  int receivers = 0, nodes = 0;
  const int* node = nullptr;        ///< [nodes] number in the caller's graph
  const int* species = nullptr;     ///< [nodes]
  const int* first_edge = nullptr;  ///< [receivers + 1]
  const int* sender = nullptr;      ///< [edges]
  const int* shift = nullptr;       ///< [edges] row of `shifts`; null when there are none
  const int* first_run = nullptr;   ///< [receivers + 1] runs: the edges of a receiver from senders of one species
  const int* run_edge = nullptr;    ///< [runs + 1] first edge
  const int* first_sent = nullptr;  ///< [nodes + 1]
  const int* sent_edge = nullptr;   ///< [edges] those of each sender, ascending
  const double* x = nullptr;        ///< [nodes][3] positions
  const double* shifts = nullptr;   ///< [][3]
  // Instead of shifts, of lists that were made on the device (gnn/cuda/search.hpp):
  const int* image = nullptr;        ///< [edges] periodic image of the sender, see pack_image
  const int* structure = nullptr;    ///< [nodes]
  const DeviceBox* boxes = nullptr;  ///< [structures]
  bool pairs = false;                ///< radial functions depend on the pair of species

  bool operator==(const DeviceGraph&) const = default;

  ADATOM_DEVICE int pair(int a, int b) const {  // Network::pair
    if (!pairs) return 0;
    return a < b ? b * (b + 1) / 2 + a : a * (a + 1) / 2 + b;
  }
};

/// r_ij and its length; length 0: beyond the cutoff.
template <class S>
using EdgeVector = Pack<S, 4>;

template <class S>
ADATOM_DEVICE bool is_active(const EdgeVector<S>& v) {
  return value(v[3]) > 0;
}

/// A spline table on the device, [pair][row][function].
template <class T>
struct DeviceTable {
  const T* data = nullptr;
  int functions = 0, pair_rows = 0, segments = 0;
  T begin[2] = {}, inverse_h[2] = {};
  int last[2] = {}, first[2] = {};

  /// Weights w (and slopes dw) of the rows from the returned one on.
  template <class S>
  ADATOM_DEVICE int weights(S r, int pair, S (&w)[spline_taps], S (&dw)[spline_taps]) const {
    NumberOf<S> values[spline_taps], slopes[spline_taps];
    const int s = segments > 1 && value(r) >= begin[1] ? 1 : 0;
    const S u = (r - begin[s]) * inverse_h[s];
    int at = static_cast<int>(value(u));
    at = at < 0 ? 0 : at > last[s] ? last[s] : at;
    spline_weights(number(S(u - T(at))), inverse_h[s], values, slopes);
    ADATOM_UNROLL
    for (int n = 0; n < spline_taps; ++n) w[n] = scalar(values[n]), dw[n] = scalar(slopes[n]);
    return pair * pair_rows + first[s] + at;
  }
};

/// Radial functions that were evaluated beforehand, per edge; null with splines.
template <class S>
struct DeviceRows {
  const S *values = nullptr, *slopes = nullptr;  ///< [edges from the first of the block][stride]
  int stride = 0;
};

/// Harmonics of an edge.
struct Harmonics {
  int l_max = 0;
  bool solid = false;
  ADATOM_FUNCTION int count() const { return (l_max + 1) * (l_max + 1); }

  template <class S>
  ADATOM_DEVICE void operator()(const EdgeVector<S>& v, S* Y) const {
    const S length = solid ? S(Base<S>(1)) : S(Base<S>(1) / v[3]);
    spherical_harmonics(l_max, number(S(v[0] * length)), number(S(v[1] * length)), number(S(v[2] * length)), reinterpret_cast<NumberOf<S>*>(Y));
  }
  /// f = dE/dr_ij from dE/dY and dE/dr.
  template <class S>
  ADATOM_DEVICE void reverse(const EdgeVector<S>& v, const S* gY, S gr, S (&f)[3]) const {
    using N = NumberOf<S>;
    const N* const g_harmonics = reinterpret_cast<const N*>(gY);
    const N inverse = N(1) / number(v[3]), x = number(v[0]) * inverse, y = number(v[1]) * inverse, z = number(v[2]) * inverse;
    N g[3], radial = number(gr);
    if (solid) {
      spherical_harmonics_reverse(l_max, number(v[0]), number(v[1]), number(v[2]), g_harmonics, g);
    } else {  // of the direction: only what is normal to it counts
      spherical_harmonics_reverse(l_max, x, y, z, g_harmonics, g);
      radial = radial - (g[0] * x + g[1] * y + g[2] * z) * inverse;
      for (N& component : g) component = component * inverse;
    }
    f[0] = scalar(N(g[0] + radial * x)), f[1] = scalar(N(g[1] + radial * y)), f[2] = scalar(N(g[2] + radial * z));
  }
};

}  // namespace adatom::gnn::cuda
