// SPDX-License-Identifier: MIT
// What one thread works in, and small helpers that all parts of the evaluator share.
#pragma once
#include <algorithm>
#include <array>
#include <vector>

#include "gnn/kernels/aligned.hpp"
#include "gnn/kernels/convolve.hpp"
#include "gnn/kernels/element_convolve.hpp"

namespace adatom::gnn::cpu {

template <class S>
using SumOf = std::conditional_t<is_dual<S>, Dual<double>, double>;  ///< what sums over atoms and edges are formed in

template <class V>
std::size_t bytes_of(const V& v) {
  return v.capacity() * sizeof(typename V::value_type);
}

/// Grows only, so that a steady step allocates nothing.
template <class V>
auto* need(V& v, std::size_t n) {
  if (v.size() < n) v.resize(n);
  return v.data();
}

ADATOM_INLINE double widen(float x) { return x; }
ADATOM_INLINE double widen(double x) { return x; }
template <class T>
ADATOM_INLINE Dual<double> widen(Dual<T> x) {
  return {x.v, x.d};
}

template <class S>
ADATOM_INLINE S narrow(SumOf<S> x) {
  if constexpr (is_dual<S>)
    return S(static_cast<Base<S>>(x.v), static_cast<Base<S>>(x.d));
  else
    return static_cast<S>(x);
}

/// The part of a chunk that is worked on at once: some receivers and their edges.
template <class S>
struct Tile {
  int first, last;      ///< receivers
  std::int64_t slots;   ///< the chunk's first slot
  const int* receiver;  ///< [edges]
  EdgeTile<S> edges;
  EdgeRuns runs;  ///< first layer, merged
  int longest;    ///< most edges that a receiver of the graph has in the list, within the cutoff or not
  int size() const { return last - first; }
  int edge_count() const { return edges.first_edge[edges.nodes]; }
  /// Bounds for any positions of the atoms: what buffers are made for, so that they do not grow when atoms come closer.
  std::size_t most_edges() const { return std::size_t(size()) * longest; }
  std::size_t most_runs(int elements) const { return std::size_t(size()) * std::min(elements, longest); }
};
inline constexpr int tile_nodes = 16;  // most receivers of a tile

template <class S>
struct Workspace {
  AlignedVector<S> record, adjoint, A, gA, B, raw_message, message, gmessage, contracted, gcontracted, features, gfeatures, phi, slopes, rows, row_slopes,
      scalars, detected;
  AlignedVector<S> edge_density;  ///< value and slope per edge
  std::vector<int> knot, first_edge, run_first, run_species, run_node, sender, slot, receiver;
  std::vector<const S*> x;  ///< rows of a linear map
  std::vector<S*> y;
  std::vector<int> edge, group;  ///< of forming edges
  std::vector<double> vectors;
  std::vector<SumOf<S>> hidden;  ///< of readouts
  double* virial = nullptr;      ///< [9] of the chunk in work
  Base<S>* gradient = nullptr;   ///< of the weights, of the group of chunks in work

  /// Calls f with each buffer of a workspace.
  template <class Self, class F>
  static void for_buffers(Self& w, F f) {
    for (auto* v : {&w.record, &w.adjoint, &w.A, &w.gA, &w.B, &w.raw_message, &w.message, &w.gmessage, &w.contracted, &w.gcontracted, &w.features, &w.gfeatures,
                    &w.phi, &w.slopes, &w.rows, &w.row_slopes, &w.edge_density, &w.scalars, &w.detected})
      f(*v);
    for (auto* v : {&w.knot, &w.first_edge, &w.run_first, &w.run_species, &w.run_node, &w.sender, &w.slot, &w.receiver, &w.edge, &w.group}) f(*v);
    f(w.x), f(w.y), f(w.vectors), f(w.hidden);
  }
  std::size_t bytes() const {
    std::size_t n = 0;
    for_buffers(*this, [&](const auto& v) { n += bytes_of(v); });
    return n;
  }
};

/// Makes all workspaces as large as the largest. Chunks go to whichever thread is free: what one thread needed, any may need in the next step.
template <class S>
void level(std::vector<Workspace<S>>& workspaces) {
  std::array<std::size_t, 40> most{};
  for (const auto& w : workspaces) Workspace<S>::for_buffers(w, [&, k = 0](const auto& v) mutable { most.at(k) = std::max(most.at(k), v.size()), ++k; });
  for (auto& w : workspaces) Workspace<S>::for_buffers(w, [&, k = 0](auto& v) mutable { need(v, most.at(k++)); });
}

}  // namespace adatom::gnn::cpu
