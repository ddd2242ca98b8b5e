// SPDX-License-Identifier: MIT
// Convolution over the edges of a node and its reverse; the formulas are those of gnn/kernels/convolve.hpp.
//
// Forward: a warp per receiver, path and 32 V channels, V neighbouring channels per thread, sums in registers. What depends on the edge alone (spline
// weights, harmonics, Z) is computed for 32 edges at a time, one per thread, into shared memory, from where all threads read the same word at once. Computing
// it again for each path costs a few per cent and saves keeping about 200 bytes per edge in device memory.
//
// Reverse: a block per receiver and group of paths that read the same rows of the sender, with all channels, because dE/dZ and dE/dr are sums over channels.
// A path's adjoint dE/dA is in registers while its edges go by; the sender's adjoint is summed over the group's paths in shared memory and stored once, a
// row per edge. SumSenders adds up these rows for each sender: no atomics, and for l_max 3 a sixteenth of the bytes that reading dE/dA by sender would take.
#pragma once
#include "gnn/cuda/graph.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn::cuda {

/// A path, and (forward) the channels that a warp works on.
struct DevicePath {
  int l1, l2, l3;
  int in, in_row, out, out_row, channels, radial;  ///< as ConvolutionPath
  int first_term, terms;                           ///< of the coupling
  int first_channel;                               ///< forward
};

template <class T>
struct DeviceCoupling {
  int m1, m2, m3;
  T c;
};

/// Paths of one sender block; channels of its rows.
struct PathGroup {
  int l1, in, in_row, channels;
  int first_path, paths;
};

/// What both directions read.
template <class S>
struct ConvolveInput {
  using T = Base<S>;
  DeviceGraph g;
  int first_node = 0;  ///< of the block of receivers in work: row 0 of A
  Harmonics harmonics;
  const EdgeVector<S>* vectors = nullptr;
  DeviceTable<T> table;
  DeviceRows<S> rows;
  const DevicePath* paths = nullptr;
  const DeviceCoupling<T>* coupling = nullptr;
  const S* h = nullptr;  ///< [nodes][h_size] senders' features
  int h_size = 0, A_size = 0;

  /// Z[m1, m3] of a path from Y.
  ADATOM_DEVICE void couple(const DevicePath& path, const S* Y, S* Z) const {
    const int n3 = 2 * path.l3 + 1, count = (2 * path.l1 + 1) * n3;
    for (int k = 0; k < count; ++k) Z[k] = S(T(0));
    for (int k = path.first_term; k < path.first_term + path.terms; ++k) {
      const DeviceCoupling<T> c = coupling[k];
      S& to = Z[c.m1 * n3 + c.m3];
      to = to + Y[path.l2 * path.l2 + c.m2] * c.c;
    }
  }

  /// Radial functions of V channels of an edge whose weights begin in `w` (slopes: 6 further on).
  template <int V>
  ADATOM_DEVICE Pack<S, V> radial(const S* w, int row, int edge, int column) const {
    Pack<S, V> sum{};
    if (rows.values) return load<V>(rows.values + std::size_t(edge) * rows.stride + column);
    const T* c = table.data + std::size_t(row) * table.functions + column;
    ADATOM_UNROLL
    for (int n = 0; n < spline_taps; ++n) {
      const Pack<T, V> x = load<V>(c + std::size_t(n) * table.functions);
      ADATOM_UNROLL
      for (int v = 0; v < V; ++v) sum[v] = fma(sum[v], w[n], x[v]);
    }
    return sum;
  }
  template <int V>
  ADATOM_DEVICE void radial_and_slope(const S* w, int row, int edge, int column, Pack<S, V>& value, Pack<S, V>& slope) const {
    if (rows.values) {
      value = load<V>(rows.values + std::size_t(edge) * rows.stride + column);
      slope = load<V>(rows.slopes + std::size_t(edge) * rows.stride + column);
      return;
    }
    const T* c = table.data + std::size_t(row) * table.functions + column;
    value = slope = Pack<S, V>{};
    ADATOM_UNROLL
    for (int n = 0; n < spline_taps; ++n) {
      const Pack<T, V> x = load<V>(c + std::size_t(n) * table.functions);
      ADATOM_UNROLL
      for (int v = 0; v < V; ++v) {
        value[v] = fma(value[v], w[n], x[v]);
        slope[v] = fma(slope[v], w[spline_taps + n], x[v]);
      }
    }
  }
};

