// SPDX-License-Identifier: MIT
// Gradients of weights, in dual arithmetic: the tangent of dE/dw for every array w of a network (Evaluator::weight_gradient).
//
// A gradient is a sum over nodes or edges. Each kernel here is launched for parts of them, sums its part into memory of its own, and AddPartials adds up the
// parts in their order: no atomics, the same bits every time. How many parts there are depends on the graph and the model alone.
#pragma once
#include "gnn/cuda/contract.hpp"
#include "gnn/cuda/convolve.hpp"

namespace adatom::gnn::cuda {

/// sums[to + map(k)] += sum over s < splits of partials[from + s * stride + k], k = 0 .. count-1.
struct PartialSum {
  std::size_t from, stride, to;
  int splits, count;
  int to_step = 1;            ///< map(k) = to_step * k, or, with rows,
  const int* rows = nullptr;  ///< rows[k / row] * row + k % row; nowhere where that row is -1
  int row = 1;
};

template <class T>
struct AddPartials {
  const PartialSum* tasks = nullptr;
  int most = 0;  ///< largest count
  const T* partials = nullptr;
  double* sums = nullptr;

  ADATOM_DEVICE void operator()(std::int64_t index) const {
    const PartialSum& task = tasks[index / most];
    const int k = static_cast<int>(index % most);
    if (k >= task.count) return;
    std::size_t at = std::size_t(k) * task.to_step;
    if (task.rows) {
      const int row = task.rows[k / task.row];
      if (row < 0) return;
      at = std::size_t(row) * task.row + k % task.row;
    }
    double sum = 0.0;
    for (int s = 0; s < task.splits; ++s) sum += partials[task.from + s * task.stride + k];
    sums[task.to + at] += sum;
  }
};

/// Gradient of a matrix from the rows x of its inputs and the adjoints g of its outputs, over the nodes of one species or all. Without inputs (in < 0) they are
/// 1: of a bias, or of rows per species.
struct GradientTask {
  int components, k, n;
  int in, in_row, out, out_row;
  int first_node, nodes;
  int rows_per_split;   ///< rows are (node, component)
  std::size_t partial;  ///< [split][k][n]
};

/// A block of 128 threads has 64 x 64 entries of a matrix and one split of the rows, 16 rows at a time in shared memory.
template <class S>
struct LinearGradient {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 128, threads = 128, tile = 64, depth = 16, k_step = 8, n_step = 4;
  using T = Base<S>;

  const GradientTask* tasks = nullptr;
  int most_splits = 0, k_tiles = 0, n_tiles = 0;  ///< the most that a task has
  const S *x = nullptr, *g = nullptr;
  int x_size = 0, g_size = 0;
  T* partials = nullptr;

  static constexpr int stride = tile + 4;
  static std::size_t shared() { return 2 * shared_bytes<S>(depth * stride); }

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    const int per_task = most_splits * k_tiles * n_tiles, within = static_cast<int>(team.index() % per_task);
    const GradientTask& task = tasks[team.index() / per_task];
    const int rows = task.nodes * task.components;
    const int split = within / (k_tiles * n_tiles), first_k = within / n_tiles % k_tiles * tile, first_n = within % n_tiles * tile;
    const int begin = split * task.rows_per_split;
    if (begin >= rows || first_k >= task.k || first_n >= task.n) return;
    const int end = begin + task.rows_per_split < rows ? begin + task.rows_per_split : rows;
    S* const xs = team.template shared<S>(depth * stride);  // [row][k]
    S* const gs = team.template shared<S>(depth * stride);  // [row][n]
    auto sum = team.template local<Array<T, k_step * n_step>>();
    team.each([&](int t) {
      ADATOM_UNROLL
      for (int e = 0; e < k_step * n_step; ++e) sum[t][e] = T(0);
    });
    for (int first = begin; first < end; first += depth) {
      team.each([&](int t) {
        ADATOM_UNROLL
        for (int e = 0; e < tile * depth / threads; ++e) {
          const int c = t % tile, r = t / tile + e * (threads / tile), row = first + r;
          const std::size_t node = task.first_node + row / task.components;
          const int m = row % task.components;
          S a(T(0)), b(T(0));
          if (row < end) {
            if (first_k + c < task.k) a = task.in < 0 ? S(T(1)) : x[node * x_size + task.in + m * task.in_row + first_k + c];
            if (first_n + c < task.n) b = g[node * g_size + task.out + m * task.out_row + first_n + c];
          }
          xs[r * stride + c] = a, gs[r * stride + c] = b;
        }
      });
      team.each([&](int t) {
        const int k = t / (tile / n_step) * k_step, n = t % (tile / n_step) * n_step;
        auto& own = sum[t];
        for (int r = 0; r < depth; ++r) {
          const Pack<S, k_step> a = load<k_step>(xs + r * stride + k);
          const Pack<S, n_step> b = load<n_step>(gs + r * stride + n);
          ADATOM_UNROLL
          for (int i = 0; i < k_step; ++i) ADATOM_UNROLL
          for (int j = 0; j < n_step; ++j) own[i * n_step + j] = fma(fma(own[i * n_step + j], a[i].v, b[j].d), a[i].d, b[j].v);
        }
      });
    }
    team.each([&](int t) {
      const int k = first_k + t / (tile / n_step) * k_step, n = first_n + t % (tile / n_step) * n_step;
      T* const to = partials + task.partial + std::size_t(split) * task.k * task.n;
      for (int i = 0; i < k_step && k + i < task.k; ++i)
        for (int j = 0; j < n_step && n + j < task.n; ++j) to[std::size_t(k + i) * task.n + n + j] = sum[t][i * n_step + j];
    });
  }
};

