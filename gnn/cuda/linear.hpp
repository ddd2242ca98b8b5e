// SPDX-License-Identifier: MIT
// Linear maps of all nodes: y[m] (+)= x[m] W for the rows m of each irrep, one W for all nodes or one per species.
//
// Features are stored [node][l, m][channel] and nodes are ordered by species, so that every map is a few dense products of (nodes (2l+1)) x in x out. A block
// of 128 threads has a tile of 64 rows and 64 columns, 8 x 4 of it per thread in registers; 16 columns of x and rows of W at a time go through shared memory.
// LinearTensor does it on tensor cores, for those who ask for it.
#pragma once
#include "gnn/cuda/portable.hpp"

namespace adatom::gnn::cuda {

/// The product for one irrep and the nodes of one species (or all).
template <class T>
struct LinearTask {
  const T* matrix;  ///< [k][n]
  const T* bias;    ///< [n] or null
  int components, k, n;
  int in, in_row, out, out_row;
  int first_node, nodes;
};

template <class S>
struct Linear {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 128, threads = 128, tile = 64, depth = 16, row_step = 8, column_step = 4;
  using T = Base<S>;

  const LinearTask<T>* tasks = nullptr;
  int row_tiles = 0, column_tiles = 0;  ///< the most that a task has
  int first_node = 0, end_node = 0;     ///< of the nodes in work; rows 0 of x and y belong to x_first and y_first
  const S* x = nullptr;
  int x_size = 0, x_first = 0;
  S* y = nullptr;
  int y_size = 0, y_first = 0;
  bool accumulate = false;

  static constexpr int x_stride = tile + 4;
  static std::size_t shared() { return shared_bytes<S>(depth * x_stride) + shared_bytes<T>(depth * tile); }

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    const LinearTask<T>& task = tasks[team.index() / (std::int64_t(row_tiles) * column_tiles)];
    const int within = static_cast<int>(team.index() % (std::int64_t(row_tiles) * column_tiles));
    const int begin = task.first_node > first_node ? task.first_node : first_node;
    const int end = task.first_node + task.nodes < end_node ? task.first_node + task.nodes : end_node;
    const int rows = end > begin ? (end - begin) * task.components : 0;
    const int row = within / column_tiles * tile, column = within % column_tiles * tile;
    if (row >= rows || column >= task.n) return;
    S* const xs = team.template shared<S>(depth * x_stride);  // [k][row]
    T* const ws = team.template shared<T>(depth * tile);      // [k][column]
    auto sum = team.template local<Array<S, row_step * column_step>>();
    team.each([&](int t) {
      ADATOM_UNROLL
      for (int n = 0; n < row_step * column_step; ++n) sum[t][n] = S(T(0));
    });
    const auto x_row = [&](int r) {
      const int i = begin + r / task.components, m = r % task.components;
      return x + std::size_t(i - x_first) * x_size + task.in + m * task.in_row;
    };
    for (int k = 0; k < task.k; k += depth) {
      team.each([&](int t) {
        ADATOM_UNROLL
        for (int n = 0; n < tile * depth / threads; ++n) {
          const int r = t / depth + n * (threads / depth), kk = t % depth;
          xs[kk * x_stride + r] = row + r < rows ? x_row(row + r)[k + kk] : S(T(0));
        }
        ADATOM_UNROLL
        for (int n = 0; n < tile * depth / threads; ++n) {
          const int c = t % tile, kk = t / tile + n * (threads / tile);
          ws[kk * tile + c] = column + c < task.n ? task.matrix[std::size_t(k + kk) * task.n + column + c] : T(0);
        }
      });
      team.each([&](int t) {
        const int r = t / (tile / column_step) * row_step, c = t % (tile / column_step) * column_step;
        auto& own = sum[t];
        ADATOM_UNROLL
        for (int kk = 0; kk < depth; ++kk) {
          const Pack<S, row_step> a = load<row_step>(xs + kk * x_stride + r);
          const Pack<T, column_step> b = load<column_step>(ws + kk * tile + c);
          ADATOM_UNROLL
          for (int i = 0; i < row_step; ++i) ADATOM_UNROLL
          for (int j = 0; j < column_step; ++j) own[i * column_step + j] = fma(own[i * column_step + j], a[i], b[j]);
        }
      });
    }
    team.each([&](int t) {
      const int r = row + t / (tile / column_step) * row_step, c = column + t % (tile / column_step) * column_step;
      if (c >= task.n) return;
      for (int i = 0; i < row_step && r + i < rows; ++i) {
        const int node = begin + (r + i) / task.components, m = (r + i) % task.components;
        S* const to = y + std::size_t(node - y_first) * y_size + task.out + m * task.out_row + c;
        for (int j = 0; j < column_step; ++j) {
          S value = sum[t][i * column_step + j];
          if (task.bias) value = value + task.bias[c + j];
          to[j] = accumulate ? to[j] + value : value;
        }
      }
    });
  }
};

