// SPDX-License-Identifier: MIT
// Linear maps of the features of a tile's nodes: rows of nodes of one element share a matrix.
#pragma once
#include "gnn/cpu/gradient.hpp"

namespace adatom::gnn::cpu {

enum class Direction { forward, reverse };

/// Calls body(z, rows) for the nodes of each element z that has a matrix of its own (once for all if there is one matrix), with the rows of x and y of one
/// irrep listed in w.x and w.y.
template <class S, class XRow, class YRow, class Body>
void for_rows(int matrices, int nodes, const int* species, int components, XRow x, YRow y, Workspace<S>& w, Body body) {
  need(w.x, std::size_t(nodes) * components);
  need(w.y, std::size_t(nodes) * components);
  for (int z = 0; z < matrices; ++z) {
    int rows = 0;
    for (int i = 0; i < nodes; ++i) {
      if (matrices > 1 && species[i] != z) continue;
      for (int m = 0; m < components; ++m) {
        w.x[rows] = x(i, m);
        w.y[rows++] = y(i, m);
      }
    }
    if (rows) body(z, rows);
  }
}

/// y (+)= map(x), or with the transposed matrices, for `nodes` nodes; x and y give each node's features. `accumulate`: add to y.
template <class S, int W, int RB>
void apply(const PackedMap<Base<S>>& map, Direction direction, int nodes, const S* const* x, S* const* y, const int* species, bool accumulate,
           Workspace<S>& w) {
  for (const auto& p : map.parts) {
    const bool forward = direction == Direction::forward;
    const auto& matrices = forward ? p.forward : p.reverse;
    const int in = forward ? p.in : p.out, in_row = forward ? p.in_row : p.out_row, out = forward ? p.out : p.in, out_row = forward ? p.out_row : p.in_row;
    for_rows(
        static_cast<int>(matrices.size()), nodes, species, p.rows, [&](int i, int m) { return x[i] + in + m * in_row; },
        [&](int i, int m) { return y[i] + out + m * out_row; }, w,
        [&](int z, int rows) { linear<S, W, RB>(rows, w.x.data(), 0, w.y.data(), 0, matrices[z], accumulate); });
  }
  if (direction == Direction::forward)
    for (int i = 0; i < nodes; ++i)
      for (std::size_t k = 0; k < map.bias.size(); ++k) y[i][map.bias_offset + k] = y[i][map.bias_offset + k] + map.bias[k];
}

/// Gradient of the map's weights from its input x and the adjoint g of its output.
template <class S, int W>
void apply_gradient(const LinearMap& map, int nodes, const S* const* x, S* const* g, const int* species, const GradientBuffers<Base<S>>& buffers,
                    Workspace<S>& w) {
  for (const LinearPart& p : map.parts)
    for_rows(
        static_cast<int>(p.matrices.size()), nodes, species, p.ir.dim(), [&](int i, int m) { return x[i] + p.in + m * p.in_row; },
        [&](int i, int m) { return g[i] + p.out + m * p.out_row; }, w,
        [&](int z, int rows) {
          const Matrix& m = p.matrices[z];
          linear_gradient<S, W>(rows, w.x.data(), w.y.data(), m.in, m.out, w.gradient + buffers.offset(m.id));
        });
  if (map.bias_id >= 0) {
    auto* to = w.gradient + buffers.offset(map.bias_id);
    for (int i = 0; i < nodes; ++i)
      for (std::size_t k = 0; k < map.bias.size(); ++k) to[k] += g[i][map.bias_offset + k].d;
  }
}

/// Message of a merged first layer from B, or the adjoint of B from that of the message. One run is the edges of a node to one element.
template <class S, int W, int RB>
void element_linear(const Graph& g, const PackedLayer<Base<S>>& layer, int harmonics, const Tile<S>& tile, Direction direction, S* B, S* message,
                    Workspace<S>& w) {
  const Layer& spec = *layer.spec;
  const auto& maps = layer.element_linear;
  const std::size_t b_size = std::size_t(harmonics) * spec.element_functions, message_size = spec.message_layout.size;
  const int runs = tile.runs.runs;
  const std::size_t most_rows = 7 * tile.most_runs(static_cast<int>(maps.front().size()));
  need(w.x, most_rows);
  need(w.y, most_rows);
  // Runs of one element (and receivers of one, where the map depends on it) share a matrix. A node has at most one run per element, so rows never clash.
  for (std::size_t zi = 0; zi < maps.size(); ++zi)
    for (std::size_t zj = 0; zj < maps[zi].size(); ++zj)
      for (const auto& p : maps[zi][zj].parts) {
        int rows = 0;
        for (int run = 0; run < runs; ++run) {
          if (w.run_species[run] != static_cast<int>(zj)) continue;
          const int i = w.run_node[run];
          if (maps.size() > 1 && g.species[tile.first + i] != static_cast<int>(zi)) continue;
          for (int m = 0; m < p.rows; ++m) {
            S* b = B + run * b_size + p.in + m * p.in_row;
            S* a = message + i * message_size + p.out + m * p.out_row;
            w.x[rows] = direction == Direction::forward ? b : a;
            w.y[rows++] = direction == Direction::forward ? a : b;
          }
        }
        if (!rows) continue;
        if (direction == Direction::forward)
          linear<S, W, RB>(rows, w.x.data(), 0, w.y.data(), 0, p.forward[0], true);
        else
          linear<S, W, RB>(rows, w.x.data(), 0, w.y.data(), 0, p.reverse[0], false);
      }
}

}  // namespace adatom::gnn::cpu
