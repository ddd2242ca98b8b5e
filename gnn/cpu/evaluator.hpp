// SPDX-License-Identifier: MIT
// Evaluates a network on a graph: the passes over layers, chunks and tiles.
//
// Forward, layer by layer: for each tile (some nodes of a chunk and their edges) convolution, linear map, update, readout. The last layer goes straight
// on into its reverse pass while the tile is in cache, then the other layers are reversed from last to first. What is kept per atom between
// passes: edge vectors, messages (input of the nonlinear update), sender features and their adjoints. Geometry and radial functions are recomputed.
//
// A pass for the weights' gradient runs through the same code in dual arithmetic; it forms no forces, and keeps the inputs of all linear maps.
#pragma once
#include <stdexcept>
#include <string>

#include "gnn/cpu/detect.hpp"
#include "gnn/cpu/flops.hpp"
#include "gnn/cpu/maps.hpp"
#include "gnn/cpu/tiles.hpp"
#include "gnn/cpu/update.hpp"

namespace adatom::gnn::cpu {

/// S: scalar; W: width of a vector; RB: rows of a linear map that registers hold.
template <class S, int W, int RB>
class CpuEvaluator final : public Evaluator {
 public:
  CpuEvaluator(std::shared_ptr<const Network> network, Threads& team)
      : network_(std::move(network)), team_(team), edges_(*network_, topology_), tiles_(*network_, topology_, edges_), gradients_(*network_) {
    pack();
    for (const auto& layer : layers_) {
      tiles_.check(layer);
      if (layer.spec->element_functions > 256)
        throw std::runtime_error("model: a layer is wider than the CPU backend's buffers (first hidden radial layers of at most 256)");
    }
    states_.resize(layers_.size());
  }

  void evaluate(const Graph& graph, GraphResult& result, Halo* halo) override {
    if constexpr (is_dual<S>)
      if (!graph.position_tangents) throw std::invalid_argument("a derivative along positions needs position_tangents");
    wanted_ = {result.forces || result.want_virial || result.atom_virials || result.force_tangents, result.want_virial, result.atom_virials != nullptr};
    features_ = {result.features, result.feature_tangents};
    detected_ = {result.member_energies, result.force_std, result.distances, result.whitened};
    if (detected_.wanted() && (is_dual<S> || !network_->detectors)) throw std::invalid_argument("the network has no detectors of uncertainty");
    run(graph, {graph.position_tangents, 1.0, nullptr, nullptr}, halo);
    edges_.collect(graph, result, team_, threads());
    flops_ = count_flops(graph);
  }

  void weight_gradient(const Graph& graph, const LossGradient& loss, ArrayGradients& gradient) override {
    if constexpr (is_dual<S>) {
      if (!network_->trainable) throw std::logic_error("the network was not assembled for training");
      wanted_ = {false, false, false};
      features_ = {};
      detected_ = {};
      gradients_.clear();
      {
        struct Scope {  // also of an exception
          CpuEvaluator& own;
          ~Scope() { own.loss_ = nullptr; }
        } scope{*this};
        loss_ = &loss;
        run(graph, {loss.forces, -1.0, loss.strains, loss.structure}, nullptr);
      }
      gradients_.collect(gradient, team_, threads());
    } else {
      (void)graph, (void)loss, (void)gradient;
      throw std::logic_error("gradients of weights need dual scalars");
    }
  }

  void refresh() override { pack(); }

  EvaluatorCounters counters() const override {
    EvaluatorCounters c;
    c.flops_per_step = flops_;
    std::size_t bytes = topology_.bytes() + edges_.bytes() + gradients_.bytes() + bytes_of(slot_gu_) + bytes_of(gu_);
    for (const State& s : states_)
      bytes += bytes_of(s.u) + bytes_of(s.h) + bytes_of(s.gh) + bytes_of(s.message) + bytes_of(s.density) + bytes_of(s.A) + bytes_of(s.contracted);
    for (const auto& w : workspaces_) bytes += w.bytes();
    c.workspace_bytes = bytes;
    return c;
  }

  void set_threads(int threads) override { wanted_threads_ = threads; }

 private:
  using T = Base<S>;
  using L = Lane<S, W>;
  using N = typename L::Number;
  using Sum = SumOf<S>;