/// A[node of the block][A_size]; h, A: V neighbouring channels at a time.
template <class S, int V>
struct Convolve {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;

  ConvolveInput<S> in;
  int tasks = 0;  ///< entries of in.paths
  S* A = nullptr;

  static constexpr int weights_stride = 7;  // odd strides: threads that write side by side meet no bank twice
  static std::size_t shared(int harmonics, int most_z) {
    return 2 * shared_bytes<int>(warp_size) + shared_bytes<S>(warp_size * weights_stride) + shared_bytes<S>(warp_size * (harmonics | 1)) +
           shared_bytes<S>(warp_size * most_z);
  }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int i = in.first_node + static_cast<int>(team.index() / tasks);
    const DevicePath& path = in.paths[team.index() % tasks];
    switch (path.l3) {
      case 0: return run<0>(team, i, path);
      case 1: return run<1>(team, i, path);
      case 2: return run<2>(team, i, path);
      default: return run<3>(team, i, path);
    }
  }

 private:
  template <int L3>
  ADATOM_DEVICE void run(WarpTeam& team, int i, const DevicePath& path) const {
    constexpr int n3 = 2 * L3 + 1;
    const DeviceGraph& g = in.g;
    const int n1 = 2 * path.l1 + 1, Y_stride = in.harmonics.count() | 1;
    int* sender = team.template shared<int>(warp_size);
    int* row = team.template shared<int>(warp_size);
    S* weights = team.template shared<S>(warp_size * weights_stride);
    S* Y = team.template shared<S>(warp_size * Y_stride);
    S* Z_own = path.l1 > 0 ? team.template shared<S>(warp_size * n1 * n3) : nullptr;
    const S* Z = path.l1 > 0 ? Z_own : Y + L3 * L3;
    const int Z_stride = path.l1 > 0 ? n1 * n3 : Y_stride;
    auto sum = team.template local<Array<Pack<S, V>, n3>>();
    team.each([&](int lane) {
      ADATOM_UNROLL
      for (int m = 0; m < n3; ++m) ADATOM_UNROLL
      for (int v = 0; v < V; ++v) sum[lane][m][v] = S(T(0));
    });
    const int begin = g.first_edge[i], end = g.first_edge[i + 1], block_edge = g.first_edge[in.first_node];
    for (int first = begin; first < end; first += warp_size) {
      const int count = end - first < warp_size ? end - first : warp_size;
      team.each([&](int b) {
        if (b >= count) return;
        const EdgeVector<S> v = in.vectors[first + b];
        const int j = g.sender[first + b];
        sender[b] = is_active(v) ? j : -1;
        if (!is_active(v)) return;
        if (!in.rows.values) {
          S w[spline_taps], dw[spline_taps];
          row[b] = in.table.weights(v[3], g.pair(g.species[i], g.species[j]), w, dw);
          for (int n = 0; n < spline_taps; ++n) weights[b * weights_stride + n] = w[n];
        } else {
          row[b] = 0;
        }
        in.harmonics(v, Y + b * Y_stride);
        if (path.l1 > 0) in.couple(path, Y + b * Y_stride, Z_own + b * Z_stride);
      });
      team.each([&](int lane) {
        const int c = path.first_channel + lane * V;
        if (c >= path.channels) return;
        auto& own = sum[lane];
        for (int b = 0; b < count; ++b) {
          if (sender[b] < 0) continue;
          const Pack<S, V> R = in.template radial<V>(weights + b * weights_stride, row[b], first + b - block_edge, path.radial + c);
          const S* h = in.h + std::size_t(sender[b]) * in.h_size + path.in + c;
          const S* z = Z + b * Z_stride;
          for (int m1 = 0; m1 < n1; ++m1) {
            Pack<S, V> w = load<V>(h + m1 * path.in_row);
            ADATOM_UNROLL
            for (int v = 0; v < V; ++v) w[v] = w[v] * R[v];
            ADATOM_UNROLL
            for (int m = 0; m < n3; ++m) {
              const S zm = z[m1 * n3 + m];
              ADATOM_UNROLL
              for (int v = 0; v < V; ++v) own[m][v] = fma(own[m][v], w[v], zm);
            }
          }
        }
      });
    }
    team.each([&](int lane) {
      const int c = path.first_channel + lane * V;
      if (c >= path.channels) return;
      S* to = A + std::size_t(i - in.first_node) * in.A_size + path.out + c;
      ADATOM_UNROLL
      for (int m = 0; m < n3; ++m) store<V>(to + m * path.out_row, sum[lane][m]);
    });
  }
};