/// The reverse of a convolution where only weights are of interest (convolve_gradient() of gnn/kernels/convolve.hpp): the sender's adjoint of each edge, and
/// into the part's own copy of the table, with dE/dR[c] = sum over m1 of h[m1, c] t[m1, c], the tangents of w_n dE/dR. Nothing is a sum over channels here, so a
/// warp has 32 channels of the paths that share rows of the sender, and the edges of a part of the receivers one after the other: each entry of the table's
/// copy belongs to one thread.
template <class S>
struct ConvolveGradient {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;

  ConvolveInput<S> in;
  PathGroup group;
  int receivers = 0, receivers_per_part = 0;
  int batch = 1, most_z = 0;  ///< edges at a time, at most 32
  const S* G = nullptr;       ///< [receivers][A_size] dE/dA
  S* edge_rows = nullptr;     ///< [edges][h_size]
  T* partials = nullptr;      ///< [part][table_size], zero before
  std::size_t table_size = 0;

  static constexpr int weights_stride = 7;
  static std::size_t shared(int batch, int harmonics, int most_z, int l1) {
    return 2 * shared_bytes<int>(batch) + shared_bytes<S>(batch * weights_stride) + shared_bytes<S>(batch * (harmonics | 1)) + shared_bytes<S>(batch * most_z) +
           shared_bytes<S>(batch * (2 * l1 + 1) * warp_size);
  }
  struct Batch {
    int *sender, *row;
    S *weights, *Y, *Z, *gh;
    int count;
  };

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const DeviceGraph& g = in.g;
    const int blocks = (group.channels + warp_size - 1) / warp_size, n1 = 2 * group.l1 + 1, Y_stride = in.harmonics.count() | 1;
    const int part = static_cast<int>(team.index() / blocks), first_channel = static_cast<int>(team.index() % blocks) * warp_size;
    const int begin = part * receivers_per_part, end = begin + receivers_per_part < receivers ? begin + receivers_per_part : receivers;
    Batch s{};
    s.sender = team.template shared<int>(batch);
    s.row = team.template shared<int>(batch);
    s.weights = team.template shared<S>(batch * weights_stride);
    s.Y = team.template shared<S>(batch * Y_stride);
    s.Z = team.template shared<S>(batch * most_z);
    s.gh = team.template shared<S>(batch * n1 * warp_size);
    for (int i = begin; i < end; ++i)
      for (int first = g.first_edge[i]; first < g.first_edge[i + 1]; first += batch) {
        const int count = g.first_edge[i + 1] - first < batch ? g.first_edge[i + 1] - first : batch;
        s.count = count;
        team.each([&](int b) {
          if (b >= count) return;
          const EdgeVector<S> v = in.vectors[first + b];
          s.sender[b] = is_active(v) ? g.sender[first + b] : -1;
          if (!is_active(v)) return;
          S w[spline_taps], dw[spline_taps];
          s.row[b] = in.table.weights(v[3], g.pair(g.species[i], g.species[g.sender[first + b]]), w, dw);
          for (int n = 0; n < spline_taps; ++n) s.weights[b * weights_stride + n] = w[n];
          in.harmonics(v, s.Y + b * Y_stride);
        });
        for (int p = group.first_path; p < group.first_path + group.paths; ++p) {
          const DevicePath& path = in.paths[p];
          const int n3 = 2 * path.l3 + 1;
          if (path.l1 > 0)
            team.each([&](int b) {
              if (b < count && s.sender[b] >= 0) in.couple(path, s.Y + b * Y_stride, s.Z + b * n1 * n3);
            });
          const bool first_path = p == group.first_path;
          T* table = partials + std::size_t(part) * table_size + path.radial;
          switch (path.l3) {
            case 0: run<0>(team, i, path, first_channel, first_path, s, table); break;
            case 1: run<1>(team, i, path, first_channel, first_path, s, table); break;
            case 2: run<2>(team, i, path, first_channel, first_path, s, table); break;
            default: run<3>(team, i, path, first_channel, first_path, s, table); break;
          }
        }
        team.each([&](int lane) {
          const int c = first_channel + lane;
          if (c >= group.channels) return;
          for (int b = 0; b < count; ++b)
            for (int m = 0; m < n1 && s.sender[b] >= 0; ++m)
              edge_rows[std::size_t(first + b) * in.h_size + group.in + m * group.in_row + c] = s.gh[(b * n1 + m) * warp_size + lane];
        });
      }
  }

 private:
  template <int L3>
  ADATOM_DEVICE void run(WarpTeam& team, int i, const DevicePath& path, int first_channel, bool first_path, const Batch& s, T* table) const {
    constexpr int n3 = 2 * L3 + 1;
    const int n1 = 2 * path.l1 + 1, Y_stride = in.harmonics.count() | 1, Z_stride = path.l1 > 0 ? n1 * n3 : Y_stride;
    const S* Z = path.l1 > 0 ? s.Z : s.Y + L3 * L3;
    team.each([&](int lane) {
      const int c = first_channel + lane;
      if (c >= path.channels) return;
      S g[n3];
      ADATOM_UNROLL
      for (int m = 0; m < n3; ++m) g[m] = G[std::size_t(i) * in.A_size + path.out + m * path.out_row + c];
      for (int b = 0; b < s.count; ++b) {
        if (s.sender[b] < 0) continue;
        const S* w = s.weights + b * weights_stride;
        const S R = in.template radial<1>(w, s.row[b], 0, path.radial + c)[0];
        const S* h = in.h + std::size_t(s.sender[b]) * in.h_size + path.in + c;
        const S* z = Z + b * Z_stride;
        S gR(T(0));
        for (int m1 = 0; m1 < n1; ++m1) {
          S t = g[0] * z[m1 * n3];
          ADATOM_UNROLL
          for (int m = 1; m < n3; ++m) t = fma(t, g[m], z[m1 * n3 + m]);
          gR = fma(gR, h[m1 * path.in_row], t);
          S& gh = s.gh[(b * n1 + m1) * warp_size + lane];
          gh = first_path ? R * t : fma(gh, R, t);
        }
        T* to = table + std::size_t(s.row[b]) * in.table.functions + c;
        ADATOM_UNROLL
        for (int n = 0; n < spline_taps; ++n, to += in.table.functions) *to = fma(fma(*to, gR.d, w[n].v), gR.v, w[n].d);
      }
    });
  }
};