  /// What is kept of a layer between its forward and its reverse pass; h, u, gh belong to the features that enter the layer.
  struct State {
    AlignedVector<S> u;           ///< [nodes] sender features
    AlignedVector<S> h;           ///< [receivers] features
    AlignedVector<S> gh;          ///< [receivers] adjoint of the features
    AlignedVector<S> message;     ///< [receivers] input of the update
    AlignedVector<S> density;     ///< [receivers] 1 / (1 + sum of edge densities)
    AlignedVector<S> A;           ///< [receivers] for the weights' gradient: sums over edges
    AlignedVector<S> contracted;  ///< [receivers] the same: contraction of the message
  };

  void pack() {
    layers_.clear();
    for (const Layer& layer : network_->layers) layers_.emplace_back(*network_, layer);
    if (network_->detectors) detectors_ = PackedDetectors<T>(*network_->detectors);
  }
  int threads() const { return wanted_threads_ > 0 ? wanted_threads_ : team_.usual(); }
  int last() const { return static_cast<int>(layers_.size()) - 1; }
  bool keeps_inputs() const { return loss_ != nullptr; }
  const GradientBuffers<T>* buffers() const { return loss_ ? &gradients_ : nullptr; }

  // ----------------------------------------------------------------------------------------------------------- passes
  void run(const Graph& graph, const Tangents& tangents, Halo* halo) {
    const bool reverses = wanted_.forces || loss_;
    prepare(graph);
    run_chunks([&](int chunk, Workspace<S>& w) { edges_.form(graph, chunk, tangents, network_->repels && !loss_ && !graph.feature_weights, w); });
    const auto [bad, what] = edges_.fault(graph);
    if (halo)
      halo->agree(bad, what);
    else if (bad >= 0)
      throw std::invalid_argument("atom " + std::to_string(bad) + " " + what);
    for (int t = 0; t <= last(); ++t) {
      if (t > 0 && halo) halo->forward(states_[t].u.data(), layers_[t].spec->conv_layout.size * sizeof(S));
      run_chunks([&](int chunk, Workspace<S>& w) { forward(graph, t, chunk, reverses, w); });
    }
    for (int t = last() - 1; reverses && t >= 0; --t) {
      sum_adjoints(graph, t + 1, halo);
      run_chunks([&](int chunk, Workspace<S>& w) { reverse(graph, t, chunk, w); });
    }
    level(workspaces_);
    if (loss_) species_gradient(graph);
  }

  void prepare(const Graph& g) {
    if (g.revision == 0 || g.revision != topology_.revision || static_cast<int>(topology_.receiver_slot.size()) != g.n_receivers ||
        static_cast<int>(topology_.node_first.size()) != g.n_nodes + 1)
      topology_.build(g);
    if (static_cast<int>(workspaces_.size()) < threads()) workspaces_.resize(threads());
    edges_.prepare(g, wanted_);
    const std::size_t receivers = g.n_receivers, nodes = g.n_nodes;
    std::size_t widest = 0;
    for (std::size_t t = 0; t < layers_.size(); ++t) {
      const Layer& spec = *layers_[t].spec;
      State& s = states_[t];
      if (t > 0) {
        need(s.h, receivers * spec.in_layout.size);
        need(s.gh, receivers * spec.in_layout.size);
      }
      if (!spec.merged()) {
        need(s.u, nodes * spec.conv_layout.size);
        widest = std::max<std::size_t>(widest, spec.conv_layout.size);
      }
      if (t + 1 < layers_.size()) {
        need(s.message, receivers * spec.message_layout.size);
        if (!spec.density.empty()) need(s.density, receivers);
        if (keeps_inputs()) {
          need(s.A, receivers * spec.mid_layout.size);
          need(s.contracted, receivers * spec.contraction.out.size);
        }
      }
    }
    need(slot_gu_, topology_.slots() * widest);
    need(gu_, nodes * widest);
    const Layer& first = *layers_[0].spec;
    for (int n = 0; !first.merged() && n < g.n_nodes; ++n)
      std::copy_n(layers_[0].species_features[g.species[n]].data(), first.conv_layout.size, &states_[0].u[std::size_t(n) * first.conv_layout.size]);
  }

