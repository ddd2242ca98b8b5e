// SPDX-License-Identifier: MIT
// Evaluates a network on a graph: the loops over chunks, tiles and layers around the kernels.
//
// Forward, layer by layer: for each tile (some nodes of a chunk and their edges) convolution, linear map, update, readout. The last layer goes straight
// on into its reverse pass while the tile is in cache, then the other layers are reversed from last to first. What is kept per atom between
// passes: edge vectors, messages (input of the nonlinear update), sender features and their adjoints. Geometry and radial functions are recomputed.
#pragma once
#include <omp.h>

#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>

#include "gnn/cpu/topology.hpp"
#include "gnn/cpu/weights.hpp"
#include "gnn/kernels/contract.hpp"
#include "gnn/kernels/element_convolve.hpp"
#include "gnn/kernels/gate.hpp"
#include "gnn/kernels/spherical_harmonics.hpp"

namespace adatom::gnn::cpu {

/// S: scalar; W: width of a vector; RB: rows of a linear map that registers hold.
template <class S, int W, int RB>
class CpuEvaluator final : public Evaluator {
 public:
  explicit CpuEvaluator(std::shared_ptr<const Network> network) : network_(std::move(network)), lms_((network_->l_max + 1) * (network_->l_max + 1)) {
    for (const Layer& layer : network_->layers) {
      layers_.emplace_back(*network_, layer);
      int widest = network_->radial.basis.size();
      for (const MlpLayer& l : layer.radial_mlp) widest = std::max(widest, l.out + 1);
      if (layers_.back().z_size > longest_z || widest > widest_mlp || layer.element_functions > 256 ||
          static_cast<int>(layer.contraction.inputs.size()) > max_contraction_inputs ||
          static_cast<int>(layer.contraction.products.size()) > max_contraction_products)
        throw std::runtime_error("model: a layer is wider than the CPU backend's buffers (hidden radial layers of at most 256 in the first layer and " +
                                 std::to_string(widest_mlp) + " in others, messages of at most " + std::to_string(max_contraction_inputs) + " components)");
    }
    states_.resize(layers_.size());
  }

  void evaluate(const Graph& graph, GraphResult& result, Halo* halo) override {
    const int threads = threads_ > 0 ? threads_ : omp_get_max_threads();
    prepare(graph, threads, result);
    form_edges(graph, threads);
    const int last = static_cast<int>(layers_.size()) - 1;
    for (int t = 0; t <= last; ++t) {
      if (t > 0 && halo) halo->forward(states_[t].u.data(), layers_[t].spec->conv_layout.size * sizeof(S));
      run_chunks(threads, [&](int chunk, Workspace& w) { forward(graph, t, chunk, w, t == last); });
    }
    for (int t = last - 1; want_forces_ && t >= 0; --t) {
      sum_adjoints(graph, t + 1, threads, halo);
      run_chunks(threads, [&](int chunk, Workspace& w) { reverse(graph, t, chunk, w); });
    }
    collect(graph, result, threads);
    flops_ = count_flops(graph);
  }

  EvaluatorCounters counters() const override {
    EvaluatorCounters c;
    c.flops_per_step = flops_;
    std::size_t bytes = topology_.bytes() + bytes_of(vectors_) + bytes_of(sender_) + bytes_of(slot_) + bytes_of(active_) + bytes_of(energies_) +
                        bytes_of(slot_forces_) + bytes_of(slot_virials_) + bytes_of(slot_gu_) + bytes_of(gu_);
    for (const State& s : states_) bytes += bytes_of(s.u) + bytes_of(s.h) + bytes_of(s.gh) + bytes_of(s.message) + bytes_of(s.density);
    for (const Workspace& w : workspaces_) bytes += w.bytes();
    c.workspace_bytes = bytes;
    return c;
  }

  void set_threads(int threads) override { threads_ = threads; }

 private:
  using T = Base<S>;
  using L = Lane<S, W>;
  using N = typename L::Number;
  using Sum = std::conditional_t<is_dual<S>, Dual<double>, double>;  // what sums over atoms and edges are formed in
  static constexpr int tile_nodes = 16;
  static constexpr std::size_t tile_bytes = 384 * 1024;
  static constexpr int longest_z = 1024, widest_mlp = 1024;

  /// What is kept of a layer between its forward and its reverse pass; h, u, gh belong to the features that enter the layer.
  struct State {
    std::vector<S> u;        ///< [nodes] sender features
    std::vector<S> h;        ///< [receivers] features
    std::vector<S> gh;       ///< [receivers] adjoint of the features
    std::vector<S> message;  ///< [receivers] input of the update
    std::vector<S> density;  ///< [receivers] 1 / (1 + sum of edge densities)
  };

  struct Workspace {
    std::vector<S> record, adjoint, A, B, message, gmessage, contracted, gcontracted, features, gfeatures, phi, slopes, rows, row_slopes, readout;
    std::vector<S> edge_density;  ///< value and slope per edge
    std::vector<int> knot, first_edge, run_first, run_species, run_node, order;
    std::vector<const S*> x;
    std::vector<S*> y;
    std::vector<int> edge, group;  ///< of form_edges
    std::vector<double> vectors;
    std::vector<Sum> hidden;       ///< of readouts
    double* virial = nullptr;      ///< [9] of the chunk in work

    std::size_t bytes() const {
      std::size_t n = 0;
      for (const auto* v : {&record, &adjoint, &A, &B, &message, &gmessage, &contracted, &gcontracted, &features, &gfeatures, &phi, &slopes, &rows, &row_slopes,
                            &readout, &edge_density})
        n += bytes_of(*v);
      return n + bytes_of(knot) + bytes_of(first_edge) + bytes_of(run_first) + bytes_of(x) + bytes_of(y) + bytes_of(edge) + bytes_of(group) + bytes_of(vectors);
    }
  };

  /// The part of a chunk that is worked on at once.
  struct Tile {
    int first, last;        ///< receivers
    std::int64_t slots;     ///< the chunk's first slot
    EdgeTile<S> edges;
    EdgeRuns runs;
  };

  template <class V>
  static std::size_t bytes_of(const V& v) { return v.capacity() * sizeof(typename V::value_type); }
  /// Grows only, so that a steady step allocates nothing.
  template <class V>
  static auto* need(V& v, std::size_t n) {
    if (v.size() < n) v.resize(n);
    return v.data();
  }
  static S lane_of(const N& x, int i) {
    if constexpr (is_dual<S>)
      return S(x.v[i], x.d[i]);
    else
      return x[i];
  }
  static void set_lane(N& x, int i, S s) {
    if constexpr (is_dual<S>)
      x.v.v[i] = s.v, x.d.v[i] = s.d;
    else
      x.v[i] = s;
  }

