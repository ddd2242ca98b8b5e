// SPDX-License-Identifier: MIT
// The records of a tile's edges: spline weights, harmonics and what a layer's paths make of them; and, on the way back, forces from their adjoints.
//
// Geometry has lanes of edges, convolutions have lanes of channels: records are transposed in between.
#pragma once
#include "gnn/cpu/edges.hpp"
#include "gnn/cpu/weights.hpp"
#include "gnn/kernels/spherical_harmonics.hpp"

namespace adatom::gnn::cpu {

template <class S, int W, int RB>
class TileMaker {
 public:
  using T = Base<S>;
  using L = Lane<S, W>;
  using N = typename L::Number;
  static constexpr int longest_record = 1024, widest_mlp = 1024;

  TileMaker(const Network& network, const Topology& topology, EdgeList<S>& edges)
      : network_(network), topology_(topology), edges_(edges), lms_((network.l_max + 1) * (network.l_max + 1)) {}

  int harmonics() const { return lms_; }
  /// Scalars per edge; whole vectors, so that rows can be transposed.
  int record_size(const PackedLayer<T>& layer) const { return (record_Y + lms_ + layer.z_size + W - 1) / W * W; }
  int adjoint_size(const PackedLayer<T>& layer) const { return (lms_ + 1 + layer.z_size + W - 1) / W * W; }

  /// Throws std::runtime_error if a layer is larger than the buffers.
  void check(const PackedLayer<T>& layer) const {
    int widest = network_.radial.basis.size();
    for (const MlpLayer& l : layer.spec->radial_mlp) widest = std::max(widest, l.out + 1);
    if (record_size(layer) > longest_record || widest > widest_mlp)
      throw std::runtime_error("model: a layer is wider than the CPU backend's buffers (hidden radial layers of at most " + std::to_string(widest_mlp - 1) +
                               ")");
  }

  /// Calls body(tile) for the tiles of a chunk, with the records of a layer filled in.
  template <class Body>
  void for_tiles(const Graph& g, const PackedLayer<T>& layer, int chunk, Workspace<S>& w, Body body) const {
    const Topology::Chunk& c = topology_.chunks[chunk];
    // As many nodes as keep the records of their edges in the second-level cache.
    const std::size_t per_node = std::max<std::size_t>(1, std::size_t(topology_.longest) * (record_size(layer) + adjoint_size(layer)) * sizeof(S));
    const int nodes = std::clamp(static_cast<int>(tile_bytes / per_node), 1, tile_nodes);
    for (int first = c.first; first < c.last; first += nodes) {
      Tile<S> tile{first, std::min(first + nodes, c.last), c.first_slot, nullptr, {}, {}, topology_.longest};
      fill(g, layer, tile, w);
      body(tile);
    }
  }

  /// From the adjoints of harmonics and radius to forces and virials.
  void edge_forces(const Graph& g, const PackedLayer<T>& layer, const Tile<S>& tile, Workspace<S>& w) const {
    const int size = tile.edges.adjoint_size, edges = tile.edge_count();
    N column[longest_record];
    for (int e = 0; e < edges; e += W) {
      const int lanes = std::min(W, edges - e);
      N v[3];
      load_vectors(g, tile, e, lanes, v);
      for (int at = 0; at < size; at += W) {
        N block[W];
        for (int k = 0; k < W; ++k) block[k] = L::load(tile.edges.adjoint + std::size_t(e + std::min(k, lanes - 1)) * size + at);
        transpose(block);
        for (int k = 0; k < W; ++k) column[at + k] = block[k];
      }
      N* gY = column;
      const N gr = column[lms_];
      int gz = lms_ + 1;
      for (const ConvolutionPath& p : layer.spec->paths) {
        if (p.l1 == 0) continue;
        const int n3 = 2 * p.l3 + 1;
        for (const CouplingTerm& c : p.coupling) gY[p.l2 * p.l2 + c.m2] = gY[p.l2 * p.l2 + c.m2] + column[gz + c.m1 * n3 + c.m3] * T(c.c);
        gz += (2 * p.l1 + 1) * n3;
      }
      const N r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), inverse = T(1) / r;
      const N x = v[0] * inverse, y = v[1] * inverse, z = v[2] * inverse;
      N f[3];
      if (network_.solid_harmonics) {
        spherical_harmonics_reverse(network_.l_max, v[0], v[1], v[2], gY, f);
        f[0] = f[0] + gr * x, f[1] = f[1] + gr * y, f[2] = f[2] + gr * z;
      } else {  // of the direction: only what is normal to it counts
        N gv[3];
        spherical_harmonics_reverse(network_.l_max, x, y, z, gY, gv);
        const N radial = gr - (gv[0] * x + gv[1] * y + gv[2] * z) * inverse;
        f[0] = gv[0] * inverse + radial * x, f[1] = gv[1] * inverse + radial * y, f[2] = gv[2] * inverse + radial * z;
      }
      for (int k = 0; k < lanes; ++k) {
        SumOf<S> vector[3], force[3];
        for (int a = 0; a < 3; ++a) vector[a] = widen(element(v[a], k)), force[a] = widen(element(f[a], k));
        edges_.add_force(tile.receiver[e + k], tile.edges.slot[e + k], tile.slots, vector, force, w);
      }
    }
  }

