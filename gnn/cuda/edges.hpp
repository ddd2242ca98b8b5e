// SPDX-License-Identifier: MIT
// Edges at the beginning and at the end of a step: vectors from positions and the repulsion of close pairs; forces and virials from the edges' derivatives.
#pragma once
#include "gnn/cuda/search.hpp"

namespace adatom::gnn::cuda {

/// What FormEdges leaves beside the edges: the lowest receiver (in the caller's order) with a position that is not finite, and with a neighbour on its spot;
/// the number of edges within the cutoff. Of GatherPositions: the lowest node that moved too far for its list.
enum EdgeStatus { not_finite, coincident, active_edges, moved, edge_status_size };

/// Vectors of the edges within the cutoff; f = 0 or the repulsion's; energies = 0 or the repulsion's. A warp per receiver.
template <class S>
struct FormEdges {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using Sum = SumOf<S>;

  DeviceGraph g;
  double limit = 0.0;                ///< cutoff squared
  double least = 1e-12;              ///< square of the distance below which two atoms are on the same spot
  const double* tangents = nullptr;  ///< [nodes][3] in the caller's order, of dual scalars
  double sign = 1.0;                 ///< of `tangents`
  const double* strains = nullptr;   ///< null, or [structures][9]: r' = strain r on top
  const int* structure = nullptr;    ///< [nodes] in the caller's order
  EdgeVector<S>* vectors = nullptr;  ///< [edges]
  Sum* forces = nullptr;             ///< [edges][3] dE/dr_ij; null if they are not wanted
  Sum* energies = nullptr;           ///< [receivers]
  int* status = nullptr;             ///< see EdgeStatus
  bool repels = false;
  PairRepulsion repulsion;
  const double* radii = nullptr;  ///< [species]
  const int* elements = nullptr;  ///< [species]
  const double* scale = nullptr;  ///< [species]

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int i = static_cast<int>(team.index());
    auto energy = team.template local<Sum>();
    auto active = team.template local<int>();
    team.each([&](int lane) {
      energy[lane] = Sum(0);
      active[lane] = 0;
      const double* xi = g.x + 3 * std::size_t(i);
      const bool finite = xi[0] - xi[0] == 0.0 && xi[1] - xi[1] == 0.0 && xi[2] - xi[2] == 0.0;
      if (!finite) lower(&status[not_finite], g.node[i]);
      for (int e = g.first_edge[i] + lane; e < g.first_edge[i + 1]; e += warp_size) form(i, e, xi, finite, energy[lane], active[lane]);
    });
    team.warps([&](const Warp& warp) {
      const Sum total = warp.sum(energy);
      const int edges = warp.sum(active);
      warp.each([&](int lane) {
        if (lane > 0) return;
        energies[i] = total;
        add_to(&status[active_edges], edges);
      });
    });
  }

 private:
  ADATOM_DEVICE void form(int i, int e, const double* xi, bool finite, Sum& energy, int& active) const {
    const int j = g.sender[e];
    const double* xj = g.x + 3 * std::size_t(j);
    double v[3] = {xj[0] - xi[0], xj[1] - xi[1], xj[2] - xi[2]};
    if (g.shift) {
      const double* s = g.shifts + 3 * std::size_t(g.shift[e]);
      v[0] += s[0], v[1] += s[1], v[2] += s[2];
    } else if (g.image) {
      const int h = g.image[e], h0 = (h >> 20) - 512, h1 = (h >> 10 & 1023) - 512, h2 = (h & 1023) - 512;
      const double* cell = g.boxes[g.structure[i]].box.vectors;
      for (int a = 0; a < 3; ++a) v[a] += h0 * cell[a] + h1 * cell[3 + a] + h2 * cell[6 + a];
    }
    const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    EdgeVector<S> out{};
    if (forces)
      for (int a = 0; a < 3; ++a) forces[3 * std::size_t(e) + a] = Sum(0);
    if (finite && r2 < limit && r2 >= least) {
      Sum d[3];
      for (int a = 0; a < 3; ++a) {
        if constexpr (is_dual<S>) {
          double tangent = sign * (tangents[3 * std::size_t(g.node[j]) + a] - tangents[3 * std::size_t(g.node[i]) + a]);
          if (strains) {
            const double* strain = strains + 9 * std::size_t(structure[g.node[i]]) + 3 * a;
            tangent += strain[0] * v[0] + strain[1] * v[1] + strain[2] * v[2];
          }
          d[a] = Sum(v[a], tangent);
        } else {
          d[a] = v[a];
        }
      }
      // The length of the rounded vector: what the forces are the derivative of.
      for (int a = 0; a < 3; ++a) out[a] = narrow<S>(d[a]);
      out[3] = sqrt(out[0] * out[0] + out[1] * out[1] + out[2] * out[2]);
      ++active;
      if (repels) energy = energy + repel(e, g.species[i], g.species[j], d);
    } else if (finite && r2 < least) {
      lower(&status[coincident], g.node[i]);
    } else if (!(r2 < 1.7e308)) {
      lower(&status[not_finite], g.node[i]);
    }
    vectors[e] = out;
  }