  /// Chunks are shared out to threads; with a loss whole groups of them are.
  template <class Body>
  void run_chunks(Body body) {
    const int chunks = static_cast<int>(topology_.chunks.size()), groups = loss_ ? std::min(GradientBuffers<T>::groups, chunks) : chunks;
    parallel_for(team_, threads(), groups, 1, [&](std::int64_t group, std::int64_t, int thread) {
      Workspace<S>& w = workspaces_[thread];
      if (loss_) w.gradient = gradients_.group(static_cast<int>(group));
      for (int chunk = int(group * chunks / groups); chunk < int((group + 1) * chunks / groups); ++chunk) {
        w.virial = edges_.virial(chunk);
        body(chunk, w);
      }
    });
  }

  void zero_adjoints(int t, int chunk) {
    const std::size_t size = layers_[t].spec->conv_layout.size;
    const std::int64_t first = topology_.chunks[chunk].first_slot;
    std::fill(slot_gu_.begin() + first * size, slot_gu_.begin() + topology_.end_slot(chunk) * size, S(T(0)));
  }

  /// gu_[node] = sum of the node's slots in slot_gu_, for layer t; ghosts' rows are added to their owners'.
  void sum_adjoints(const Graph& g, int t, Halo* halo) {
    const int size = layers_[t].spec->conv_layout.size;
    parallel_for_each(team_, threads(), g.n_nodes, [&](std::int64_t n) {
      S* to = gu_.data() + std::size_t(n) * size;
      std::fill(to, to + size, S(T(0)));
      for (std::int64_t s = topology_.node_first[n]; s < topology_.node_first[n + 1]; ++s) {
        const S* from = slot_gu_.data() + topology_.node_slot[s] * size;
        for (int k = 0; k < size; k += W) L::store(to + k, L::load(to + k) + L::load(from + k));
      }
    });
    if (halo) halo->reverse(gu_.data(), size * sizeof(S), sizeof(T));
  }