  /// Adds to the gradient of a density table, [row][16] of its pairs, from the adjoints of the edges' densities.
  void density_gradient(const Graph& g, const PackedTable<T>& table, const Tile<S>& tile, const S* adjoint_of_node, T* gradient) const {
    if constexpr (is_dual<S>) {
      const int edges = tile.edge_count();
      for (int e = 0; e < edges; e += W) {
        const int lanes = std::min(W, edges - e);
        N column[2 * spline_taps];
        int knot[W];
        spline_columns(g, table, distance(g, tile, e, lanes), tile.receiver + e, tile.edges.sender + e, lanes, column, knot);
        for (int k = 0; k < lanes; ++k)
          for (int n = 0; n < spline_taps; ++n)
            gradient[knot[k] + 16 * n] += tangent_of_product(element(column[record_weights + n], k), adjoint_of_node[tile.receiver[e + k] - tile.first]);
      }
    }
  }

 private:
  static constexpr std::size_t tile_bytes = 384 * 1024;

  N distance(const Graph& g, const Tile<S>& tile, int e, int lanes) const {
    N v[3];
    load_vectors(g, tile, e, lanes, v);
    return sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  }
  void load_vectors(const Graph& g, const Tile<S>& tile, int e, int lanes, N (&v)[3]) const {
    for (int k = 0; k < W; ++k) {
      const int kk = e + std::min(k, lanes - 1), i = tile.receiver[kk];
      const S* vector = edges_.vectors(g.first_edge[i] + (kk - tile.edges.first_edge[i - tile.first]));
      for (int a = 0; a < 3; ++a) set_element(v[a], k, vector[a]);
    }
  }