  ADATOM_DEVICE Sum repel(int e, int zi, int zj, const Sum (&v)[3]) const {
    const double sum = radii[zi] + radii[zj];
    const Sum r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    if (!(value(r) < sum)) return Sum(0);
    const Dual<Sum> energy = pair_repulsion(repulsion, Dual<Sum>(r, Sum(1)), elements[zi], elements[zj], Dual<Sum>(Sum(sum)));
    if (forces)
      for (int a = 0; a < 3; ++a) forces[3 * std::size_t(e) + a] = energy.d * scale[zi] * v[a] / r;
    return energy.v;
  }
};

/// Forces and virials of a node from its edges, those that it receives and those that it sends. A warp per node.
template <class S>
struct CollectForces {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using Sum = SumOf<S>;

  DeviceGraph g;
  const EdgeVector<S>* vectors = nullptr;
  const Sum* edge_forces = nullptr;  ///< [edges][3] dE/dr_ij
  double* forces = nullptr;          ///< [nodes][3] in the caller's order
  double* tangents = nullptr;        ///< the same, of dual scalars; or null
  double* virials = nullptr;         ///< [nodes][9] in the caller's order; or null
  double* received = nullptr;        ///< [receivers][9] virials of the edges that end here; or null

  static std::size_t shared() { return shared_bytes<Sum>(3) + 2 * shared_bytes<double>(9); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int n = static_cast<int>(team.index());
    Sum* total = team.template shared<Sum>(3);
    double* virial = team.template shared<double>(9);
    double* half = team.template shared<double>(9);
    auto f = team.template local<Array<Sum, 3>>();
    auto w = team.template local<Array<double, 9>>();
    auto h = team.template local<Array<double, 9>>();
    team.each([&](int lane) {
      ADATOM_UNROLL
      for (int a = 0; a < 3; ++a) f[lane][a] = Sum(0);
      ADATOM_UNROLL
      for (int a = 0; a < 9; ++a) w[lane][a] = h[lane][a] = 0.0;
      if (n < g.receivers)
        for (int e = g.first_edge[n] + lane; e < g.first_edge[n + 1]; e += warp_size) add(e, 1.0, f[lane], w[lane]);
      if (virials || received) ADATOM_UNROLL
      for (int a = 0; a < 9; ++a) h[lane][a] = 0.5 * w[lane][a];
      for (int s = g.first_sent[n] + lane; s < g.first_sent[n + 1]; s += warp_size) {
        Array<double, 9> sent;
        ADATOM_UNROLL
        for (int a = 0; a < 9; ++a) sent[a] = 0.0;
        add(g.sent_edge[s], -1.0, f[lane], sent);
        ADATOM_UNROLL
        for (int a = 0; a < 9; ++a) h[lane][a] += 0.5 * sent[a];
      }
    });
    team.warps([&](const Warp& warp) {
      warp.sum_to(f, total);
      if (received) warp.sum_to(w, virial);
      if (virials) warp.sum_to(h, half);
    });
    team.each([&](int lane) {
      const std::size_t to = g.node[n];
      if (lane < 3) {
        forces[3 * to + lane] = value(total[lane]);
        if constexpr (is_dual<S>)
          if (tangents) tangents[3 * to + lane] = total[lane].d;
      }
      if (lane < 9 && received && n < g.receivers) received[9 * std::size_t(n) + lane] = virial[lane];
      if (lane < 9 && virials) virials[9 * to + lane] = half[lane];
    });
  }

 private:
  ADATOM_DEVICE void add(int e, double sign, Array<Sum, 3>& f, Array<double, 9>& w) const {
    const EdgeVector<S> v = vectors[e];
    if (!is_active(v)) return;
    const Sum* fe = edge_forces + 3 * std::size_t(e);
    ADATOM_UNROLL
    for (int a = 0; a < 3; ++a) f[a] = f[a] + fe[a] * sign;
    if (virials || received) ADATOM_UNROLL
    for (int a = 0; a < 3; ++a) ADATOM_UNROLL
    for (int b = 0; b < 3; ++b) w[3 * a + b] -= double(value(v[a])) * value(fe[b]);
  }
};

/// Sums of `width` columns over up to `rows_per_team` rows, in a fixed order.
struct SumRows {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128, width = 9, rows_per_team = 1024;
  const double* from = nullptr;  ///< [rows][width]
  double* to = nullptr;          ///< [teams][width]
  int rows = 0;

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    auto sum = team.template local<Array<double, width>>();
    const int begin = static_cast<int>(team.index()) * rows_per_team, end = begin + rows_per_team < rows ? begin + rows_per_team : rows;
    team.each([&](int lane) {
      ADATOM_UNROLL
      for (int a = 0; a < width; ++a) sum[lane][a] = 0.0;
      for (int r = begin + lane; r < end; r += warp_size) ADATOM_UNROLL
      for (int a = 0; a < width; ++a) sum[lane][a] += from[std::size_t(r) * width + a];
    });
    team.warps([&](const Warp& warp) { warp.sum_to(sum, to + team.index() * width); });
  }
};

}  // namespace adatom::gnn::cuda