/// The same on tensor cores, with rounded inputs: four warps of 32 x 32 have the tile. Single precision only.
template <Matmul M>
struct LinearTensor {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 128, threads = 128, tile = 64, depth = 32;
  using In = typename TensorInput<M>::type;

  const LinearTask<float>* tasks = nullptr;
  int row_tiles = 0, column_tiles = 0;
  int first_node = 0, end_node = 0;
  const float* x = nullptr;
  int x_size = 0, x_first = 0;
  float* y = nullptr;
  int y_size = 0, y_first = 0;
  bool accumulate = false;

  // Tensor cores read whole tiles at multiples of 32 bytes.
  static constexpr int x_stride = depth + 8, w_stride = tile + 8, y_stride = tile + 4;
  static std::size_t shared() { return shared_bytes<In>(tile * x_stride) + shared_bytes<In>(depth * w_stride) + shared_bytes<float>(tile * y_stride); }

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    const LinearTask<float>& task = tasks[team.index() / (std::int64_t(row_tiles) * column_tiles)];
    const int within = static_cast<int>(team.index() % (std::int64_t(row_tiles) * column_tiles));
    const int begin = task.first_node > first_node ? task.first_node : first_node;
    const int end = task.first_node + task.nodes < end_node ? task.first_node + task.nodes : end_node;
    const int rows = end > begin ? (end - begin) * task.components : 0;
    const int row = within / column_tiles * tile, column = within % column_tiles * tile;
    if (row >= rows || column >= task.n) return;
    In* const xs = team.template shared<In>(tile * x_stride);   // [row][k]
    In* const ws = team.template shared<In>(depth * w_stride);  // [k][column]
    float* const ys = team.template shared<float>(tile * y_stride);
    PerWarp<TensorTile<M>> sum(threads);
    team.warps([&](const Warp& warp) { sum[warp].clear(); });
    for (int k = 0; k < task.k; k += depth) {
      team.each([&](int t) {
        ADATOM_UNROLL
        for (int n = 0; n < tile * depth / threads; ++n) {
          const int kk = t % depth, r = t / depth + n * (threads / depth);
          float value = 0.0f;
          if (row + r < rows && k + kk < task.k) {
            const int node = begin + (row + r) / task.components, m = (row + r) % task.components;
            value = x[std::size_t(node - x_first) * x_size + task.in + m * task.in_row + k + kk];
          }
          xs[r * x_stride + kk] = TensorInput<M>::round(value);
        }
        ADATOM_UNROLL
        for (int n = 0; n < tile * depth / threads; ++n) {
          const int c = t % tile, kk = t / tile + n * (threads / tile);
          const bool inside = column + c < task.n && k + kk < task.k;
          ws[kk * w_stride + c] = TensorInput<M>::round(inside ? task.matrix[std::size_t(k + kk) * task.n + column + c] : 0.0f);
        }
      });
      team.warps([&](const Warp& warp) {
        const int w = warp.first() / warp_size, r = w / 2 * TensorTile<M>::size, c = w % 2 * TensorTile<M>::size;
        ADATOM_UNROLL
        for (int kk = 0; kk < depth; kk += TensorTile<M>::depth) sum[warp].multiply(xs + r * x_stride + kk, x_stride, ws + kk * w_stride + c, w_stride);
      });
    }
    team.warps([&](const Warp& warp) {
      const int w = warp.first() / warp_size;
      sum[warp].store(ys + w / 2 * TensorTile<M>::size * y_stride + w % 2 * TensorTile<M>::size, y_stride);
    });
    team.each([&](int t) {
      for (int k = t; k < tile * tile; k += threads) {
        const int r = k / tile, c = k % tile;
        if (row + r >= rows || column + c >= task.n) continue;
        const int node = begin + (row + r) / task.components, m = (row + r) % task.components;
        float& to = y[std::size_t(node - y_first) * y_size + task.out + m * task.out_row + column + c];
        float value = ys[r * y_stride + c];
        if (task.bias) value += task.bias[column + c];
        to = accumulate ? to + value : value;
      }
    });
  }
};

}  // namespace adatom::gnn::cuda