  void fill(const Graph& g, const PackedLayer<T>& layer, Tile<S>& tile, Workspace<S>& w) const {
    const int nodes = tile.size();
    int* first_edge = need(w.first_edge, nodes + 1);
    first_edge[0] = 0;
    for (int i = 0; i < nodes; ++i) first_edge[i + 1] = first_edge[i] + edges_.active(tile.first + i);
    const int edges = first_edge[nodes], size = record_size(layer), adjoint = adjoint_size(layer);
    const std::size_t most = tile.most_edges();
    int* sender = need(w.sender, most + 1);
    int* slot = need(w.slot, most + 1);
    int* receiver = need(w.receiver, most + 1);
    for (int i = 0; i < nodes; ++i) {
      const std::int64_t from = g.first_edge[tile.first + i];
      const int count = edges_.active(tile.first + i);
      std::copy_n(edges_.senders(from), count, sender + first_edge[i]);
      std::copy_n(edges_.slots(from), count, slot + first_edge[i]);
      std::fill_n(receiver + first_edge[i], count, tile.first + i);
    }
    S* record = need(w.record, size * most);
    std::fill_n(need(w.adjoint, adjoint * most), std::size_t(adjoint) * edges, S(T(0)));
    int* knot = need(w.knot, most);
    tile.receiver = receiver;
    tile.edges = {nodes, first_edge, sender, slot, knot, record, size, w.adjoint.data(), adjoint};
    const bool density = !layer.spec->density.empty();
    if (density) need(w.edge_density, 2 * most);
    if (!network_.splines) {
      need(w.phi, most * layer.spec->hidden);
      need(w.slopes, most * layer.spec->hidden);
    }
    N column[longest_record];
    for (int k = record_Y + lms_ + layer.z_size; k < size; ++k) column[k] = N(T(0));
    for (int e = 0; e < edges; e += W) {
      const int lanes = std::min(W, edges - e);
      N v[3];
      load_vectors(g, tile, e, lanes, v);
      const N r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), length = network_.solid_harmonics ? N(T(1)) : T(1) / r;
      spherical_harmonics(network_.l_max, v[0] * length, v[1] * length, v[2] * length, column + record_Y);
      if (network_.splines) {
        spline_columns(g, layer.table, r, receiver + e, sender + e, lanes, column, knot + e);
        if (density) density_from_table(g, layer.density_table, r, receiver + e, sender + e, lanes, w.edge_density.data() + 2 * std::size_t(e));
      } else {
        for (int n = 0; n < 2 * spline_taps; ++n) column[n] = N(T(0));
        for (int k = 0; k < lanes; ++k) knot[e + k] = 0;
        exact_radial(g, layer, r, receiver + e, sender + e, lanes, e, w);
      }
      couple(layer, column);
      for (int at = 0; at < size; at += W) {
        N block[W];
        for (int k = 0; k < W; ++k) block[k] = column[at + k];
        transpose(block);
        S* row = record + std::size_t(e) * size + at;
        for (int k = 0; k < lanes; ++k, row += size) L::store(row, block[k]);
      }
    }
    if (!network_.splines && !layer.spec->merged()) all_radial(layer, tile, w);
    if (layer.spec->merged()) find_runs(g, tile, w);
  }

  /// Z of the paths with l1 > 0.
  void couple(const PackedLayer<T>& layer, N* column) const {
    int z = record_Y + lms_;
    for (const ConvolutionPath& p : layer.spec->paths) {
      if (p.l1 == 0) continue;
      const int n3 = 2 * p.l3 + 1, count = (2 * p.l1 + 1) * n3;
      for (int k = 0; k < count; ++k) column[z + k] = N(T(0));
      for (const CouplingTerm& c : p.coupling) {
        N& to = column[z + c.m1 * n3 + c.m3];
        to = to + column[record_Y + p.l2 * p.l2 + c.m2] * T(c.c);
      }
      z += count;
    }
  }

  /// Runs of equal senders' elements.
  void find_runs(const Graph& g, Tile<S>& tile, Workspace<S>& w) const {
    const int edges = tile.edge_count();
    int* run_first = need(w.run_first, tile.most_edges() + 1);
    need(w.run_species, tile.most_edges());
    need(w.run_node, tile.most_edges());
    int runs = 0;
    for (int i = 0; i < tile.size(); ++i)
      for (int e = tile.edges.first_edge[i]; e < tile.edges.first_edge[i + 1]; ++e) {
        const int z = g.species[tile.edges.sender[e]];
        if (e == tile.edges.first_edge[i] || z != w.run_species[runs - 1]) {
          run_first[runs] = e;
          w.run_species[runs] = z;
          w.run_node[runs++] = i;
        }
      }
    run_first[runs] = edges;
    tile.runs = {runs, run_first};
  }

  void spline_columns(const Graph& g, const PackedTable<T>& table, N r, const int* receiver, const int* sender, int lanes, N* column, int* knot) const {
    N x = r;
    Vec<T, W> inverse_h(T(0));
    for (int k = 0; k < lanes; ++k) {
      const auto& segment = table.segments[table.segments.size() > 1 && value(element(r, k)) >= T(table.segments[1].begin) ? 1 : 0];
      const S u = (element(r, k) - T(segment.begin)) * T(segment.inverse_h);
      const int at = std::clamp(static_cast<int>(value(u)), 0, segment.last);
      set_element(x, k, u - T(at));
      inverse_h.v[k] = T(segment.inverse_h);
      const int pair = network_.pair(g.species[receiver[k]], g.species[sender[k]]);
      knot[k] = (segment.first + at + static_cast<int>(pair * table.pair_rows)) * 16;
    }
    N weights[spline_taps], slopes[spline_taps];
    spline_weights(x, inverse_h, weights, slopes);
    for (int n = 0; n < spline_taps; ++n) column[record_weights + n] = weights[n], column[record_slopes + n] = slopes[n];
  }

  void density_from_table(const Graph& g, const PackedTable<T>& table, N r, const int* receiver, const int* sender, int lanes, S* out) const {
    N column[2 * spline_taps];
    int knot[W];
    spline_columns(g, table, r, receiver, sender, lanes, column, knot);
    for (int k = 0; k < lanes; ++k) {
      S sum(T(0)), slope(T(0));
      for (int n = 0; n < spline_taps; ++n) {
        const T c = table.data[knot[k] + 16 * n];
        sum = sum + element(column[record_weights + n], k) * c;
        slope = slope + element(column[record_slopes + n], k) * c;
      }
      out[2 * k] = sum;
      out[2 * k + 1] = slope;
    }
  }

  /// Without splines, phi and its derivative by the MLP itself.
  void exact_radial(const Graph& g, const PackedLayer<T>& layer, N r, const int* receiver, const int* sender, int lanes, int e, Workspace<S>& w) const {
    using D = Dual<N>;
    D x[widest_mlp], scratch[widest_mlp];
    N radii(T(0));
    if (network_.radial.depends_on_pair())
      for (int k = 0; k < W; ++k) {
        const int kk = std::min(k, lanes - 1);
        set_element(radii, k, S(static_cast<T>(network_.radii[g.species[receiver[kk]]] + network_.radii[g.species[sender[kk]]])));
      }
    const D factor = radial_basis(network_.radial, D(r, N(T(1))), D(radii), x);
    int size = network_.radial.basis.size();
    if (!layer.spec->density.empty()) {
      D d(N(T(0)));
      for (int n = 0; n < size; ++n) d = d + x[n] * layer.spec->density[n];
      d = tanh(d * d) * factor;
      for (int k = 0; k < lanes; ++k) {
        w.edge_density[2 * std::size_t(e + k)] = element(d.v, k);
        w.edge_density[2 * std::size_t(e + k) + 1] = element(d.d, k);
      }
    }
    hidden_layers(layer.spec->radial_mlp, layer.spec->radial_activation, x, scratch, size);
    for (int n = 0; n < size; ++n) x[n] = x[n] * factor;
    if (layer.spec->radial_constant) x[size++] = factor;
    for (int k = 0; k < lanes; ++k) {
      S* phi = w.phi.data() + std::size_t(e + k) * layer.spec->hidden;
      S* slope = w.slopes.data() + std::size_t(e + k) * layer.spec->hidden;
      for (int n = 0; n < layer.spec->hidden; ++n) {
        phi[n] = n < size ? element(x[n].v, k) : S(T(0));
        slope[n] = n < size ? element(x[n].d, k) : S(T(0));
      }
    }
  }

  /// Without splines, all radial functions of the tile's edges from phi.
  void all_radial(const PackedLayer<T>& layer, const Tile<S>& tile, Workspace<S>& w) const {
    const int columns = layer.radial_matrix.out, edges = tile.edge_count();
    need(w.rows, tile.most_edges() * columns);
    need(w.row_slopes, tile.most_edges() * columns);
    for (const bool slope : {false, true}) {
      need(w.x, tile.most_edges());
      need(w.y, tile.most_edges());
      for (int e = 0; e < edges; ++e) {
        w.x[e] = (slope ? w.slopes : w.phi).data() + std::size_t(e) * layer.spec->hidden;
        w.y[e] = (slope ? w.row_slopes : w.rows).data() + std::size_t(e) * columns;
      }
      linear<S, W, RB>(edges, w.x.data(), 0, w.y.data(), 0, layer.radial_matrix, false);
    }
  }

  const Network& network_;
  const Topology& topology_;
  EdgeList<S>& edges_;
  int lms_;  // number of harmonics
};

}  // namespace adatom::gnn::cpu
