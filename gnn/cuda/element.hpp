// SPDX-License-Identifier: MIT
// The first layer, whose senders' features depend on their species alone: gnn/kernels/element_convolve.hpp and the matrices that follow it
// (Layer::element_linear). A block per receiver; B = sum over edges of phi_c(r) Y_lm, of one run (the edges to one species) at a time, stays in shared memory,
// and so does the message.
#pragma once
#include "gnn/cuda/graph.hpp"

namespace adatom::gnn::cuda {

/// From B [lm][c] to the message: y[m] += B[l, m] W.
template <class T>
struct ElementPart {
  int l, out, out_row, n;   ///< out: offset of the irrep's first row in the message; n: its channels
  const T* const* forward;  ///< [species of the receiver, or 1][species of the sender] matrix [c][n]
  const T* const* reverse;  ///< the same, [n][c]
};

template <class S>
struct ElementInput {
  using T = Base<S>;
  DeviceGraph g;
  Harmonics harmonics;
  const EdgeVector<S>* vectors = nullptr;
  DeviceTable<T> table;
  DeviceRows<S> rows;  ///< of all edges
  int functions = 0;   ///< c, padded
  const ElementPart<T>* parts = nullptr;
  int part_count = 0, species = 0;  ///< species: of the network
  bool per_receiver = false;
  int message_size = 0;

  static constexpr int threads = 128, batch = 32;

  ADATOM_DEVICE int matrix(int i, int j_species) const { return (per_receiver ? g.species[i] * species : 0) + j_species; }

  ADATOM_DEVICE S phi(const S* w, int row, int edge, int c) const {
    if (rows.values) return rows.values[std::size_t(edge) * rows.stride + c];
    const T* x = table.data + std::size_t(row) * table.functions + c;
    S sum = w[0] * x[0];
    ADATOM_UNROLL
    for (int n = 1; n < spline_taps; ++n) sum = fma(sum, w[n], x[std::size_t(n) * table.functions]);
    return sum;
  }
};

template <class S>
struct ElementForward {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  using In = ElementInput<S>;

  In in;
  const T* bias = nullptr;  ///< of 0e channels, or null
  int bias_offset = 0, bias_size = 0;
  S* message = nullptr;  ///< [receivers][message_size]

  static std::size_t shared(int harmonics, int functions, int message_size) {
    return 2 * shared_bytes<int>(In::batch) + shared_bytes<S>(In::batch * spline_taps) + shared_bytes<S>(In::batch * (harmonics | 1)) +
           shared_bytes<S>(In::batch * functions) + shared_bytes<S>(harmonics * functions) + shared_bytes<S>(message_size);
  }

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    const DeviceGraph& g = in.g;
    const int i = static_cast<int>(team.index()), lms = in.harmonics.count(), Y_stride = lms | 1, C = in.functions, size = team.size();
    int* active = team.template shared<int>(In::batch);
    int* row = team.template shared<int>(In::batch);
    S* weights = team.template shared<S>(In::batch * spline_taps);
    S* Y = team.template shared<S>(In::batch * Y_stride);
    S* phi = team.template shared<S>(In::batch * C);
    S* B = team.template shared<S>(lms * C);
    S* own = team.template shared<S>(in.message_size);
    team.each([&](int t) {
      for (int k = t; k < in.message_size; k += size) own[k] = S(T(0));
    });
    for (int run = g.first_run[i]; run < g.first_run[i + 1]; ++run) {
      const int begin = g.run_edge[run], end = g.run_edge[run + 1];
      if (begin == end) continue;
      const int zj = g.species[g.sender[begin]];
      team.each([&](int t) {
        for (int k = t; k < lms * C; k += size) B[k] = S(T(0));
      });
      for (int first = begin; first < end; first += In::batch) {
        const int count = end - first < In::batch ? end - first : In::batch;
        team.each([&](int b) {
          if (b >= count) return;
          const EdgeVector<S> v = in.vectors[first + b];
          active[b] = is_active(v);
          row[b] = 0;
          if (!active[b]) {
            for (int lm = 0; lm < lms; ++lm) Y[b * Y_stride + lm] = S(T(0));
            return;
          }
          if (!in.rows.values) {
            S w[spline_taps], dw[spline_taps];
            row[b] = in.table.weights(v[3], g.pair(g.species[i], zj), w, dw);
            for (int n = 0; n < spline_taps; ++n) weights[b * spline_taps + n] = w[n];
          }
          in.harmonics(v, Y + b * Y_stride);
        });
        team.each([&](int t) {
          for (int k = t; k < count * C; k += size) {
            const int b = k / C;
            phi[k] = active[b] ? in.phi(weights + b * spline_taps, row[b], first + b, k % C) : S(T(0));
          }
        });
        team.each([&](int t) {
          for (int k = t; k < lms * C; k += size) {
            const int lm = k / C, c = k % C;
            S sum = B[k];
            for (int b = 0; b < count; ++b) sum = fma(sum, phi[b * C + c], Y[b * Y_stride + lm]);
            B[k] = sum;
          }
        });
      }
      team.each([&](int t) {
        for (int p = 0; p < in.part_count; ++p) {
          const ElementPart<T> part = in.parts[p];
          const T* W = part.forward[in.matrix(i, zj)];
          const S* b = B + part.l * part.l * C;
          for (int o = t; o < part.n; o += size) {
            S sum[7];
            ADATOM_UNROLL
            for (int m = 0; m < 7; ++m) sum[m] = S(T(0));
            for (int c = 0; c < C; ++c) {
              const T w = W[std::size_t(c) * part.n + o];
              ADATOM_UNROLL
              for (int m = 0; m < 7; ++m)
                if (m <= 2 * part.l) sum[m] = fma(sum[m], b[m * C + c], w);
            }
            ADATOM_UNROLL
            for (int m = 0; m < 7; ++m)
              if (m <= 2 * part.l) own[part.out + m * part.out_row + o] = own[part.out + m * part.out_row + o] + sum[m];
          }
        }
      });
    }
    team.each([&](int t) {
      for (int k = t; k < in.message_size; k += size) {
        S x = own[k];
        if (bias && k >= bias_offset && k < bias_offset + bias_size) x = x + bias[k - bias_offset];
        message[std::size_t(i) * in.message_size + k] = x;
      }
    });
  }
};

