// SPDX-License-Identifier: MIT
// Convolution over the edges of a node, one path (l1, l2, l3):
//
//     A_i[m3, k] = sum over edges e of i   R(r_e)[k] * sum_m1 Z_e[m1, m3] h_sender[m1, k],      Z_e[m1, m3] = sum_m2 C[m1, m2, m3] Y_m2(e)
//
// and its reverse, given the adjoint G = dE/dA:
//
//     dE/dh_sender[m1, k] += R[k] t[m1, k],   t[m1, k] = sum_m3 Z[m1, m3] G[m3, k]
//     dE/dZ[m1, m3]        = sum_k R[k] h[m1, k] G[m3, k]
//     dE/dr                = sum_k R'[k] sum_m1 h[m1, k] t[m1, k]
//
// Z does not depend on the channel k, so lanes are channels and what depends on the edge alone (spline weights, Z) is uniform. Forward keeps the sums
// of a few channels of one node in registers while it walks over the edges; the spline table of those channels stays in L1. Reverse walks over
// the channels of one edge instead, because dE/dZ and dE/dr are sums over channels, which are then formed once per edge.
// With l1 = 0, Z_e[0, m3] = Y_m3(e).
#pragma once
#include "gnn/kernels/lane.hpp"
#include "gnn/kernels/spline.hpp"

namespace adatom::gnn {

/// A tile: some nodes and their edges within the cutoff. Rows of scalars S per edge.
template <class S>
struct EdgeTile {
  int nodes = 0;
  const int* first_edge = nullptr;  ///< [nodes + 1]
  const int* sender = nullptr;      ///< [edges] node
  const int* slot = nullptr;        ///< [edges] row of the sender in the adjoint buffer
  const int* knot = nullptr;        ///< [edges] offset in a block of the spline table of the first knot
  const S* record = nullptr;        ///< [edges][record_size]: spline weights, their derivatives, Y, then Z of the paths with l1 > 0
  int record_size = 0;
  S* adjoint = nullptr;  ///< [edges][adjoint_size]: dE/dY, dE/dr, then dE/dZ of the paths with l1 > 0
  int adjoint_size = 0;
};
inline constexpr int record_weights = 0, record_slopes = spline_taps, record_Y = 2 * spline_taps;

/// Radial functions from a spline table of one path: blocks of 16 channels, each [knot][16].
template <class T>
struct SplineRows {
  const T* table;
  std::ptrdiff_t block;  ///< scalars between blocks

  template <class L, class S>
  ADATOM_INLINE typename L::Number value(const S* record, int knot, int, int c) const {
    const T* row = table + (c / 16) * block + knot + c % 16;
    typename L::Number sum = L::load(row) * record[record_weights];
#pragma GCC unroll 8
    for (int n = 1; n < spline_taps; ++n) sum = fma(sum, L::load(row + 16 * n), record[record_weights + n]);
    return sum;
  }
  /// `weights`: spline weights, then slopes, as lanes.
  template <class L>
  ADATOM_INLINE void value_and_slope(const typename L::Number* weights, int knot, int, int c, typename L::Number& value, typename L::Number& slope) const {
    const T* row = table + (c / 16) * block + knot + c % 16;
    const auto first = L::load(row);
    value = first * weights[record_weights];
    slope = first * weights[record_slopes];
#pragma GCC unroll 8
    for (int n = 1; n < spline_taps; ++n) {
      const auto x = L::load(row + 16 * n);
      value = fma(value, x, weights[record_weights + n]);
      slope = fma(slope, x, weights[record_slopes + n]);
    }
  }
};

/// Radial functions that were evaluated beforehand, one row of values and of slopes per edge.
template <class S>
struct StoredRows {
  const S *values, *slopes;  ///< [edges][stride], at this path's first column
  std::ptrdiff_t stride;