/// Adds dE/dr_ij to the edges' derivatives, and writes the sender's adjoint of each edge, from G = dE/dA. A block of threads has all channels of the group.
template <class S, int V>
struct ConvolveReverse {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 512;
  using T = Base<S>;

  ConvolveInput<S> in;
  PathGroup group;
  int batch = 1;                    ///< edges at a time, at most 32
  int most_z = 0, most_parts = 0;   ///< over the group's paths: of Z; of sums over channels of an edge
  const S* G = nullptr;             ///< [node of the block][A_size]
  S* edge_rows = nullptr;           ///< [edge of the block][h_size]
  SumOf<S>* edge_forces = nullptr;  ///< [edges][3]

  static constexpr int weights_stride = 2 * spline_taps + 1;
  static std::size_t shared(int batch, int harmonics, int most_z, int most_parts, int warps, int rows, int channels) {
    return 2 * shared_bytes<int>(batch) + shared_bytes<S>(batch * weights_stride) + 2 * shared_bytes<S>(batch * (harmonics | 1)) + shared_bytes<S>(batch) +
           shared_bytes<S>(batch * most_z) + shared_bytes<S>(std::size_t(warps) * batch * most_parts) + shared_bytes<S>(std::size_t(batch) * rows * channels);
  }

  /// Shared memory of a batch of edges.
  struct Batch {
    int *sender, *row;
    S *weights, *Y, *gY, *gr, *Z, *parts, *gh;
    int count, first_edge;
  };

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    const DeviceGraph& g = in.g;
    const int i = in.first_node + static_cast<int>(team.index()), n1 = 2 * group.l1 + 1, C = group.channels, Y_stride = in.harmonics.count() | 1;
    Batch s{};
    s.sender = team.template shared<int>(batch);
    s.row = team.template shared<int>(batch);
    s.weights = team.template shared<S>(batch * weights_stride);
    s.Y = team.template shared<S>(batch * Y_stride);
    s.gY = team.template shared<S>(batch * Y_stride);
    s.gr = team.template shared<S>(batch);
    s.Z = team.template shared<S>(batch * most_z);
    s.parts = team.template shared<S>(team.size() / warp_size * batch * most_parts);
    s.gh = team.template shared<S>(batch * n1 * C);
    const int begin = g.first_edge[i], end = g.first_edge[i + 1], block_edge = g.first_edge[in.first_node];
    for (int first = begin; first < end; first += batch) {
      const int count = end - first < batch ? end - first : batch;
      s.count = count, s.first_edge = first - block_edge;
      team.each([&](int b) {
        if (b >= count) return;
        const EdgeVector<S> v = in.vectors[first + b];
        const int j = g.sender[first + b];
        s.sender[b] = is_active(v) ? j : -1;
        if (!is_active(v)) return;
        if (!in.rows.values) {
          S w[spline_taps], dw[spline_taps];
          s.row[b] = in.table.weights(v[3], g.pair(g.species[i], g.species[j]), w, dw);
          for (int n = 0; n < spline_taps; ++n) s.weights[b * weights_stride + n] = w[n], s.weights[b * weights_stride + spline_taps + n] = dw[n];
        } else {
          s.row[b] = 0;
        }
        in.harmonics(v, s.Y + b * Y_stride);
        for (int k = 0; k < Y_stride; ++k) s.gY[b * Y_stride + k] = S(T(0));
        s.gr[b] = S(T(0));
      });
      for (int p = group.first_path; p < group.first_path + group.paths; ++p) {
        const DevicePath& path = in.paths[p];
        const int n3 = 2 * path.l3 + 1;
        if (path.l1 > 0)
          team.each([&](int b) {
            if (b < count && s.sender[b] >= 0) in.couple(path, s.Y + b * Y_stride, s.Z + b * n1 * n3);
          });
        switch (path.l3) {
          case 0: run<0>(team, i, path, p == group.first_path, s); break;
          case 1: run<1>(team, i, path, p == group.first_path, s); break;
          case 2: run<2>(team, i, path, p == group.first_path, s); break;
          default: run<3>(team, i, path, p == group.first_path, s); break;
        }
        team.each([&](int b) {
          if (b < count && s.sender[b] >= 0) collect(path, b, team.size() / warp_size, s);
        });
      }
      team.each([&](int t) {
        for (int k = t; k < count * n1 * C; k += team.size()) {
          const int b = k / (n1 * C), m = k / C % n1, c = k % C;
          if (s.sender[b] >= 0) edge_rows[std::size_t(s.first_edge + b) * in.h_size + group.in + m * group.in_row + c] = s.gh[k];
        }
        if (t >= count || s.sender[t] < 0) return;
        S f[3];
        in.harmonics.reverse(in.vectors[first + t], s.gY + t * Y_stride, s.gr[t], f);
        for (int a = 0; a < 3; ++a) {
          SumOf<S>& to = edge_forces[3 * std::size_t(first + t) + a];
          to = to + widen(f[a]);
        }
      });
    }
  }

 private:
  /// One path of all edges of the batch: sums over the channels of each warp to s.parts, [warp][edge][m1][n3 of dE/dZ, then of dE/dr].
  template <int L3>
  ADATOM_DEVICE void run(BlockTeam& team, int i, const DevicePath& path, bool first_path, const Batch& s) const {
    constexpr int n3 = 2 * L3 + 1;
    const int n1 = 2 * path.l1 + 1, C = group.channels, Y_stride = in.harmonics.count() | 1;
    const S* Z = path.l1 > 0 ? s.Z : s.Y + L3 * L3;
    const int Z_stride = path.l1 > 0 ? n1 * n3 : Y_stride;
    team.warps([&](const Warp& warp) {
      auto G_i = warp.template local<Array<Pack<S, V>, n3>>();
      auto R = warp.template local<Pack<S, V>>();
      auto slope = warp.template local<Pack<S, V>>();
      auto sum = warp.template local<Array<S, n3 + 1>>();
      warp.each([&](int thread) {
        const int c = thread * V;
        if (c >= C) return;
        const S* from = G + std::size_t(i - in.first_node) * in.A_size + path.out + c;
        ADATOM_UNROLL
        for (int m = 0; m < n3; ++m) G_i[thread][m] = load<V>(from + m * path.out_row);
      });
      for (int b = 0; b < s.count; ++b) {
        if (s.sender[b] < 0) continue;
        warp.each([&](int thread) {
          const int c = thread * V;
          if (c < C) in.template radial_and_slope<V>(s.weights + b * weights_stride, s.row[b], s.first_edge + b, path.radial + c, R[thread], slope[thread]);
        });
        const S* z = Z + b * Z_stride;
        S* part = s.parts + (std::size_t(warp.first() / warp_size) * batch + b) * most_parts;
        for (int m1 = 0; m1 < n1; ++m1) {
          warp.each([&](int thread) {
            auto& own = sum[thread];
            const auto& g = G_i[thread];
            const Pack<S, V> radial = R[thread], radial_slope = slope[thread];
            ADATOM_UNROLL
            for (int m = 0; m <= n3; ++m) own[m] = S(T(0));
            const int c = thread * V;
            if (c >= C) return;
            const Pack<S, V> x = load<V>(in.h + std::size_t(s.sender[b]) * in.h_size + path.in + m1 * path.in_row + c);
            S* gh = s.gh + (std::size_t(b) * n1 + m1) * C + c;
            Pack<S, V> old{};
            if (!first_path) old = load<V>(gh);
            ADATOM_UNROLL
            for (int v = 0; v < V; ++v) {
              S t = g[0][v] * z[m1 * n3];
              ADATOM_UNROLL
              for (int m = 1; m < n3; ++m) t = fma(t, g[m][v], z[m1 * n3 + m]);
              const S w = radial[v] * x[v];
              ADATOM_UNROLL
              for (int m = 0; m < n3; ++m) own[m] = fma(own[m], w, g[m][v]);
              own[n3] = fma(own[n3], S(x[v] * t), radial_slope[v]);
              old[v] = first_path ? radial[v] * t : fma(old[v], radial[v], t);
            }
            store<V>(gh, old);
          });
          warp.sum_to(sum, part + m1 * (n3 + 1));
        }
      }
    });
  }

  /// Adds up the warps' sums of an edge and turns dE/dZ into dE/dY.
  ADATOM_DEVICE void collect(const DevicePath& path, int b, int warps, const Batch& s) const {
    const int n1 = 2 * path.l1 + 1, n3 = 2 * path.l3 + 1, Y_stride = in.harmonics.count() | 1;
    const auto total = [&](int k) {
      S sum = s.parts[std::size_t(b) * most_parts + k];
      for (int w = 1; w < warps; ++w) sum = sum + s.parts[(std::size_t(w) * batch + b) * most_parts + k];
      return sum;
    };
    S* gY = s.gY + b * Y_stride + path.l2 * path.l2;
    for (int m1 = 0; m1 < n1; ++m1) s.gr[b] = s.gr[b] + total(m1 * (n3 + 1) + n3);
    if (path.l1 == 0) {
      for (int m = 0; m < n3; ++m) gY[m] = gY[m] + total(m);
      return;
    }
    for (int k = path.first_term; k < path.first_term + path.terms; ++k) {
      const DeviceCoupling<T> c = in.coupling[k];
      gY[c.m2] = gY[c.m2] + total(c.m1 * (n3 + 1) + c.m3) * c.c;
    }
  }
};