/// Adds dE/dr_ij to the edges' derivatives. dE/dB of a run in shared memory, then a thread per edge.
template <class S>
struct ElementReverse {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 128, most_harmonics = 16;
  using T = Base<S>;
  using In = ElementInput<S>;

  In in;
  const S* gmessage = nullptr;      ///< [receivers][message_size]
  SumOf<S>* edge_forces = nullptr;  ///< [edges][3]

  static std::size_t shared(int harmonics, int functions, int message_size) { return shared_bytes<S>(harmonics * functions) + shared_bytes<S>(message_size); }

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    const DeviceGraph& g = in.g;
    const int i = static_cast<int>(team.index()), lms = in.harmonics.count(), C = in.functions, size = team.size();
    S* gB = team.template shared<S>(lms * C);
    S* own = team.template shared<S>(in.message_size);
    team.each([&](int t) {
      for (int k = t; k < in.message_size; k += size) own[k] = gmessage[std::size_t(i) * in.message_size + k];
    });
    for (int run = g.first_run[i]; run < g.first_run[i + 1]; ++run) {
      const int begin = g.run_edge[run], end = g.run_edge[run + 1];
      if (begin == end) continue;
      const int zj = g.species[g.sender[begin]];
      team.each([&](int t) {
        for (int k = t; k < lms * C; k += size) {
          const int lm = k / C, c = k % C, l = lm < 1 ? 0 : lm < 4 ? 1 : lm < 9 ? 2 : 3;
          S sum(T(0));
          for (int p = 0; p < in.part_count; ++p) {
            const ElementPart<T> part = in.parts[p];
            if (part.l != l) continue;
            const T* W = part.reverse[in.matrix(i, zj)];
            const S* gm = own + part.out + (lm - l * l) * part.out_row;
            for (int o = 0; o < part.n; ++o) sum = fma(sum, gm[o], W[std::size_t(o) * C + c]);
          }
          gB[k] = sum;
        }
      });
      team.each([&](int t) {
        for (int e = begin + t; e < end; e += size) reverse_edge(i, e, zj, gB);
      });
    }
  }

 private:
  ADATOM_DEVICE void reverse_edge(int i, int e, int zj, const S* gB) const {
    const EdgeVector<S> v = in.vectors[e];
    if (!is_active(v)) return;
    const int lms = in.harmonics.count(), C = in.functions;
    S w[spline_taps] = {}, dw[spline_taps] = {}, Y[most_harmonics], gY[most_harmonics], gr(T(0));
    int row = 0;
    if (!in.rows.values) row = in.table.weights(v[3], in.g.pair(in.g.species[i], zj), w, dw);
    in.harmonics(v, Y);
    ADATOM_UNROLL
    for (int lm = 0; lm < most_harmonics; ++lm) gY[lm] = S(T(0));
    for (int c = 0; c < C; ++c) {
      S phi, slope;
      if (in.rows.values) {
        phi = in.rows.values[std::size_t(e) * in.rows.stride + c], slope = in.rows.slopes[std::size_t(e) * in.rows.stride + c];
      } else {
        const T* x = in.table.data + std::size_t(row) * in.table.functions + c;
        phi = w[0] * x[0], slope = dw[0] * x[0];
        ADATOM_UNROLL
        for (int n = 1; n < spline_taps; ++n) {
          const T xn = x[std::size_t(n) * in.table.functions];
          phi = fma(phi, w[n], xn), slope = fma(slope, dw[n], xn);
        }
      }
      S gphi(T(0));
      ADATOM_UNROLL
      for (int lm = 0; lm < most_harmonics; ++lm)
        if (lm < lms) {
          const S x = gB[lm * C + c];
          gphi = fma(gphi, x, Y[lm]);
          gY[lm] = fma(gY[lm], x, phi);
        }
      gr = fma(gr, gphi, slope);
    }
    S f[3];
    in.harmonics.reverse(v, gY, gr, f);
    for (int a = 0; a < 3; ++a) {
      SumOf<S>& to = edge_forces[3 * std::size_t(e) + a];
      to = to + widen(f[a]);
    }
  }
};

}  // namespace adatom::gnn::cuda