  template <class L, class R>
  ADATOM_INLINE typename L::Number value(const R*, int, int edge, int c) const {
    return L::load(values + edge * stride + c);
  }
  template <class L>
  ADATOM_INLINE void value_and_slope(const typename L::Number*, int, int edge, int c, typename L::Number& value, typename L::Number& slope) const {
    value = L::load(values + edge * stride + c);
    slope = L::load(slopes + edge * stride + c);
  }
};

/// Where a path reads and writes. Offsets and strides in scalars.
template <class S>
struct PathRows {
  const S* h;  ///< senders' features at this path's row m1 = 0, [node][h_stride]
  std::ptrdiff_t h_stride;
  int h_row;  ///< distance of rows m1
  S* A;       ///< forward: the sums; reverse: their adjoint (read); at this path's row m3 = 0, [node of the tile][A_stride]
  std::ptrdiff_t A_stride;
  int A_row;
  S* gh;  ///< reverse: adjoint of the senders' features, [slot][gh_stride], added to
  std::ptrdiff_t gh_stride;
  int channels;  ///< multiple of 16
  int z;         ///< offset of Z (or Y of degree l3) in the record
  int gz;        ///< offset of dE/dZ (or dE/dY) in the adjoint
  int gr;        ///< offset of dE/dr in the adjoint
};

/// U vectors of channels at a time, so that there are enough independent sums to hide the latency of the multiply-add.
template <class S, int W, int L1, int L3, int U, class Rows>
void convolve(const EdgeTile<S>& tile, const PathRows<S>& path, const Rows& radial) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  constexpr int n1 = 2 * L1 + 1, n3 = 2 * L3 + 1;
  for (int c = 0; c < path.channels; c += U * W)
    for (int i = 0; i < tile.nodes; ++i) {
      N sum[U][n3];
      for (int u = 0; u < U; ++u)
        for (int m = 0; m < n3; ++m) sum[u][m] = N(Base<S>(0));
      for (int e = tile.first_edge[i]; e < tile.first_edge[i + 1]; ++e) {
        const S* record = tile.record + std::ptrdiff_t(e) * tile.record_size;
        const S* Z = record + path.z;
        const S* h = path.h + tile.sender[e] * path.h_stride + c;
        const int knot = tile.knot[e];
#pragma GCC unroll 8
        for (int u = 0; u < U; ++u) {
          const N R = radial.template value<L>(record, knot, e, c + u * W);
          if constexpr (L1 == 0) {
            const N w = R * L::load(h + u * W);
#pragma GCC unroll 8
            for (int m = 0; m < n3; ++m) sum[u][m] = fma(sum[u][m], w, Z[m]);
          } else {
            N w[n1];
#pragma GCC unroll 8
            for (int m1 = 0; m1 < n1; ++m1) w[m1] = R * L::load(h + m1 * path.h_row + u * W);
#pragma GCC unroll 8
            for (int m1 = 0; m1 < n1; ++m1)
#pragma GCC unroll 8
              for (int m = 0; m < n3; ++m) sum[u][m] = fma(sum[u][m], w[m1], Z[m1 * n3 + m]);
          }
        }
      }
      for (int u = 0; u < U; ++u)
        for (int m = 0; m < n3; ++m) L::store(path.A + i * path.A_stride + m * path.A_row + c + u * W, sum[u][m]);
    }
}