/// Sums the senders' adjoints of the edges of a block of receivers: gu[node][column] (+)= sum over the edges that the node sends. One thread per column.
template <class S>
struct SumSenders {
  DeviceGraph g;
  const EdgeVector<S>* vectors = nullptr;
  int first_node = 0, end_node = 0;  ///< receivers of the block
  const int* columns = nullptr;      ///< [count] those that some path reads
  int count = 0, size = 0;
  const S* edge_rows = nullptr;  ///< [edge of the block][size]
  S* gu = nullptr;               ///< [nodes][size]

  ADATOM_DEVICE void operator()(std::int64_t k) const {
    const int n = static_cast<int>(k / count), column = columns[k % count];
    const int first = g.first_edge[first_node], end = g.first_edge[end_node];
    int s = g.first_sent[n];
    const int last = g.first_sent[n + 1];
    if (first > 0) {  // the node's first edge of this block
      int high = last;
      while (s < high) {
        const int middle = s + (high - s) / 2;
        if (g.sent_edge[middle] < first)
          s = middle + 1;
        else
          high = middle;
      }
    }
    S* to = gu + std::size_t(n) * size + column;
    S sum = first_node > 0 ? *to : S(Base<S>(0));
    for (; s < last && g.sent_edge[s] < end; ++s) {
      const int e = g.sent_edge[s];
      if (is_active(vectors[e])) sum = sum + edge_rows[std::size_t(e - first) * size + column];
    }
    *to = sum;
  }
};

}  // namespace adatom::gnn::cuda