/// Of the table of an edge density, given dE/drho of each receiver. A warp per part; thread n has the n-th weight of every edge and a copy of the table.
template <class S>
struct DensityGradient {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  DeviceGraph g;
  const EdgeVector<S>* vectors = nullptr;
  DeviceTable<T> table;
  int receivers = 0, receivers_per_part = 0;
  const S* grho = nullptr;  ///< [receivers]
  T* partials = nullptr;    ///< [part][spline_taps][rows], zero before
  int rows = 0;

  static std::size_t shared() { return shared_bytes<int>(warp_size) + shared_bytes<S>(warp_size * spline_taps); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    int* row = team.template shared<int>(warp_size);
    S* weights = team.template shared<S>(warp_size * spline_taps);
    const int part = static_cast<int>(team.index());
    const int begin = part * receivers_per_part, end = begin + receivers_per_part < receivers ? begin + receivers_per_part : receivers;
    for (int i = begin; i < end; ++i)
      for (int first = g.first_edge[i]; first < g.first_edge[i + 1]; first += warp_size) {
        const int count = g.first_edge[i + 1] - first < warp_size ? g.first_edge[i + 1] - first : warp_size;
        team.each([&](int b) {
          if (b >= count) return;
          const EdgeVector<S> v = vectors[first + b];
          row[b] = -1;
          if (!is_active(v)) return;
          S w[spline_taps], dw[spline_taps];
          row[b] = table.weights(v[3], g.pair(g.species[i], g.species[g.sender[first + b]]), w, dw);
          for (int n = 0; n < spline_taps; ++n) weights[b * spline_taps + n] = w[n];
        });
        team.each([&](int n) {
          if (n >= spline_taps) return;
          T* to = partials + (std::size_t(part) * spline_taps + n) * rows;
          for (int b = 0; b < count; ++b)
            if (row[b] >= 0) to[row[b] + n] += tangent_of_product(grho[i], weights[b * spline_taps + n]);
        });
      }
  }
};

