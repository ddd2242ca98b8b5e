// SPDX-License-Identifier: MIT
// Edges within the cutoff: their vectors, the repulsion of close pairs, and forces and virials that come back along them.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <utility>

#include "gnn/cpu/topology.hpp"
#include "gnn/cpu/workspace.hpp"
#include "gnn/network.hpp"
#include "gnn/threads.hpp"

namespace adatom::gnn::cpu {

/// What a pass is to give.
struct Wanted {
  bool forces = true, virial = false, atom_virials = false;
};

/// Direction of a derivative: x' of the nodes, and (for losses with stresses) r' = strain r of the edges.
struct Tangents {
  const double* positions = nullptr;  ///< [nodes][3]
  double sign = 1.0;                  ///< of `positions`
  const double* strains = nullptr;    ///< [structures][9]
  const int* structure = nullptr;     ///< [nodes]
};

template <class S>
class EdgeList {
 public:
  using T = Base<S>;
  using Sum = SumOf<S>;

  EdgeList(const Network& network, const Topology& topology) : network_(network), topology_(topology) {}

  void prepare(const Graph& g, const Wanted& wanted) {
    wanted_ = wanted;
    const std::size_t edges = g.n_receivers ? static_cast<std::size_t>(g.first_edge[g.n_receivers]) : 0, receivers = g.n_receivers;
    need(vectors_, 3 * edges);
    need(sender_, edges);
    need(slot_, edges);
    need(active_, receivers);
    need(energies_, receivers);
    if (wanted_.forces) need(slot_forces_, 3 * topology_.slots());
    need(chunk_virials_, 9 * topology_.chunks.size());
    if (wanted_.atom_virials) need(slot_virials_, 9 * topology_.slots());
    std::fill(chunk_virials_.begin(), chunk_virials_.end(), 0.0);
    bad_ = coincident_ = std::numeric_limits<int>::max();
  }

  // Edges within the cutoff of receiver i: first_edge[i] .. first_edge[i] + active(i) - 1.
  int active(int i) const { return active_[i]; }
  const S* vectors(std::int64_t first) const { return vectors_.data() + 3 * first; }
  const int* senders(std::int64_t first) const { return sender_.data() + first; }
  const int* slots(std::int64_t first) const { return slot_.data() + first; }
  Sum& energy(int i) { return energies_[i]; }  ///< before scale and offset
  double* virial(int chunk) { return chunk_virials_.data() + 9 * std::size_t(chunk); }

  /// Vectors of a chunk's edges, those of a node grouped by the element of their sender; repulsion of close pairs, if `repulsion`.
  void form(const Graph& g, int chunk, const Tangents& tangents, bool repulsion, Workspace<S>& w) {
    const Topology::Chunk& c = topology_.chunks[chunk];
    const std::int64_t slots = topology_.end_slot(chunk) - c.first_slot;
    if (wanted_.forces) std::fill_n(slot_forces_.data() + 3 * c.first_slot, 3 * slots, Sum(0));
    if (wanted_.atom_virials) std::fill_n(slot_virials_.data() + 9 * c.first_slot, 9 * slots, 0.0);
    for (int i = c.first; i < c.last; ++i) form_of(g, i, c.first_slot, tangents, repulsion, w);
  }

  /// After all chunks are formed: the first atom that has no place in space and what is wrong with it, as Halo::agree takes them; -1 if there is none.
  std::pair<int, const char*> fault(const Graph& g) const {
    if (bad_ < g.n_receivers) return {bad_, "or one of its neighbours has a position that is not finite (NaN, infinite, or too large to compute with)"};
    if (coincident_ < g.n_receivers) return {coincident_, "and one of its neighbours are on the same spot; move one of them"};
    return {-1, ""};
  }