template <class S, int W, int L1, int L3, class Rows>
void convolve_reverse(const EdgeTile<S>& tile, const PathRows<S>& path, const Rows& radial) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  constexpr int n1 = 2 * L1 + 1, n3 = 2 * L3 + 1;
  for (int i = 0; i < tile.nodes; ++i) {
    const S* G = path.A + i * path.A_stride;
    for (int e = tile.first_edge[i]; e < tile.first_edge[i + 1]; ++e) {
      const S* record = tile.record + std::ptrdiff_t(e) * tile.record_size;
      const S* Z = record + path.z;
      const S* h = path.h + tile.sender[e] * path.h_stride;
      S* gh = path.gh + tile.slot[e] * path.gh_stride;
      const int knot = tile.knot[e];
      // Uniform numbers are broadcast once per edge: the stores to gh keep the compiler from seeing that they stay the same.
      N weights[2 * spline_taps], z[n1 * n3];
#pragma GCC unroll 16
      for (int n = 0; n < 2 * spline_taps; ++n) weights[n] = L::uniform(record[n]);
#pragma GCC unroll 64
      for (int n = 0; n < n1 * n3; ++n) z[n] = L::uniform(Z[n]);
      N sum[n1 * n3 + 1];  // dE/dZ, dE/dr
      for (N& s : sum) s = N(Base<S>(0));
      for (int c = 0; c < path.channels; c += W) {
        N R, slope, g[n3];
        radial.template value_and_slope<L>(weights, knot, e, c, R, slope);
#pragma GCC unroll 8
        for (int m = 0; m < n3; ++m) g[m] = L::load(G + m * path.A_row + c);
        N gR(Base<S>(0));
#pragma GCC unroll 8
        for (int m1 = 0; m1 < n1; ++m1) {
          N t = g[0] * z[m1 * n3];
#pragma GCC unroll 8
          for (int m = 1; m < n3; ++m) t = fma(t, g[m], z[m1 * n3 + m]);
          const N x = L::load(h + m1 * path.h_row + c);
          S* to = gh + m1 * path.h_row + c;
          L::store(to, fma(L::load(to), R, t));
          gR = fma(gR, x, t);
          const N w = R * x;
#pragma GCC unroll 8
          for (int m = 0; m < n3; ++m) sum[m1 * n3 + m] = fma(sum[m1 * n3 + m], w, g[m]);
        }
        sum[n1 * n3] = fma(sum[n1 * n3], gR, slope);
      }
      S total[n1 * n3 + 1];
      sum_over_lanes(sum, total);
      S* adjoint = tile.adjoint + std::ptrdiff_t(e) * tile.adjoint_size;
#pragma GCC unroll 8
      for (int m = 0; m < n1 * n3; ++m) adjoint[path.gz + m] = adjoint[path.gz + m] + total[m];
      adjoint[path.gr] = adjoint[path.gr] + total[n1 * n3];
    }
  }
}

/// Where the gradient of a spline table goes: as SplineRows.
template <class T>
struct TableGradient {
  T* table;
  std::ptrdiff_t block;
};

/// The reverse pass where only weights are of interest, in dual arithmetic: adds dE/dh_sender as convolve_reverse does, and to the table's coefficients c_n the
/// tangent of dE/dc_n = w_n dE/dR, dE/dR[k] = sum_m1 h[m1, k] t[m1, k].
template <class S, int W, int L1, int L3>
void convolve_gradient(const EdgeTile<S>& tile, const PathRows<S>& path, const SplineRows<Base<S>>& radial, const TableGradient<Base<S>>& gradient) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  using T = Base<S>;
  using H = Lane<T, W>;
  constexpr int n1 = 2 * L1 + 1, n3 = 2 * L3 + 1;
  for (int c = 0; c < path.channels; c += W)
    for (int i = 0; i < tile.nodes; ++i) {
      N g[n3];
#pragma GCC unroll 8
      for (int m = 0; m < n3; ++m) g[m] = L::load(path.A + i * path.A_stride + m * path.A_row + c);
      for (int e = tile.first_edge[i]; e < tile.first_edge[i + 1]; ++e) {
        const S* record = tile.record + std::ptrdiff_t(e) * tile.record_size;
        const S* Z = record + path.z;
        const S* h = path.h + tile.sender[e] * path.h_stride + c;
        S* gh = path.gh + tile.slot[e] * path.gh_stride + c;
        const int knot = tile.knot[e];
        const N R = radial.template value<L>(record, knot, e, c);
        N gR(T(0));
#pragma GCC unroll 8
        for (int m1 = 0; m1 < n1; ++m1) {
          N t = g[0] * Z[m1 * n3];
#pragma GCC unroll 8
          for (int m = 1; m < n3; ++m) t = fma(t, g[m], Z[m1 * n3 + m]);
          gR = fma(gR, L::load(h + m1 * path.h_row), t);
          L::store(gh + m1 * path.h_row, fma(L::load(gh + m1 * path.h_row), R, t));
        }
        T* row = gradient.table + (c / 16) * gradient.block + knot + c % 16;
#pragma GCC unroll 8
        for (int n = 0; n < spline_taps; ++n) {
          const S w = record[record_weights + n];
          H::store(row + 16 * n, fma(fma(H::load(row + 16 * n), gR.d, w.v), gR.v, w.d));
        }
      }
    }
}

}  // namespace adatom::gnn