/// Groups of nodes first .. end-1, of one species.
struct GroupRange {
  int first, end;
};

/// Of the contraction's coefficients, from the adjoint of its output. A warp has 32 channels of a range of groups; coefficients are in the order of the programs.
template <class S>
struct ContractGradient {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  using In = ContractionInput<S>;
  In in;
  const GroupRange* ranges = nullptr;
  const S* gout = nullptr;  ///< [nodes][out_size]
  int coefficients = 0;     ///< of all programs
  T* partials = nullptr;    ///< [range][coefficients][channels]

  static std::size_t shared(int inputs) { return shared_bytes<typename In::Four>(inputs * warp_size); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    using Four = typename In::Four;
    const int blocks = in.channel_blocks();
    const std::int64_t part = team.index() / blocks;
    const int first_channel = static_cast<int>(team.index() % blocks) * warp_size;
    const GroupRange range = ranges[part];
    Four* x = team.template shared<Four>(in.input_count * warp_size);
    team.each([&](int lane) {
      const int channel = first_channel + lane;
      if (channel >= in.channels) return;
      for (int k = range.first; k < range.end; ++k) {
        const NodeGroup group = in.groups[k];
        in.load_inputs(group, lane, channel, x);
        T* to = partials + std::size_t(part) * coefficients * in.channels + channel;
        const auto add = [&](T sum) {
          *to = k == range.first ? sum : *to + sum;
          to += in.channels;
        };
        for (int p = 0; p < in.part_count; ++p) {
          Four g;
          ADATOM_UNROLL
          for (int q = 0; q < nodes_per_group; ++q)
            g[q] = q < group.count ? gout[std::size_t(group.first + q) * in.out_size + in.parts[p].out + channel] : S(T(0));
          const int* list = in.parts[p].value.list;
          const int rows = *list++;
          for (int row = 0; row < rows; ++row) {
            const int input = *list++, sums = *list++;
            const Four xi = x[input * warp_size + lane];
            Four gi;
            T sum(0);
            ADATOM_UNROLL
            for (int q = 0; q < nodes_per_group; ++q) gi[q] = g[q] * xi[q], sum += gi[q].d;
            add(sum);
            for (int n = 0; n < sums; ++n) {
              const int a = *list++, terms = *list++;
              const Four xa = x[a * warp_size + lane];
              Four ga;
              sum = T(0);
              ADATOM_UNROLL
              for (int q = 0; q < nodes_per_group; ++q) ga[q] = gi[q] * xa[q], sum += ga[q].d;
              add(sum);
              for (int term = 0; term < terms; ++term) {
                const Four xb = x[*list++ * warp_size + lane];
                sum = T(0);
                ADATOM_UNROLL
                for (int q = 0; q < nodes_per_group; ++q) sum += tangent_of_product(ga[q], xb[q]);
                add(sum);
              }
            }
          }
        }
      }
    });
  }
};

}  // namespace adatom::gnn::cuda