  /// Gradient of the senders' features of the first layer, which depend on their element alone.
  void species_gradient([[maybe_unused]] const Graph& g) {
    if constexpr (is_dual<S>) {
      sum_adjoints(g, 0, nullptr);
      const Layer& spec = *layers_[0].spec;
      const int size = spec.conv_layout.size;
      for (int n = 0; n < g.n_nodes; ++n) {
        T* to = gradients_.group(0) + gradients_.offset(spec.species_features_id) + std::size_t(g.species[n]) * size;
        for (int k = 0; k < size; ++k) to[k] += gu_[std::size_t(n) * size + k].d;
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------ convolution
  template <class F>
  static void dispatch_degree(int l, F f) {
    switch (l) {
      case 0: return f(std::integral_constant<int, 0>{});
      case 1: return f(std::integral_constant<int, 1>{});
      case 2: return f(std::integral_constant<int, 2>{});
      case 3: return f(std::integral_constant<int, 3>{});
    }
  }

  template <class Rows>
  void convolve_path(const EdgeTile<S>& edges, const ConvolutionPath& p, const PathRows<S>& rows, const Rows& radial, Direction direction) const {
    dispatch_degree(p.l1, [&](auto l1) {
      dispatch_degree(p.l3, [&](auto l3) {
        constexpr int L1 = decltype(l1)::value, L3 = decltype(l3)::value;
        if (direction == Direction::reverse) {
          convolve_reverse<S, W, L1, L3>(edges, rows, radial);
        } else {
          constexpr int U = L3 == 0 ? 4 : L3 <= 1 ? 2 : 1;
          if (rows.channels % (U * W) == 0)
            convolve<S, W, L1, L3, U>(edges, rows, radial);
          else
            convolve<S, W, L1, L3, 1>(edges, rows, radial);
        }
      });
    });
  }

  /// Forward: fills A [node of the tile][mid]. Reverse: A is its adjoint; adds to slot_gu_ and to the edges' adjoints, or to the weights' gradient.
  void convolve_all(int t, const Tile<S>& tile, S* A, Direction direction, const Workspace<S>& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    const int lms = tiles_.harmonics();
    int z = record_Y + lms, gz = lms + 1;
    for (const ConvolutionPath& p : spec.paths) {
      PathRows<S> rows{};
      rows.h = states_[t].u.data() + p.in;
      rows.h_stride = spec.conv_layout.size;
      rows.h_row = p.in_row;
      rows.A = A + p.out;
      rows.A_stride = spec.mid_layout.size;
      rows.A_row = p.out_row;
      rows.gh = direction == Direction::reverse ? slot_gu_.data() + tile.slots * spec.conv_layout.size + p.in : nullptr;
      rows.gh_stride = spec.conv_layout.size;
      rows.channels = p.channels;
      rows.z = p.l1 == 0 ? record_Y + p.l3 * p.l3 : z;
      rows.gz = p.l1 == 0 ? p.l3 * p.l3 : gz;
      rows.gr = lms;
      if (!network_->splines) {
        convolve_path(tile.edges, p, rows, StoredRows<S>{w.rows.data() + p.radial, w.row_slopes.data() + p.radial, layer.radial_matrix.out}, direction);
      } else {
        const SplineRows<T> table{layer.table.data.data() + (p.radial / 16) * layer.table.block, layer.table.block};
        if (direction == Direction::reverse && loss_)
          convolve_path_gradient(tile.edges, p, rows, table, spec.table, w);
        else
          convolve_path(tile.edges, p, rows, table, direction);
      }
      if (p.l1 > 0) {
        const int count = (2 * p.l1 + 1) * (2 * p.l3 + 1);
        z += count;
        gz += count;
      }
    }
  }

  void convolve_path_gradient(const EdgeTile<S>& edges, const ConvolutionPath& p, const PathRows<S>& rows, const SplineRows<T>& table, const SplineTable& spec,
                              const Workspace<S>& w) const {
    if constexpr (is_dual<S>) {
      const std::ptrdiff_t block = std::ptrdiff_t(spec.coefficients.size()) * spec.rows * 16;
      const TableGradient<T> gradient{w.gradient + gradients_.offset(spec.id) + (p.radial / 16) * block, block};
      dispatch_degree(p.l1, [&](auto l1) {
        dispatch_degree(p.l3, [&](auto l3) { convolve_gradient<S, W, decltype(l1)::value, decltype(l3)::value>(edges, rows, table, gradient); });
      });
    } else {
      (void)edges, (void)p, (void)rows, (void)table, (void)spec, (void)w;
    }
  }

  template <class F>
  void with_element_rows(const Workspace<S>& w, F f) const {
    const PackedLayer<T>& layer = layers_[0];
    const auto run = [&](const auto& rows) { dispatch_degree(network_->l_max, [&](auto l) { f(l, rows); }); };
    if (network_->splines)
      run(SplineRows<T>{layer.table.data.data(), layer.table.block});
    else
      run(StoredRows<S>{w.phi.data(), w.slopes.data(), layer.spec->hidden});
  }

  // ---------------------------------------------------------------------------------------------------------- forward
  void forward(const Graph& g, int t, int chunk, bool reverses, Workspace<S>& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    const bool is_last = t == last();
    if (is_last && !spec.merged()) zero_adjoints(t, chunk);
    tiles_.for_tiles(g, layer, chunk, w, [&](Tile<S>& tile) {
      const int nodes = tile.size();
      const int* species = g.species + tile.first;
      const std::size_t message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size,
                        c_size = spec.contraction.out.size;
      S* message = is_last ? need(w.message, nodes * message_size) : states_[t].message.data() + tile.first * message_size;
      const std::size_t A_size = spec.merged() ? 0 : spec.mid_layout.size;
      S* A = is_last || !keeps_inputs() ? need(w.A, nodes * A_size) : states_[t].A.data() + tile.first * A_size;
      sum_over_edges(g, t, tile, A, message, w);
      S inverse_density[tile_nodes] = {};
      if (!spec.density.empty()) {
        normalize(tile, message, message_size, inverse_density, w);
        if (!is_last) std::copy_n(inverse_density, nodes, states_[t].density.data() + tile.first);
      }

      // Update: message -> features after the layer.
      S* out = is_last ? need(w.features, nodes * out_size) : states_[t + 1].h.data() + tile.first * out_size;
      S* gout = is_last ? need(w.gfeatures, nodes * out_size) : states_[t + 1].gh.data() + tile.first * out_size;
      S* contracted = is_last || !keeps_inputs() ? need(w.contracted, nodes * c_size) : states_[t].contracted.data() + tile.first * c_size;
      const S *px[tile_nodes] = {}, *ph[tile_nodes] = {};
      S *py[tile_nodes] = {}, *pz[tile_nodes] = {};
      for (int i = 0; i < nodes; ++i) {
        px[i] = contracted + i * c_size;
        py[i] = out + i * out_size;
        pz[i] = message + i * message_size;
        if (t > 0) ph[i] = states_[t].h.data() + (tile.first + i) * in_size;
      }
      if (spec.contracts) {
        contract_all<S, W>(layer, network_->species(), nodes, species, message, contracted);
        if (layer.product.parts.size() < spec.out_layout.blocks.size()) std::fill_n(out, nodes * out_size, S(T(0)));
        apply<S, W, RB>(layer.product, Direction::forward, nodes, px, py, species, false, w);
        add_skip(layer, nodes, ph, py, species, out_size, w);
      } else {
        add_skip(layer, nodes, ph, pz, species, message_size, w);
        for (int i = 0; i < nodes; ++i) gate<S, W>(spec.gate, pz[i], py[i]);
      }
      std::fill_n(gout, nodes * out_size, S(T(0)));
      if (features_.values || features_.tangents || g.feature_weights) pass_features(g, t, tile, out, gout);
      if constexpr (!is_dual<S>)
        if (is_last && detected_.wanted()) {
          gather_features(tile, out, w);
          detect<S, W, RB>(detectors_, tile.first, nodes, species, detected_, w);
        }
      if (spec.has_readout && !g.feature_weights)
        for (int i = 0; i < nodes; ++i) {
          Sum& energy = edges_.energy(tile.first + i);
          energy = energy + readout<S, W>(layer.readout, py[i], gout + i * out_size, seed(g, tile.first + i), reverses, buffers(), w);
        }
      if (!is_last) {
        const PackedLayer<T>& next = layers_[t + 1];
        const std::size_t u_size = next.spec->conv_layout.size;
        for (int i = 0; i < nodes; ++i) px[i] = py[i], pz[i] = states_[t + 1].u.data() + (tile.first + i) * u_size;
        if (next.up.parts.size() < next.spec->conv_layout.blocks.size())
          for (int i = 0; i < nodes; ++i) std::fill_n(pz[i], u_size, S(T(0)));
        apply<S, W, RB>(next.up, Direction::forward, nodes, px, pz, species, false, w);
      } else if (reverses) {
        reverse_tile(g, t, tile, {A, message, contracted, inverse_density}, gout, w);
      }
    });
  }

  /// Hands out the scalar features of layer t; or begins the reverse pass of their weighted sum.
  void pass_features(const Graph& g, int t, const Tile<S>& tile, const S* out, S* gout) {
    const std::vector<int>& scalars = layers_[t].spec->scalars;
    const std::size_t width = network_->features(), out_size = layers_[t].spec->out_layout.size;
    std::size_t first = 0;
    for (int s = 0; s < t; ++s) first += layers_[s].spec->scalars.size();
    for (int i = 0; i < tile.size(); ++i, out += out_size, gout += out_size)
      for (std::size_t k = 0; k < scalars.size(); ++k) {
        const std::size_t at = (tile.first + i) * width + first + k;
        const S x = out[scalars[k]];
        if (features_.values) features_.values[at] = value(x);
        if constexpr (is_dual<S>)
          if (features_.tangents) features_.tangents[at] = x.d;
        if (g.feature_weights) {
          gout[scalars[k]] = S(T(g.feature_weights[at]));
          edges_.energy(tile.first + i) = edges_.energy(tile.first + i) + g.feature_weights[at] * Sum(widen(x));
        }
      }
  }

  /// w.scalars = the scalar features of all layers of a tile of the last, whose features are `out`.
  void gather_features(const Tile<S>& tile, const S* out, Workspace<S>& w) {
    S* x = need(w.scalars, std::size_t(tile.size()) * detectors_.in);
    for (int i = 0; i < tile.size(); ++i, x += detectors_.in) {
      S* to = x;
      for (int t = 0; t <= last(); ++t) {
        const std::size_t size = layers_[t].spec->out_layout.size;
        const S* from = t == last() ? out + i * size : states_[t + 1].h.data() + (tile.first + i) * size;
        for (const int offset : layers_[t].spec->scalars) *to++ = from[offset];
      }
      std::fill(to, x + detectors_.in, S(T(0)));
    }
  }

  /// Adjoint of the energy of an atom's readouts.
  Sum seed(const Graph& g, int i) const {
    const double scale = network_->scale[g.species[i]];
    if constexpr (is_dual<S>)
      return loss_ ? Sum(scale, scale * loss_->energies[i]) : Sum(scale);
    else
      return scale;
  }

  /// The message before normalisation.
  void sum_over_edges(const Graph& g, int t, const Tile<S>& tile, S* A, S* message, Workspace<S>& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    const int nodes = tile.size();
    const int* species = g.species + tile.first;
    const std::size_t size = spec.message_layout.size;
    if (spec.merged()) {
      S* B = need(w.B, tile.most_runs(network_->species()) * tiles_.harmonics() * spec.element_functions);
      with_element_rows(
          w, [&](auto lmax, const auto& rows) { element_convolve<S, W, decltype(lmax)::value>(tile.edges, tile.runs, rows, spec.element_functions, B); });
      std::fill_n(message, nodes * size, S(T(0)));
      element_linear<S, W, RB>(g, layer, tiles_.harmonics(), tile, Direction::forward, B, message, w);
      for (int i = 0; i < nodes; ++i)
        for (std::size_t k = 0; k < layer.linear.bias.size(); ++k) {
          S& m = message[i * size + layer.linear.bias_offset + k];
          m = m + layer.linear.bias[k];
        }
      return;
    }
    convolve_all(t, tile, A, Direction::forward, w);
    S* raw = layer.message_skip.empty() ? message : need(w.raw_message, nodes * size);
    map_rows(layer.linear, Direction::forward, tile, A, spec.mid_layout, raw, spec.message_layout, species, w);
    if (!layer.message_skip.empty()) map_rows(layer.message_skip, Direction::forward, tile, raw, spec.message_layout, message, spec.message_layout, species, w);
  }

  /// y = map(x) for the nodes of a tile, whose rows lie one after the other; what the map does not write is zero.
  void map_rows(const PackedMap<T>& map, Direction direction, const Tile<S>& tile, const S* x, const FeatureLayout& in, S* y, const FeatureLayout& out,
                const int* species, Workspace<S>& w) const {
    const S* px[tile_nodes];
    S* py[tile_nodes];
    for (int i = 0; i < tile.size(); ++i) px[i] = x + i * std::size_t(in.size), py[i] = y + i * std::size_t(out.size);
    if (map.parts.size() < out.blocks.size()) std::fill_n(y, tile.size() * std::size_t(out.size), S(T(0)));
    apply<S, W, RB>(map, direction, tile.size(), px, py, species, false, w);
  }

  /// Divides messages by 1 + sum of the densities of their edges.
  void normalize(const Tile<S>& tile, S* message, std::size_t size, S* inverse, Workspace<S>& w) const {
    for (int i = 0; i < tile.size(); ++i) {
      S sum(T(1));
      for (int e = tile.edges.first_edge[i]; e < tile.edges.first_edge[i + 1]; ++e) sum = sum + w.edge_density[2 * std::size_t(e)];
      inverse[i] = T(1) / sum;
      for (std::size_t k = 0; k < size; ++k) message[i * size + k] = message[i * size + k] * inverse[i];
    }
  }

  void add_skip(const PackedLayer<T>& layer, int nodes, const S* const* h, S* const* y, const int* species, std::size_t size, Workspace<S>& w) const {
    if (!layer.skip.empty()) apply<S, W, RB>(layer.skip, Direction::forward, nodes, h, y, species, true, w);
    if (!layer.skip_bias.empty())
      for (int i = 0; i < nodes; ++i)
        for (std::size_t k = 0; k < size; ++k) y[i][k] = y[i][k] + layer.skip_bias[species[i]][k];
  }

  // ---------------------------------------------------------------------------------------------------------- reverse
  /// What the forward pass left of a tile. A and contracted only with a loss.
  struct Kept {
    const S *A, *message, *contracted, *inverse_density;
  };

  /// Layer t < last: adjoint of its output features, then of everything before.
  void reverse(const Graph& g, int t, int chunk, Workspace<S>& w) {
    const PackedLayer<T>& next = layers_[t + 1];
    const Layer& spec = *layers_[t].spec;
    State& state = states_[t];
    if (!spec.merged()) zero_adjoints(t, chunk);
    tiles_.for_tiles(g, layers_[t], chunk, w, [&](Tile<S>& tile) {
      const int nodes = tile.size();
      const std::size_t first = tile.first, out_size = spec.out_layout.size, u_size = next.spec->conv_layout.size;
      S* gout = states_[t + 1].gh.data() + first * out_size;
      S *pu[tile_nodes], *pg[tile_nodes];
      const S* ph[tile_nodes];
      for (int i = 0; i < nodes; ++i) {
        pu[i] = gu_.data() + (first + i) * u_size;
        pg[i] = gout + i * out_size;
        ph[i] = states_[t + 1].h.data() + (first + i) * out_size;
      }
      if constexpr (is_dual<S>)
        if (loss_) apply_gradient<S, W>(next.spec->up, nodes, ph, pu, g.species + first, gradients_, w);
      apply<S, W, RB>(next.up, Direction::reverse, nodes, pu, pg, g.species + first, true, w);
      const auto row = [&](const AlignedVector<S>& x, std::size_t size) { return x.empty() ? nullptr : x.data() + first * size; };
      reverse_tile(g, t, tile,
                   {row(state.A, spec.mid_layout.size), row(state.message, spec.message_layout.size), row(state.contracted, spec.contraction.out.size),
                    row(state.density, 1)},
                   gout, w);
    });
  }

  void reverse_tile(const Graph& g, int t, Tile<S>& tile, const Kept& kept, S* gout, Workspace<S>& w) {
    const PackedLayer<T>& layer = layers_[t];
    const Layer& spec = *layer.spec;
    const int nodes = tile.size();
    const int* species = g.species + tile.first;
    const std::size_t message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size;
    S* gmessage = need(w.gmessage, nodes * message_size);
    S* gskip[tile_nodes];  // adjoint of what the skip adds to
    if (spec.contracts) {
      const std::size_t c_size = spec.contraction.out.size;
      S* gcontracted = need(w.gcontracted, nodes * c_size);
      const S* px[tile_nodes];
      S* py[tile_nodes];
      for (int i = 0; i < nodes; ++i) gskip[i] = gout + i * out_size, px[i] = gskip[i], py[i] = gcontracted + i * c_size;
      apply<S, W, RB>(layer.product, Direction::reverse, nodes, px, py, species, false, w);
      std::fill_n(gmessage, nodes * message_size, S(T(0)));
      contract_all_reverse<S, W>(layer, network_->species(), nodes, species, kept.message, gcontracted, gmessage, buffers(), w.gradient);
      for (int i = 0; i < nodes; ++i) px[i] = kept.contracted + i * c_size;
      if constexpr (is_dual<S>)
        if (loss_) apply_gradient<S, W>(spec.product, nodes, px, gskip, species, gradients_, w);
    } else {
      for (int i = 0; i < nodes; ++i) {
        gskip[i] = gmessage + i * message_size;
        gate_reverse<S, W>(spec.gate, kept.message + i * message_size, gout + i * out_size, gskip[i]);
      }
    }
    reverse_skip(t, tile, gskip, species, in_size, w);
    if (!spec.density.empty()) reverse_density(g, layer, tile, kept, gmessage, w);
    if (spec.merged()) {
      const std::size_t b_size = std::size_t(tiles_.harmonics()) * spec.element_functions;
      S* B = need(w.B, tile.most_runs(network_->species()) * b_size);
      if (spec.message_layout.blocks.size() < std::size_t(network_->l_max + 1)) std::fill_n(B, tile.runs.runs * b_size, S(T(0)));
      element_linear<S, W, RB>(g, layer, tiles_.harmonics(), tile, Direction::reverse, B, gmessage, w);
      with_element_rows(w, [&](auto lmax, const auto& rows) {
        element_convolve_reverse<S, W, decltype(lmax)::value>(tile.edges, tile.runs, rows, spec.element_functions, B, tiles_.harmonics());
      });
    } else {
      S* graw = gmessage;
      if (!layer.message_skip.empty()) {
        graw = need(w.raw_message, nodes * message_size);
        if (loss_) message_skip_gradient(layer, tile, kept.A, gmessage, graw, species, w);
        map_rows(layer.message_skip, Direction::reverse, tile, gmessage, spec.message_layout, graw, spec.message_layout, species, w);
      }
      S* gA = need(w.gA, nodes * std::size_t(spec.mid_layout.size));
      if constexpr (is_dual<S>)
        if (loss_) {
          const S* px[tile_nodes];
          S* py[tile_nodes];
          for (int i = 0; i < nodes; ++i) px[i] = kept.A + i * std::size_t(spec.mid_layout.size), py[i] = graw + i * message_size;
          apply_gradient<S, W>(spec.linear, nodes, px, py, species, gradients_, w);
        }
      map_rows(layer.linear, Direction::reverse, tile, graw, spec.message_layout, gA, spec.mid_layout, species, w);
      convolve_all(t, tile, gA, Direction::reverse, w);
    }
    if (!loss_) tiles_.edge_forces(g, layer, tile, w);
  }

  void reverse_skip(int t, const Tile<S>& tile, S* const* g, const int* species, std::size_t in_size, Workspace<S>& w) {
    const PackedLayer<T>& layer = layers_[t];
    const int nodes = tile.size();
    if (!layer.skip.empty()) {
      S* py[tile_nodes];
      const S* ph[tile_nodes];
      for (int i = 0; i < nodes; ++i) py[i] = states_[t].gh.data() + (tile.first + i) * in_size, ph[i] = states_[t].h.data() + (tile.first + i) * in_size;
      if constexpr (is_dual<S>)
        if (loss_) apply_gradient<S, W>(layer.spec->skip, nodes, ph, g, species, gradients_, w);
      apply<S, W, RB>(layer.skip, Direction::reverse, nodes, g, py, species, true, w);
    }
    if constexpr (is_dual<S>)
      if (loss_ && layer.spec->skip_bias_id >= 0) {
        const std::size_t size = layer.spec->update_layout.size;
        for (int i = 0; i < nodes; ++i)
          for (std::size_t k = 0; k < size; ++k) w.gradient[gradients_.offset(layer.spec->skip_bias_id) + species[i] * size + k] += g[i][k].d;
      }
  }

  /// m = raw / (1 + rho): dE/drho = -sum m dE/dm / (1 + rho), dE/draw = dE/dm / (1 + rho).
  void reverse_density(const Graph& g, const PackedLayer<T>& layer, const Tile<S>& tile, const Kept& kept, S* gmessage, Workspace<S>& w) {
    const std::size_t size = layer.spec->message_layout.size;
    S grho[tile_nodes];
    for (int i = 0; i < tile.size(); ++i) {
      grho[i] = S(T(0));
      for (std::size_t k = 0; k < size; ++k) {
        S& gm = gmessage[i * size + k];
        grho[i] = grho[i] - gm * kept.message[i * size + k];
        gm = gm * kept.inverse_density[i];
      }
      grho[i] = grho[i] * kept.inverse_density[i];
      for (int e = tile.edges.first_edge[i]; e < tile.edges.first_edge[i + 1]; ++e) {
        S& gr = tile.edges.adjoint[std::size_t(e) * tile.edges.adjoint_size + tiles_.harmonics()];
        gr = gr + grho[i] * w.edge_density[2 * std::size_t(e) + 1];
      }
    }
    if (loss_) tiles_.density_gradient(g, layer.density_table, tile, grho, w.gradient + gradients_.offset(layer.spec->density_table.id));
  }

  /// Of the message's skip, whose input is linear(A), formed again in `raw`.
  void message_skip_gradient(const PackedLayer<T>& layer, const Tile<S>& tile, const S* A, S* g, S* raw, const int* species, Workspace<S>& w) {
    if constexpr (is_dual<S>) {
      const Layer& spec = *layer.spec;
      map_rows(layer.linear, Direction::forward, tile, A, spec.mid_layout, raw, spec.message_layout, species, w);
      const S* px[tile_nodes];
      S* py[tile_nodes];
      for (int i = 0; i < tile.size(); ++i) px[i] = raw + i * std::size_t(spec.message_layout.size), py[i] = g + i * std::size_t(spec.message_layout.size);
      apply_gradient<S, W>(spec.message_skip, tile.size(), px, py, species, gradients_, w);
    }
  }

  double count_flops(const Graph& g) const {
    double edges = 0.0;
    for (int i = 0; i < g.n_receivers; ++i) edges += edges_.active(i);
    return gnn::cpu::count_flops<T>(layers_, g.n_receivers, edges, tiles_.harmonics(), wanted_.forces);
  }

  std::shared_ptr<const Network> network_;
  Threads& team_;
  std::vector<PackedLayer<T>> layers_;
  Topology topology_;
  EdgeList<S> edges_;
  TileMaker<S, W, RB> tiles_;
  GradientBuffers<T> gradients_;
  int wanted_threads_ = 0;
  Wanted wanted_;
  PackedDetectors<T> detectors_;
  DetectorResults detected_;
  struct {
    double *values, *tangents;
  } features_{};                        // where they are wanted
  const LossGradient* loss_ = nullptr;  // while a weights' gradient is formed
  AlignedVector<S> slot_gu_, gu_;
  std::vector<State> states_;
  std::vector<Workspace<S>> workspaces_;
  double flops_ = 0.0;
};

}  // namespace adatom::gnn::cpu