  // ------------------------------------------------------------------------------------------------------------ set-up
  void prepare(const Graph& g, int threads, const GraphResult& result) {
    if constexpr (is_dual<S>)
      if (!g.position_tangents) throw std::invalid_argument("a derivative along positions needs position_tangents");
    if (g.revision == 0 || g.revision != topology_.revision || static_cast<int>(topology_.receiver_slot.size()) != g.n_receivers ||
        static_cast<int>(topology_.node_first.size()) != g.n_nodes + 1)
      topology_.build(g);
    if (static_cast<int>(workspaces_.size()) < threads) workspaces_.resize(threads);
    const std::size_t edges = g.n_receivers ? static_cast<std::size_t>(g.first_edge[g.n_receivers]) : 0, receivers = g.n_receivers, nodes = g.n_nodes;
    need(vectors_, 3 * edges);
    need(sender_, edges);
    need(slot_, edges);
    need(active_, receivers);
    need(energies_, receivers);
    need(slot_forces_, 3 * topology_.slots());
    need(chunk_virials_, 9 * topology_.chunks.size());
    if (result.atom_virials) need(slot_virials_, 9 * topology_.slots());
    std::size_t widest = 0;
    for (std::size_t t = 0; t < layers_.size(); ++t) {
      const Layer& spec = *layers_[t].spec;
      State& s = states_[t];
      if (t > 0) {
        need(s.u, nodes * spec.conv_layout.size);
        need(s.h, receivers * spec.in_layout.size);
        need(s.gh, receivers * spec.in_layout.size);
        widest = std::max<std::size_t>(widest, spec.conv_layout.size);
      }
      if (t + 1 < layers_.size()) {
        need(s.message, receivers * spec.message_layout.size);
        if (!spec.density.empty()) need(s.density, receivers);
      }
    }
    need(slot_gu_, topology_.slots() * widest);
    need(gu_, nodes * widest);
    want_forces_ = result.forces || result.want_virial || result.atom_virials || result.force_tangents;
    want_virial_ = result.want_virial;
    want_atom_virials_ = result.atom_virials != nullptr;
  }

  template <class Body>
  void run_chunks(int threads, Body body) {
    const int chunks = static_cast<int>(topology_.chunks.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int chunk = 0; chunk < chunks; ++chunk) {
      Workspace& w = workspaces_[omp_get_thread_num()];
      w.virial = &chunk_virials_[9 * std::size_t(chunk)];
      body(chunk, w);
    }
  }

  // ------------------------------------------------------------------------------------------------------------- edges
  /// Vectors of the edges within the cutoff, those of a node grouped by the element of their sender; repulsion of close pairs.
  void form_edges(const Graph& g, int threads) {
    std::atomic<int> bad{std::numeric_limits<int>::max()}, coincident{std::numeric_limits<int>::max()};
    std::fill(chunk_virials_.begin(), chunk_virials_.end(), 0.0);
    run_chunks(threads, [&](int chunk, Workspace& w) {
      const Topology::Chunk& c = topology_.chunks[chunk];
      const std::int64_t slots = topology_.end_slot(chunk) - c.first_slot;
      std::fill_n(&slot_forces_[3 * c.first_slot], 3 * slots, Sum(0));
      if (want_atom_virials_) std::fill_n(&slot_virials_[9 * c.first_slot], 9 * slots, 0.0);
      for (int i = c.first; i < c.last; ++i) {
        const int status = form_edges_of(g, i, c.first_slot, w);
        if (status == 1) lower(bad, i);
        if (status == 2) lower(coincident, i);
      }
    });
    if (bad < g.n_receivers)
      throw std::invalid_argument("the position of atom " + std::to_string(bad) + " or of one of its neighbours is not finite (NaN or infinite)");
    if (coincident < g.n_receivers)
      throw std::invalid_argument("atom " + std::to_string(coincident) + " and one of its neighbours are on the same spot; move one of them");
  }

  static void lower(std::atomic<int>& x, int i) {
    int seen = x.load();
    while (i < seen && !x.compare_exchange_weak(seen, i)) {
    }
  }

  int form_edges_of(const Graph& g, int i, std::int64_t first_slot, Workspace& w) {
    const std::int64_t begin = g.first_edge[i], end = g.first_edge[i + 1];
    const double* xi = g.positions + 3 * std::size_t(i);
    const double limit = network_->cutoff * network_->cutoff;
    // Edges of a node are ordered by the element of their sender (runs of the first layer), then roughly by distance, so that neighbours in the list read
    // neighbouring rows of the spline tables.
    const int species = network_->species(), bins = species <= 8 ? 64 : 1;
    int* edge = need(w.edge, 2 * (end - begin));
    int* bin = edge + (end - begin);
    int* group = need(w.group, species * bins + 1);
    double* d = need(w.vectors, 3 * (end - begin));
    std::fill(group, group + species * bins + 1, 0);
    const double bins_per_area = bins / limit;
    int n = 0;
    if (!(xi[0] - xi[0] == 0.0 && xi[1] - xi[1] == 0.0 && xi[2] - xi[2] == 0.0)) {
      active_[i] = 0;
      return 1;
    }
    for (std::int64_t e = begin; e < end; ++e) {
      const double* xj = g.positions + 3 * std::size_t(g.sender[e]);
      double v[3] = {xj[0] - xi[0], xj[1] - xi[1], xj[2] - xi[2]};
      if (g.shift) {
        const double* s = g.shifts + 3 * std::size_t(g.shift[e]);
        v[0] += s[0], v[1] += s[1], v[2] += s[2];
      }
      const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
      if (r2 < limit) {
        if (r2 < 1e-12) return active_[i] = 0, 2;
        edge[n] = static_cast<int>(e - begin);
        d[3 * n] = v[0], d[3 * n + 1] = v[1], d[3 * n + 2] = v[2];
        bin[n] = g.species[g.sender[e]] * bins + std::min(static_cast<int>(r2 * bins_per_area), bins - 1);
        ++group[bin[n] + 1];
        ++n;
      } else if (!(r2 < std::numeric_limits<double>::max())) {
        return active_[i] = 0, 1;
      }
    }
    active_[i] = n;
    for (int b = 0; b < species * bins; ++b) group[b + 1] += group[b];
    Sum energy(0);
    for (int k = 0; k < n; ++k) {
      const std::int64_t e = begin + edge[k];
      const int j = g.sender[e], zj = g.species[j];
      const std::int64_t to = begin + group[bin[k]]++;
      sender_[to] = j;
      slot_[to] = topology_.edge_slot[e];
      Sum v[3];
      for (int a = 0; a < 3; ++a) {
        if constexpr (is_dual<S>)
          v[a] = Sum(d[3 * k + a], g.position_tangents[3 * std::size_t(j) + a] - g.position_tangents[3 * std::size_t(i) + a]);
        else
          v[a] = d[3 * k + a];
        vectors_[3 * to + a] = to_scalar(v[a]);
      }
      if (network_->repels) energy = energy + repel(g, i, zj, v, slot_[to], first_slot, w);
    }
    energies_[i] = energy;
    return 0;
  }

  static S to_scalar(Sum x) {
    if constexpr (is_dual<S>)
      return S(static_cast<T>(x.v), static_cast<T>(x.d));
    else
      return static_cast<S>(x);
  }