  /// f = dE/dr_ij of an edge to receiver i.
  void add_force(int i, int slot, std::int64_t first_slot, const Sum (&v)[3], const Sum (&f)[3], Workspace<S>& w) {
    Sum* to = slot_forces_.data() + 3 * (first_slot + slot);
    Sum* from = slot_forces_.data() + 3 * (first_slot + topology_.receiver_slot[i]);
    for (int a = 0; a < 3; ++a) {
      to[a] = to[a] - f[a];
      from[a] = from[a] + f[a];
    }
    if (wanted_.virial)
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) w.virial[3 * a + b] -= value(v[a]) * value(f[b]);
    if (wanted_.atom_virials) {
      double* vt = slot_virials_.data() + 9 * (first_slot + slot);
      double* vf = slot_virials_.data() + 9 * (first_slot + topology_.receiver_slot[i]);
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
          const double x = -0.5 * value(v[a]) * value(f[b]);
          vt[3 * a + b] += x;
          vf[3 * a + b] += x;
        }
    }
  }

  void collect(const Graph& g, GraphResult& result, Threads& team, int threads) {
    result.energy = 0.0;
    for (int i = 0; i < g.n_receivers; ++i) {
      const int z = g.species[i];
      const double e = g.feature_weights ? value(energies_[i]) : network_.energy_offset[z] + network_.scale[z] * value(energies_[i]);
      result.energy += e;
      if (result.energies) result.energies[i] = e;
    }
    std::fill(std::begin(result.virial), std::end(result.virial), 0.0);
    if (wanted_.virial)
      for (std::size_t c = 0; c < topology_.chunks.size(); ++c)
        for (int a = 0; a < 9; ++a) result.virial[a] += chunk_virials_[9 * c + a];
    if (!wanted_.forces) return;
    parallel_for_each(team, threads, g.n_nodes, [&](std::int64_t n) {
      Sum f[3] = {Sum(0), Sum(0), Sum(0)};
      double v[9] = {};
      for (std::int64_t s = topology_.node_first[n]; s < topology_.node_first[n + 1]; ++s) {
        const std::int64_t slot = topology_.node_slot[s];
        for (int a = 0; a < 3; ++a) f[a] = f[a] + slot_forces_[3 * slot + a];
        if (wanted_.atom_virials)
          for (int a = 0; a < 9; ++a) v[a] += slot_virials_[9 * slot + a];
      }
      for (int a = 0; a < 3; ++a) {
        if (result.forces) result.forces[3 * std::size_t(n) + a] = value(f[a]);
        if constexpr (is_dual<S>)
          if (result.force_tangents) result.force_tangents[3 * std::size_t(n) + a] = f[a].d;
      }
      if (wanted_.atom_virials) std::copy(v, v + 9, result.atom_virials + 9 * std::size_t(n));
    });
  }

  std::size_t bytes() const {
    return bytes_of(vectors_) + bytes_of(sender_) + bytes_of(slot_) + bytes_of(active_) + bytes_of(energies_) + bytes_of(slot_forces_) +
           bytes_of(slot_virials_) + bytes_of(chunk_virials_);
  }

 private:
  static void lower(std::atomic<int>& x, int i) {
    int seen = x.load();
    while (i < seen && !x.compare_exchange_weak(seen, i)) {
    }
  }

  void form_of(const Graph& g, int i, std::int64_t first_slot, const Tangents& tangents, bool repulsion, Workspace<S>& w) {
    const std::int64_t begin = g.first_edge[i], end = g.first_edge[i + 1];
    const double* xi = g.positions + 3 * std::size_t(i);
    const double limit = network_.cutoff * network_.cutoff;
    // Edges of a node are ordered by the element of their sender (runs of the first layer), then roughly by distance, so that neighbours in the list read
    // neighbouring rows of the spline tables.
    const int species = network_.species(), bins = species <= 8 ? 64 : 1;
    int* edge = need(w.edge, 2 * (end - begin));
    int* bin = edge + (end - begin);
    int* group = need(w.group, species * bins + 1);
    double* d = need(w.vectors, 3 * (end - begin));
    std::fill(group, group + species * bins + 1, 0);
    const double bins_per_area = bins / limit;
    int n = 0;
    active_[i] = 0;
    if (!(xi[0] - xi[0] == 0.0 && xi[1] - xi[1] == 0.0 && xi[2] - xi[2] == 0.0)) return lower(bad_, i);
    for (std::int64_t e = begin; e < end; ++e) {
      const double* xj = g.positions + 3 * std::size_t(g.sender[e]);
      double v[3] = {xj[0] - xi[0], xj[1] - xi[1], xj[2] - xi[2]};
      if (g.shift) {
        const double* s = g.shifts + 3 * std::size_t(g.shift[e]);
        v[0] += s[0], v[1] += s[1], v[2] += s[2];
      }
      const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
      if (r2 < limit) {
        if (r2 < 1e-12) return lower(coincident_, i);
        edge[n] = static_cast<int>(e - begin);
        d[3 * n] = v[0], d[3 * n + 1] = v[1], d[3 * n + 2] = v[2];
        bin[n] = g.species[g.sender[e]] * bins + std::min(static_cast<int>(r2 * bins_per_area), bins - 1);
        ++group[bin[n] + 1];
        ++n;
      } else if (!(r2 < std::numeric_limits<double>::max())) {
        return lower(bad_, i);
      }
    }
    active_[i] = n;
    for (int b = 0; b < species * bins; ++b) group[b + 1] += group[b];
    Sum energy(0);
    for (int k = 0; k < n; ++k) {
      const std::int64_t e = begin + edge[k];
      const int j = g.sender[e];
      const std::int64_t to = begin + group[bin[k]]++;
      sender_[to] = j;
      slot_[to] = topology_.edge_slot[e];
      Sum v[3];
      for (int a = 0; a < 3; ++a) {
        if constexpr (is_dual<S>) {
          double tangent = tangents.sign * (tangents.positions[3 * std::size_t(j) + a] - tangents.positions[3 * std::size_t(i) + a]);
          if (tangents.strains) {
            const double* strain = tangents.strains + 9 * std::size_t(tangents.structure[i]) + 3 * a;
            tangent += strain[0] * d[3 * k] + strain[1] * d[3 * k + 1] + strain[2] * d[3 * k + 2];
          }
          v[a] = Sum(d[3 * k + a], tangent);
        } else {
          v[a] = d[3 * k + a];
        }
        vectors_[3 * to + a] = narrow<S>(v[a]);
      }
      if (repulsion) energy = energy + repel(g, i, g.species[j], v, slot_[to], first_slot, w);
    }
    energies_[i] = energy;
  }

  Sum repel(const Graph& g, int i, int zj, const Sum (&v)[3], int slot, std::int64_t first_slot, Workspace<S>& w) {
    const int zi = g.species[i];
    const double radii = network_.radii[zi] + network_.radii[zj];
    const Sum r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    if (!(value(r) < radii)) return Sum(0);
    const Dual<Sum> e = pair_repulsion(network_.repulsion, Dual<Sum>(r, Sum(1)), network_.elements[zi], network_.elements[zj], Dual<Sum>(Sum(radii)));
    if (wanted_.forces) {
      Sum f[3];
      for (int a = 0; a < 3; ++a) f[a] = e.d * network_.scale[zi] * v[a] / r;
      add_force(i, slot, first_slot, v, f, w);
    }
    return e.v;
  }

  const Network& network_;
  const Topology& topology_;
  Wanted wanted_;
  std::atomic<int> bad_{0}, coincident_{0};  // first receivers with a position that is not finite, or equal to a neighbour's
  AlignedVector<S> vectors_;                 // [edges][3]
  std::vector<int> sender_, slot_;           // [edges]
  std::vector<int> active_;                  // [receivers]
  std::vector<Sum> energies_;                // [receivers]
  std::vector<Sum> slot_forces_;             // [slots][3]
  std::vector<double> slot_virials_;         // [slots][9]
  std::vector<double> chunk_virials_;        // [chunks][9]
};

}  // namespace adatom::gnn::cpu