  Sum repel(const Graph& g, int i, int zj, const Sum (&v)[3], int slot, std::int64_t first_slot, Workspace& w) {
    const Network& n = *network_;
    const int zi = g.species[i];
    const double radii = n.radii[zi] + n.radii[zj];
    const Sum r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    if (!(value(r) < radii)) return Sum(0);
    const Dual<Sum> e = pair_repulsion(n.repulsion, Dual<Sum>(r, Sum(1)), n.elements[zi], n.elements[zj], Dual<Sum>(Sum(radii)));
    if (want_forces_) {
      Sum f[3];
      for (int a = 0; a < 3; ++a) f[a] = e.d * n.scale[zi] * v[a] / r;
      add_force(i, slot, first_slot, v, f, w);
    }
    return e.v;
  }

  /// f = dE/dr_ij of an edge.
  void add_force(int i, int slot, std::int64_t first_slot, const Sum (&v)[3], const Sum (&f)[3], Workspace& w) {
    Sum* to = &slot_forces_[3 * (first_slot + slot)];
    Sum* from = &slot_forces_[3 * (first_slot + topology_.receiver_slot[i])];
    for (int a = 0; a < 3; ++a) {
      to[a] = to[a] - f[a];
      from[a] = from[a] + f[a];
    }
    if (want_virial_)
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) w.virial[3 * a + b] -= value(v[a]) * value(f[b]);
    if (want_atom_virials_) {
      double* vt = &slot_virials_[9 * (first_slot + slot)];
      double* vf = &slot_virials_[9 * (first_slot + topology_.receiver_slot[i])];
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
          const double x = -0.5 * value(v[a]) * value(f[b]);
          vt[3 * a + b] += x;
          vf[3 * a + b] += x;
        }
    }
  }

  // ------------------------------------------------------------------------------------------------------------- tiles
  int record_size(int t) const { return record_Y + lms_ + layers_[t].z_size; }
  int adjoint_size(int t) const { return lms_ + 1 + layers_[t].z_size; }

  /// Calls body(tile) for the tiles of a chunk, with the records of layer t filled in.
  template <class Body>
  void for_tiles(const Graph& g, int t, int chunk, Workspace& w, Body body) {
    const Topology::Chunk& c = topology_.chunks[chunk];
    // As many nodes as keep the records of their edges in the second-level cache.
    const std::size_t per_node = std::max<std::size_t>(1, std::size_t(topology_.longest) * (record_size(t) + adjoint_size(t)) * sizeof(S));
    const int nodes = std::clamp(static_cast<int>(tile_bytes / per_node), 1, tile_nodes);
    for (int first = c.first; first < c.last; first += nodes) {
      Tile tile{first, std::min(first + nodes, c.last), c.first_slot, {}, {}};
      fill(g, t, tile, w);
      body(tile);
    }
  }

  void fill(const Graph& g, int t, Tile& tile, Workspace& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Network& network = *network_;
    const int nodes = tile.last - tile.first;
    int* first_edge = need(w.first_edge, nodes + 1);
    first_edge[0] = 0;
    for (int i = 0; i < nodes; ++i) first_edge[i + 1] = first_edge[i] + active_[tile.first + i];
    const int edges = first_edge[nodes], size = record_size(t), adjoint = adjoint_size(t);
    // Senders and slots of the tile, contiguous: reuse the group buffers.
    int* sender = need(w.edge, 2 * std::size_t(edges) + 1);
    int* slot = sender + edges;
    int* receiver = need(w.order, edges + 1);
    S* vectors = need(w.readout, 3 * std::size_t(edges) + 3 * W);
    for (int i = 0; i < nodes; ++i) {
      const std::int64_t from = g.first_edge[tile.first + i];
      for (int k = 0; k < active_[tile.first + i]; ++k) {
        const int e = first_edge[i] + k;
        sender[e] = sender_[from + k];
        slot[e] = slot_[from + k];
        receiver[e] = tile.first + i;
        for (int a = 0; a < 3; ++a) vectors[3 * std::size_t(e) + a] = vectors_[3 * (from + k) + a];
      }
    }
    S* record = need(w.record, std::size_t(size) * edges);
    std::fill_n(need(w.adjoint, std::size_t(adjoint) * edges), std::size_t(adjoint) * edges, S(T(0)));
    int* knot = need(w.knot, edges);
    const bool density = !layer.spec->density.empty();
    if (density) need(w.edge_density, 2 * std::size_t(edges));
    if (!network.splines) {
      need(w.phi, std::size_t(edges) * layer.spec->hidden);
      need(w.slopes, std::size_t(edges) * layer.spec->hidden);
    }
    N column[record_Y + 16 + longest_z];
    for (int e = 0; e < edges; e += W) {
      const int lanes = std::min(W, edges - e);
      N v[3];
      for (int a = 0; a < 3; ++a)
        for (int k = 0; k < W; ++k) set_lane(v[a], k, vectors[3 * std::size_t(e + std::min(k, lanes - 1)) + a]);
      const N r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), length = network.solid_harmonics ? N(T(1)) : T(1) / r;
      spherical_harmonics(network.l_max, v[0] * length, v[1] * length, v[2] * length, column + record_Y);
      if (network.splines) {
        spline_columns(g, layer.table, r, receiver + e, sender + e, lanes, column, knot + e);
        if (density) density_from_table(g, layer.density_table, r, receiver + e, sender + e, lanes, &w.edge_density[2 * std::size_t(e)]);
      } else {
        for (int n = 0; n < 2 * spline_taps; ++n) column[n] = N(T(0));
        for (int k = 0; k < lanes; ++k) knot[e + k] = 0;
        exact_radial(g, layer, r, receiver + e, sender + e, lanes, e, w);
      }
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
      for (int k = 0; k < lanes; ++k) {
        S* row = record + std::size_t(e + k) * size;
        for (int n = 0; n < size; ++n) row[n] = lane_of(column[n], k);
      }
    }
    tile.edges = {nodes, first_edge, sender, slot, knot, record, size, w.adjoint.data(), adjoint};
    if (!network.splines && t > 0) {  // all radial functions of the tile's edges
      const int columns = layer.radial_matrix.out;
      need(w.rows, std::size_t(edges) * columns);
      need(w.row_slopes, std::size_t(edges) * columns);
      for (const bool slope : {false, true}) {
        need(w.x, edges);
        need(w.y, edges);
        for (int e = 0; e < edges; ++e) {
          w.x[e] = (slope ? w.slopes : w.phi).data() + std::size_t(e) * layer.spec->hidden;
          w.y[e] = (slope ? w.row_slopes : w.rows).data() + std::size_t(e) * columns;
        }
        linear<S, W, RB>(edges, w.x.data(), 0, w.y.data(), 0, layer.radial_matrix, false);
      }
    }
    if (t == 0) {  // runs of equal senders' elements
      int* run_first = need(w.run_first, edges + 1);
      need(w.run_species, edges);
      need(w.run_node, edges);
      int runs = 0;
      for (int i = 0; i < nodes; ++i)
        for (int e = first_edge[i]; e < first_edge[i + 1]; ++e) {
          const int z = g.species[sender[e]];
          if (e == first_edge[i] || z != w.run_species[runs - 1]) {
            run_first[runs] = e;
            w.run_species[runs] = z;
            w.run_node[runs++] = i;
          }
        }
      run_first[runs] = edges;
      tile.runs = {runs, run_first};
    }
  }

  int pair_of(const Graph& g, int i, int j) const { return network_->pair(g.species[i], g.species[j]); }

  void spline_columns(const Graph& g, const PackedTable<T>& table, N r, const int* receiver, const int* sender, int lanes, N* column, int* knot) const {
    N x = r;
    Vec<T, W> inverse_h(T(0));
    for (int k = 0; k < lanes; ++k) {
      const auto& segment = table.segments[table.segments.size() > 1 && value(lane_of(r, k)) >= T(table.segments[1].begin) ? 1 : 0];
      const S u = (lane_of(r, k) - T(segment.begin)) * T(segment.inverse_h);
      const int at = std::clamp(static_cast<int>(value(u)), 0, segment.last);
      set_lane(x, k, u - T(at));
      inverse_h.v[k] = T(segment.inverse_h);
      knot[k] = (segment.first + at + static_cast<int>(pair_of(g, receiver[k], sender[k]) * table.pair_rows)) * 16;
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
        sum = sum + lane_of(column[record_weights + n], k) * c;
        slope = slope + lane_of(column[record_slopes + n], k) * c;
      }
      out[2 * k] = sum;
      out[2 * k + 1] = slope;
    }
  }

  /// phi and its derivative by the MLP itself, lanes are edges.
  void exact_radial(const Graph& g, const PackedLayer<T>& layer, N r, const int* receiver, const int* sender, int lanes, int e, Workspace& w) {
    using D = Dual<N>;
    const Network& network = *network_;
    D x[widest_mlp], scratch[widest_mlp];
    N radii(T(0));
    if (network.radial.depends_on_pair())
      for (int k = 0; k < W; ++k) {
        const int kk = std::min(k, lanes - 1);
        set_lane(radii, k, S(static_cast<T>(network.radii[g.species[receiver[kk]]] + network.radii[g.species[sender[kk]]])));
      }
    const D factor = radial_basis(network.radial, D(r, N(T(1))), D(radii), x);
    int size = network.radial.basis.size();
    if (!layer.spec->density.empty()) {
      D d(N(T(0)));
      for (int n = 0; n < size; ++n) d = d + x[n] * layer.spec->density[n];
      d = tanh(d * d) * factor;
      for (int k = 0; k < lanes; ++k) {
        w.edge_density[2 * std::size_t(e + k)] = lane_of(d.v, k);
        w.edge_density[2 * std::size_t(e + k) + 1] = lane_of(d.d, k);
      }
    }
    hidden_layers(layer.spec->radial_mlp, layer.spec->radial_activation, x, scratch, size);
    for (int n = 0; n < size; ++n) x[n] = x[n] * factor;
    if (layer.spec->radial_constant) x[size++] = factor;
    for (int k = 0; k < lanes; ++k) {
      S* phi = &w.phi[std::size_t(e + k) * layer.spec->hidden];
      S* slope = &w.slopes[std::size_t(e + k) * layer.spec->hidden];
      for (int n = 0; n < layer.spec->hidden; ++n) {
        phi[n] = n < size ? lane_of(x[n].v, k) : S(T(0));
        slope[n] = n < size ? lane_of(x[n].d, k) : S(T(0));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------- linear maps
  enum class Direction { forward, reverse };

  /// y (+)= map(x) for `nodes` nodes; x and y give each node's features. `accumulate`: add to y.
  void apply(const PackedMap<T>& map, Direction direction, int nodes, const S* const* x, S* const* y, const int* species, bool accumulate, Workspace& w) const {
    need(w.group, 2 * std::size_t(nodes) + network_->species() + 1);
    for (const PackedPart<T>& p : map.parts) {
      const auto& matrices = direction == Direction::forward ? p.forward : p.reverse;
      const int in = direction == Direction::forward ? p.in : p.out, in_row = direction == Direction::forward ? p.in_row : p.out_row;
      const int out = direction == Direction::forward ? p.out : p.in, out_row = direction == Direction::forward ? p.out_row : p.in_row;
      need(row_x(w), std::size_t(nodes) * p.rows);
      need(row_y(w), std::size_t(nodes) * p.rows);
      for (std::size_t z = 0; z < matrices.size(); ++z) {
        int rows = 0;
        for (int i = 0; i < nodes; ++i) {
          if (matrices.size() > 1 && species[i] != static_cast<int>(z)) continue;
          for (int m = 0; m < p.rows; ++m) {
            row_x(w)[rows] = x[i] + m * in_row;
            row_y(w)[rows++] = y[i] + m * out_row;
          }
        }
        if (rows) linear<S, W, RB>(rows, row_x(w).data(), in, row_y(w).data(), out, matrices[z], accumulate);
      }
    }
    if (direction == Direction::forward && !map.bias.empty())
      for (int i = 0; i < nodes; ++i)
        for (std::size_t k = 0; k < map.bias.size(); ++k) y[i][map.bias_offset + k] = y[i][map.bias_offset + k] + map.bias[k];
  }
  static std::vector<const S*>& row_x(Workspace& w) { return w.x; }
  static std::vector<S*>& row_y(Workspace& w) { return w.y; }

  // -------------------------------------------------------------------------------------------------------- convolution
  template <class Rows>
  void convolve_path(const Tile& tile, const ConvolutionPath& p, const PathRows<S>& rows, const Rows& radial, bool reverse_pass) const {
    dispatch_degree(p.l1, [&](auto l1) {
      dispatch_degree(p.l3, [&](auto l3) {
        constexpr int L1 = decltype(l1)::value, L3 = decltype(l3)::value;
        if (reverse_pass) {
          convolve_reverse<S, W, L1, L3>(tile.edges, rows, radial);
        } else {
          constexpr int U = L3 == 0 ? 4 : L3 <= 1 ? 2 : 1;
          if (rows.channels % (U * W) == 0)
            convolve<S, W, L1, L3, U>(tile.edges, rows, radial);
          else
            convolve<S, W, L1, L3, 1>(tile.edges, rows, radial);
        }
      });
    });
  }
  template <class F>
  static void dispatch_degree(int l, F f) {
    switch (l) {
      case 0: return f(std::integral_constant<int, 0>{});
      case 1: return f(std::integral_constant<int, 1>{});
      case 2: return f(std::integral_constant<int, 2>{});
      case 3: return f(std::integral_constant<int, 3>{});
    }
  }

  /// Forward: fills A [node of the tile][mid]. Reverse: A is its adjoint; adds to the edges' adjoints and to slot_gu_.
  void convolve_all(int t, const Tile& tile, S* A, bool reverse_pass, const Workspace& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    int z = record_Y + lms_, gz = lms_ + 1;
    for (const ConvolutionPath& p : spec.paths) {
      PathRows<S> rows{};
      rows.h = states_[t].u.data() + p.in;
      rows.h_stride = spec.conv_layout.size;
      rows.h_row = p.in_row;
      rows.A = A + p.out;
      rows.A_stride = spec.mid_layout.size;
      rows.A_row = p.out_row;
      rows.gh = reverse_pass ? slot_gu_.data() + tile.slots * spec.conv_layout.size + p.in : nullptr;
      rows.gh_stride = spec.conv_layout.size;
      rows.channels = p.channels;
      rows.z = p.l1 == 0 ? record_Y + p.l3 * p.l3 : z;
      rows.gz = p.l1 == 0 ? p.l3 * p.l3 : gz;
      rows.gr = lms_;
      if (network_->splines)
        convolve_path(tile, p, rows, SplineRows<T>{layer.table.data.data() + (p.radial / 16) * layer.table.block, layer.table.block}, reverse_pass);
      else
        convolve_path(tile, p, rows, StoredRows<S>{w.rows.data() + p.radial, w.row_slopes.data() + p.radial, layer.radial_matrix.out}, reverse_pass);
      if (p.l1 > 0) {
        const int count = (2 * p.l1 + 1) * (2 * p.l3 + 1);
        z += count;
        gz += count;
      }
    }
  }

  template <class F>
  void with_element_rows(const Workspace& w, F f) const {
    const PackedLayer<T>& layer = layers_[0];
    const auto run = [&](const auto& rows) {
      switch (network_->l_max) {
        case 0: return f(std::integral_constant<int, 0>{}, rows);
        case 1: return f(std::integral_constant<int, 1>{}, rows);
        case 2: return f(std::integral_constant<int, 2>{}, rows);
        default: return f(std::integral_constant<int, 3>{}, rows);
      }
    };
    if (network_->splines)
      run(SplineRows<T>{layer.table.data.data(), layer.table.block});
    else
      run(StoredRows<S>{w.phi.data(), w.slopes.data(), layer.spec->hidden});
  }

  /// Message of the first layer from B, or the adjoint of B from that of the message. One run is the edges of a node to one element.
  void element_linear(const Graph& g, const Tile& tile, Direction direction, S* B, S* message, Workspace& w) {
    const Layer& spec = *layers_[0].spec;
    const auto& maps = layers_[0].element_linear;
    const std::size_t b_size = std::size_t(lms_) * spec.element_functions;
    const int runs = tile.runs.runs;
    need(w.x, std::size_t(runs) * 7);
    need(w.y, std::size_t(runs) * 7);
    const std::size_t message_size = spec.message_layout.size;
    // Runs of one element (and receivers of one, where the map depends on it) share a matrix. A node has at most one run per element, so rows never clash.
    for (std::size_t zi = 0; zi < maps.size(); ++zi)
      for (std::size_t zj = 0; zj < maps[zi].size(); ++zj)
        for (const PackedPart<T>& p : maps[zi][zj].parts) {
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

  // ------------------------------------------------------------------------------------------------------------ forward
  void forward(const Graph& g, int t, int chunk, Workspace& w, bool last) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    if (last && t > 0) zero_adjoints(t, chunk);
    for_tiles(g, t, chunk, w, [&](Tile& tile) {
      const int nodes = tile.last - tile.first;
      const int* species = g.species + tile.first;
      const std::size_t message_size = spec.message_layout.size;
      S* message = last ? need(w.message, nodes * message_size) : &states_[t].message[tile.first * message_size];
      const S *px[tile_nodes] = {}, *ph[tile_nodes] = {};
      S *py[tile_nodes] = {}, *pz[tile_nodes] = {};
      for (int i = 0; i < nodes; ++i) pz[i] = message + i * message_size;
      if (t == 0) {
        const std::size_t b_size = std::size_t(lms_) * spec.element_functions;
        S* B = need(w.B, tile.runs.runs * b_size);
        with_element_rows(w, [&](auto lmax, const auto& rows) {
          element_convolve<S, W, decltype(lmax)::value>(tile.edges, tile.runs, rows, spec.element_functions, B);
        });
        std::fill_n(message, nodes * message_size, S(T(0)));
        element_linear(g, tile, Direction::forward, B, message, w);
        apply(layer.linear, Direction::forward, nodes, px, pz, species, false, w);  // only its bias
      } else {
        S* A = need(w.A, nodes * std::size_t(spec.mid_layout.size));
        convolve_all(t, tile, A, false, w);
        for (int i = 0; i < nodes; ++i) px[i] = A + i * std::size_t(spec.mid_layout.size);
        if (layer.linear.parts.size() < spec.message_layout.blocks.size()) std::fill_n(message, nodes * message_size, S(T(0)));
        apply(layer.linear, Direction::forward, nodes, px, pz, species, false, w);
      }
      S inverse_density[tile_nodes] = {};
      if (!spec.density.empty())
        for (int i = 0; i < nodes; ++i) {
          S sum(T(1));
          for (int e = tile.edges.first_edge[i]; e < tile.edges.first_edge[i + 1]; ++e) sum = sum + w.edge_density[2 * std::size_t(e)];
          inverse_density[i] = T(1) / sum;
          for (std::size_t k = 0; k < message_size; ++k) pz[i][k] = pz[i][k] * inverse_density[i];
          if (!last) states_[t].density[tile.first + i] = inverse_density[i];
        }

      // Update: message -> features after the layer.
      const std::size_t out_size = spec.out_layout.size, in_size = spec.in_layout.size;
      S* out = last ? need(w.features, nodes * out_size) : &states_[t + 1].h[tile.first * out_size];
      S* gout = last ? need(w.gfeatures, nodes * out_size) : &states_[t + 1].gh[tile.first * out_size];
      for (int i = 0; i < nodes; ++i) {
        py[i] = out + i * out_size;
        if (t > 0) ph[i] = &states_[t].h[(tile.first + i) * in_size];
      }
      if (spec.contracts) {
        S* contracted = need(w.contracted, nodes * std::size_t(spec.contraction.out.size));
        contract_all(layer, nodes, species, message, contracted);
        for (int i = 0; i < nodes; ++i) px[i] = contracted + i * std::size_t(spec.contraction.out.size);
        if (layer.product.parts.size() < spec.out_layout.blocks.size()) std::fill_n(out, nodes * out_size, S(T(0)));
        apply(layer.product, Direction::forward, nodes, px, py, species, false, w);
        add_skip(layer, nodes, ph, py, species, out_size, w);
      } else {
        add_skip(layer, nodes, ph, pz, species, message_size, w);
        for (int i = 0; i < nodes; ++i) gate<S, W>(spec.gate, pz[i], py[i]);
      }
      std::fill_n(gout, nodes * out_size, S(T(0)));
      if (spec.has_readout)
        for (int i = 0; i < nodes; ++i) readout(layer.readout, py[i], gout + i * out_size, network_->scale[species[i]], tile.first + i, w);
      if (!last) {
        const std::size_t u_size = layers_[t + 1].spec->conv_layout.size;
        for (int i = 0; i < nodes; ++i) px[i] = py[i], pz[i] = &states_[t + 1].u[(tile.first + i) * u_size];
        if (layers_[t + 1].up.parts.size() < layers_[t + 1].spec->conv_layout.blocks.size())
          for (int i = 0; i < nodes; ++i) std::fill_n(pz[i], u_size, S(T(0)));
        apply(layers_[t + 1].up, Direction::forward, nodes, px, pz, species, false, w);
      } else if (want_forces_) {
        reverse_tile(g, t, tile, message, gout, inverse_density, w);
      }
    });
  }

  void add_skip(const PackedLayer<T>& layer, int nodes, const S* const* h, S* const* y, const int* species, std::size_t size, Workspace& w) const {
    if (!layer.skip.empty()) apply(layer.skip, Direction::forward, nodes, h, y, species, true, w);
    if (!layer.skip_bias.empty())
      for (int i = 0; i < nodes; ++i)
        for (std::size_t k = 0; k < size; ++k) y[i][k] = y[i][k] + layer.skip_bias[species[i]][k];
  }

  /// Sorts the tile's nodes by element and calls body(element, list, count) for up to 4 at a time.
  template <class Body>
  void by_element(int nodes, const int* species, Body body) const {
    int list[tile_nodes];
    for (int z = 0; z < network_->species(); ++z) {
      int n = 0;
      for (int i = 0; i < nodes; ++i)
        if (species[i] == z) list[n++] = i;
      if (n) body(z, list, n);
    }
  }

  /// Calls body(element, k, inputs, nodes) for every group of nodes of one element and every vector of channels.
  template <class Body>
  void for_contractions(const PackedLayer<T>& layer, int nodes, const int* species, const S* message, Body body) const {
    const Contraction& c = layer.spec->contraction;
    const std::size_t in = layer.spec->message_layout.size;
    by_element(nodes, species, [&](int z, const int* list, int n) {
      for (int k = 0; k < c.channels; k += W) {
        const S* x[4];
        int b = 0;
        const auto point = [&](int count) {
          for (int q = 0; q < count; ++q) x[q] = message + list[b + q] * in + k;
        };
        for (; b + 4 <= n; b += 4) point(4), body(z, k, ContractionInputs<S, W, 4>(c, x), list + b);
        for (; b < n; ++b) point(1), body(z, k, ContractionInputs<S, W, 1>(c, x), list + b);
      }
    });
  }
  template <int NB>
  using Group = std::integral_constant<int, NB>;
  template <int NB>
  static Group<NB> group_of(const ContractionInputs<S, W, NB>&) { return {}; }

  /// Contracted features from the messages; with keeps_gradient the messages are replaced by the gradients.
  void contract_all(const PackedLayer<T>& layer, int nodes, const int* species, S* message, S* contracted) const {
    const Contraction& c = layer.spec->contraction;
    const std::size_t in = layer.spec->message_layout.size, out = c.out.size;
    for_contractions(layer, nodes, species, message, [&](int z, int k, const auto& inputs, const int* list) {
      constexpr int NB = decltype(group_of(inputs))::value;
      for (const PackedComponent<T>& p : layer.components) {
        S* y[NB];
        for (int q = 0; q < NB; ++q) y[q] = contracted + list[q] * out + p.out + k;
        contract<S, W, NB>(inputs, *p.value.rows, p.value.at(z, k), y);
      }
      if (!layer.keeps_gradient) return;
      const PackedComponent<T>& p = layer.components[0];
      S* y[NB];
      for (int q = 0; q < NB; ++q) {
        y[q] = message + list[q] * in + k;
        for (const int offset : c.inputs) L::store(y[q] + offset, N(T(0)));
      }
      contract_gradient<S, W, NB>(inputs, *p.gradient.rows, p.gradient.at(z, k), c.inputs.data(), y);
    });
  }

  /// Adjoint of the messages (zero before). `message`: as contract_all left it.
  void contract_all_reverse(const PackedLayer<T>& layer, int nodes, const int* species, const S* message, const S* gcontracted, S* gmessage) const {
    const Contraction& c = layer.spec->contraction;
    const std::size_t in = layer.spec->message_layout.size, out = c.out.size;
    if (layer.keeps_gradient) {
      for (int i = 0; i < nodes; ++i) {
        const S* g = gcontracted + i * out + layer.components[0].out;
        for (const int offset : c.inputs) {
          const S* x = message + i * in + offset;
          S* to = gmessage + i * in + offset;
          for (int k = 0; k < c.channels; k += W) L::store(to + k, L::load(g + k) * L::load(x + k));
        }
      }
      return;
    }
    for_contractions(layer, nodes, species, message, [&](int z, int k, const auto& inputs, const int* list) {
      constexpr int NB = decltype(group_of(inputs))::value;
      for (const PackedComponent<T>& p : layer.components) {
        const S* g[NB];
        S* gx[NB];
        for (int q = 0; q < NB; ++q) g[q] = gcontracted + list[q] * out + p.out + k, gx[q] = gmessage + list[q] * in + k;
        contract_reverse<S, W, NB>(inputs, *p.gradient.rows, p.gradient.at(z, k), c.inputs.data(), g, gx);
      }
    });
  }

  /// Adds to the node's energy, and scale * dE/dh to g.
  void readout(const PackedReadout<T>& r, const S* h, S* g, double scale, int node, Workspace& w) {
    // In double, with weights in double: the energy of an atom is a small sum of large terms.
    Sum* pre = need(w.hidden, 3 * r.hidden);  // inputs of the activations, then their outputs, then adjoints
    Sum* post = pre + r.hidden;
    Sum* adjoint = post + r.hidden;
    const std::size_t first = r.rows.size();
    for (std::size_t o = 0; o < first; ++o) {
      Sum sum[8] = {};
      for (int c = 0; c < r.channels; c += 8)
        for (int k = 0; k < 8; ++k) sum[k] = sum[k] + widen(h[r.in + c + k]) * r.exact_rows[o][c + k];
      pre[o] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])) + r.bias[o];
    }
    std::size_t at = 0;
    for (const ReadoutLayer& l : r.layers) {  // the others: few scalars
      for (int i = 0; i < l.in; ++i) post[at + i] = activate(r.activation, pre[at + i]);
      for (int o = 0; o < l.out; ++o) {
        Sum sum(l.bias.empty() ? 0.0 : l.bias[o]);
        for (int i = 0; i < l.in; ++i) sum = sum + post[at + i] * l.weight[std::size_t(i) * l.out + o];
        pre[at + l.in + o] = sum;
      }
      at += l.in;
    }
    energies_[node] = energies_[node] + pre[at];
    if (!want_forces_) return;
    adjoint[at] = Sum(scale);
    for (std::size_t n = r.layers.size(); n-- > 0;) {
      const ReadoutLayer& l = r.layers[n];
      for (int i = 0; i < l.in; ++i) {
        Sum sum(0), y, slope;
        for (int o = 0; o < l.out; ++o) sum = sum + adjoint[at + o] * l.weight[std::size_t(i) * l.out + o];
        activate_with_slope(r.activation, pre[at - l.in + i], y, slope);
        adjoint[at - l.in + i] = sum * slope;
      }
      at -= l.in;
    }
    for (int c = 0; c < r.channels; c += W) {
      N sum = L::load(g + r.in + c);
      for (std::size_t o = 0; o < first; ++o) sum = sum + L::load(&r.rows[o][c]) * to_scalar(adjoint[o]);
      L::store(g + r.in + c, sum);
    }
  }
  static Sum widen(S x) {
    if constexpr (is_dual<S>)
      return Sum(x.v, x.d);
    else
      return x;
  }

  // ------------------------------------------------------------------------------------------------------------ reverse
  void zero_adjoints(int t, int chunk) {
    const std::size_t size = layers_[t].spec->conv_layout.size;
    const std::int64_t first = topology_.chunks[chunk].first_slot;
    std::fill(slot_gu_.begin() + first * size, slot_gu_.begin() + topology_.end_slot(chunk) * size, S(T(0)));
  }

  /// gu_[node] = sum of the node's slots in slot_gu_, for layer t; ghosts' rows are added to their owners'.
  void sum_adjoints(const Graph& g, int t, int threads, Halo* halo) {
    const int size = layers_[t].spec->conv_layout.size;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int n = 0; n < g.n_nodes; ++n) {
      S* to = &gu_[std::size_t(n) * size];
      std::fill(to, to + size, S(T(0)));
      for (std::int64_t s = topology_.node_first[n]; s < topology_.node_first[n + 1]; ++s) {
        const S* from = &slot_gu_[topology_.node_slot[s] * size];
        for (int k = 0; k < size; k += W) L::store(to + k, L::load(to + k) + L::load(from + k));
      }
    }
    if (halo) halo->reverse(gu_.data(), size * sizeof(S), sizeof(T));
  }

  /// Layer t < last: adjoint of its output features, then of everything before.
  void reverse(const Graph& g, int t, int chunk, Workspace& w) {
    const PackedLayer<T>& next = layers_[t + 1];
    const Layer& spec = *layers_[t].spec;
    if (t > 0) zero_adjoints(t, chunk);
    for_tiles(g, t, chunk, w, [&](Tile& tile) {
      const int nodes = tile.last - tile.first;
      const std::size_t out_size = spec.out_layout.size, u_size = next.spec->conv_layout.size;
      S* gout = &states_[t + 1].gh[tile.first * out_size];
      const S* px[tile_nodes];
      S* py[tile_nodes];
      for (int i = 0; i < nodes; ++i) px[i] = &gu_[(tile.first + i) * u_size], py[i] = gout + i * out_size;
      apply(next.up, Direction::reverse, nodes, px, py, g.species + tile.first, true, w);
      S* density = spec.density.empty() ? nullptr : &states_[t].density[tile.first];
      reverse_tile(g, t, tile, &states_[t].message[tile.first * std::size_t(spec.message_layout.size)], gout, density, w);
    });
  }

  void reverse_tile(const Graph& g, int t, Tile& tile, const S* message, S* gout, const S* inverse_density, Workspace& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    const int nodes = tile.last - tile.first;
    const int* species = g.species + tile.first;
    const std::size_t message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size;
    S* gmessage = need(w.gmessage, nodes * message_size);
    const S *px[tile_nodes], *pm[tile_nodes];
    S* py[tile_nodes];
    if (spec.contracts) {
      const std::size_t c_size = spec.contraction.out.size;
      S* gcontracted = need(w.gcontracted, nodes * c_size);
      for (int i = 0; i < nodes; ++i) px[i] = gout + i * out_size, py[i] = gcontracted + i * c_size, pm[i] = px[i];
      apply(layer.product, Direction::reverse, nodes, px, py, species, false, w);
      std::fill_n(gmessage, nodes * message_size, S(T(0)));
      contract_all_reverse(layer, nodes, species, message, gcontracted, gmessage);
    } else {
      for (int i = 0; i < nodes; ++i) {
        gate_reverse<S, W>(spec.gate, message + i * message_size, gout + i * out_size, gmessage + i * message_size);
        pm[i] = gmessage + i * message_size;
      }
    }
    if (!layer.skip.empty()) {
      for (int i = 0; i < nodes; ++i) py[i] = &states_[t].gh[(tile.first + i) * in_size];
      apply(layer.skip, Direction::reverse, nodes, pm, py, species, true, w);
    }
    if (inverse_density && !spec.density.empty())
      for (int i = 0; i < nodes; ++i) {
        // m = raw / (1 + rho): dE/drho = -sum m dE/dm / (1 + rho), dE/draw = dE/dm / (1 + rho).
        S grho(T(0));
        for (std::size_t k = 0; k < message_size; ++k) {
          S& gm = gmessage[i * message_size + k];
          grho = grho - gm * message[i * message_size + k];
          gm = gm * inverse_density[i];
        }
        grho = grho * inverse_density[i];
        for (int e = tile.edges.first_edge[i]; e < tile.edges.first_edge[i + 1]; ++e) {
          S& gr = tile.edges.adjoint[std::size_t(e) * tile.edges.adjoint_size + lms_];
          gr = gr + grho * w.edge_density[2 * std::size_t(e) + 1];
        }
      }
    if (t == 0) {
      const std::size_t b_size = std::size_t(lms_) * spec.element_functions;
      S* B = need(w.B, tile.runs.runs * b_size);
      if (spec.message_layout.blocks.size() < std::size_t(network_->l_max + 1)) std::fill_n(B, tile.runs.runs * b_size, S(T(0)));
      element_linear(g, tile, Direction::reverse, B, gmessage, w);
      with_element_rows(w, [&](auto lmax, const auto& rows) {
        element_convolve_reverse<S, W, decltype(lmax)::value>(tile.edges, tile.runs, rows, spec.element_functions, B, lms_);
      });
    } else {
      const std::size_t mid = spec.mid_layout.size;
      S* A = need(w.A, nodes * mid);
      if (layer.linear.parts.size() < spec.mid_layout.blocks.size()) std::fill_n(A, nodes * mid, S(T(0)));
      for (int i = 0; i < nodes; ++i) px[i] = gmessage + i * message_size, py[i] = A + i * mid;
      apply(layer.linear, Direction::reverse, nodes, px, py, species, false, w);
      convolve_all(t, tile, A, true, w);
    }
    edge_forces(g, t, tile, w);
  }

  /// From the adjoints of harmonics and radius to forces and virials.
  void edge_forces(const Graph& g, int t, const Tile& tile, Workspace& w) {
    const Layer& spec = *layers_[t].spec;
    const int size = tile.edges.adjoint_size;
    const int edges = tile.edges.first_edge[tile.edges.nodes];
    const int* receiver = w.order.data();
    for (int e = 0; e < edges; e += W) {
      const int lanes = std::min(W, edges - e);
      N v[3], gY[16], gr;
      std::int64_t at[W];
      for (int k = 0; k < W; ++k) {
        const int kk = e + std::min(k, lanes - 1), i = receiver[kk];
        at[k] = g.first_edge[i] + (kk - tile.edges.first_edge[i - tile.first]);
        const S* adjoint = tile.edges.adjoint + std::size_t(kk) * size;
        for (int a = 0; a < 3; ++a) set_lane(v[a], k, vectors_[3 * at[k] + a]);
        for (int lm = 0; lm < lms_; ++lm) set_lane(gY[lm], k, adjoint[lm]);
        set_lane(gr, k, adjoint[lms_]);
      }
      int gz = lms_ + 1;
      for (const ConvolutionPath& p : spec.paths) {
        if (p.l1 == 0) continue;
        const int n3 = 2 * p.l3 + 1, count = (2 * p.l1 + 1) * n3;
        for (const CouplingTerm& c : p.coupling) {
          N x;
          for (int k = 0; k < W; ++k) set_lane(x, k, tile.edges.adjoint[std::size_t(e + std::min(k, lanes - 1)) * size + gz + c.m1 * n3 + c.m3]);
          gY[p.l2 * p.l2 + c.m2] = gY[p.l2 * p.l2 + c.m2] + x * T(c.c);
        }
        gz += count;
      }
      const N r = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), inverse = T(1) / r;
      const N x = v[0] * inverse, y = v[1] * inverse, z = v[2] * inverse;
      N f[3];
      if (network_->solid_harmonics) {
        spherical_harmonics_reverse(network_->l_max, v[0], v[1], v[2], gY, f);
        f[0] = f[0] + gr * x, f[1] = f[1] + gr * y, f[2] = f[2] + gr * z;
      } else {  // of the direction: only what is normal to it counts
        N gv[3];
        spherical_harmonics_reverse(network_->l_max, x, y, z, gY, gv);
        const N radial = gr - (gv[0] * x + gv[1] * y + gv[2] * z) * inverse;
        f[0] = gv[0] * inverse + radial * x, f[1] = gv[1] * inverse + radial * y, f[2] = gv[2] * inverse + radial * z;
      }
      for (int k = 0; k < lanes; ++k) {
        Sum vector[3], force[3];
        for (int a = 0; a < 3; ++a) vector[a] = widen(lane_of(v[a], k)), force[a] = widen(lane_of(f[a], k));
        add_force(receiver[e + k], tile.edges.slot[e + k], tile.slots, vector, force, w);
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------------ results
  void collect(const Graph& g, GraphResult& result, int threads) {
    result.energy = 0.0;
    for (int i = 0; i < g.n_receivers; ++i) {
      const int z = g.species[i];
      const double e = network_->energy_offset[z] + network_->scale[z] * value(energies_[i]);
      result.energy += e;
      if (result.energies) result.energies[i] = e;
    }
    std::fill(std::begin(result.virial), std::end(result.virial), 0.0);
    if (want_virial_)
      for (std::size_t c = 0; c < topology_.chunks.size(); ++c)
        for (int a = 0; a < 9; ++a) result.virial[a] += chunk_virials_[9 * c + a];
    if (!want_forces_) return;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int n = 0; n < g.n_nodes; ++n) {
      Sum f[3] = {Sum(0), Sum(0), Sum(0)};
      double v[9] = {};
      for (std::int64_t s = topology_.node_first[n]; s < topology_.node_first[n + 1]; ++s) {
        const std::int64_t slot = topology_.node_slot[s];
        for (int a = 0; a < 3; ++a) f[a] = f[a] + slot_forces_[3 * slot + a];
        if (want_atom_virials_)
          for (int a = 0; a < 9; ++a) v[a] += slot_virials_[9 * slot + a];
      }
      for (int a = 0; a < 3; ++a) {
        if (result.forces) result.forces[3 * std::size_t(n) + a] = value(f[a]);
        if constexpr (is_dual<S>)
          if (result.force_tangents) result.force_tangents[3 * std::size_t(n) + a] = f[a].d;
      }
      if (want_atom_virials_) std::copy(v, v + 9, result.atom_virials + 9 * std::size_t(n));
    }
  }

  /// Counted from the bounds of the loops over lanes; a multiply-add is 2. Geometry, spline weights and gates are left out.
  double count_flops(const Graph& g) const {
    double edges = 0.0;
    for (int i = 0; i < g.n_receivers; ++i) edges += active_[i];
    const double nodes = g.n_receivers, taps = 2.0 * spline_taps;
    double flops = 0.0;
    const auto of_map = [](const LinearMap& map) {
      double f = 0.0;
      for (const LinearPart& p : map.parts) f += 2.0 * p.ir.dim() * p.matrices[0].in * p.matrices[0].out;
      return f;
    };
    for (std::size_t t = 0; t < layers_.size(); ++t) {
      const Layer& l = *layers_[t].spec;
      const double reverse = want_forces_ ? 1.0 : 0.0, both = 1.0 + reverse;
      if (t == 0) {
        const double c = l.element_functions;
        flops += edges * c * (taps + 2 * lms_ + reverse * (2 * taps + 4 * lms_ + 2));
        flops += nodes * both * of_map(l.element_linear[0][0]);
      }
      for (const ConvolutionPath& p : l.paths) {
        const double n1 = 2 * p.l1 + 1, n3 = 2 * p.l3 + 1;
        flops += edges * p.channels * (taps + n1 + 2 * n1 * n3 + reverse * (2 * taps + 4 * n1 * n3 + 5 * n1 + 2));
      }
      flops += nodes * both * (of_map(l.up) + of_map(l.linear) + of_map(l.product) + of_map(l.skip));
      const double per_channel = nodes * l.contraction.channels;
      const double products = static_cast<double>(l.contraction.products.size());
      flops += per_channel * products * (layers_[t].keeps_gradient ? 1.0 : both);
      for (const ContractionComponent& c : l.contraction.components)
        flops += 2.0 * per_channel * (double(c.value.coefficients) + (reverse > 0 ? double(c.gradient.coefficients) : 0.0));
    }
    return flops;
  }

  std::shared_ptr<const Network> network_;
  int lms_;  // number of harmonics
  std::vector<PackedLayer<T>> layers_;
  Topology topology_;
  int threads_ = 0;
  bool want_forces_ = true, want_virial_ = false, want_atom_virials_ = false;

  // Edges within the cutoff: those of receiver i lie at first_edge[i] .. first_edge[i] + active_[i] - 1.
  std::vector<S> vectors_;   // [edges][3]
  std::vector<int> sender_, slot_;
  std::vector<int> active_;  // [receivers]
  std::vector<Sum> energies_;       // [receivers], before scale and offset
  std::vector<Sum> slot_forces_;    // [slots][3]
  std::vector<double> slot_virials_;  // [slots][9]
  std::vector<double> chunk_virials_; // [chunks][9]
  std::vector<S> slot_gu_, gu_;
  std::vector<State> states_;
  std::vector<Workspace> workspaces_;
  double flops_ = 0.0;
};

}  // namespace adatom::gnn::cpu
