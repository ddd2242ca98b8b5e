// SPDX-License-Identifier: MIT
// Evaluates a network on a graph, on a device: what is launched, in which order, and where everything lies. Why it is laid out so: docs/cuda.md.
//
// A step copies positions to the device, enqueues all of its kernels on one stream, and copies energies, forces and virials back; the host waits once, at the
// end. With a halo it waits where rows are exchanged. What is kept of a layer between its forward and its reverse pass: sender features and messages.
// Convolutions go over blocks of receivers; there is one block unless memory is short, and results do not depend on their number but for rounding.
#pragma once
#include <limits>

#include "gnn/cuda/edges.hpp"
#include "gnn/cuda/topology.hpp"
#include "gnn/cuda/weights.hpp"
#include "gnn/evaluator.hpp"
#include "gnn/flops.hpp"

namespace adatom::gnn::cuda {

template <class S>
class CudaEvaluator final : public Evaluator {
 public:
  explicit CudaEvaluator(std::shared_ptr<const Network> network) : network_(std::move(network)) {
    try {
      pack();
    } catch (const OutOfMemory&) {
      throw std::runtime_error("out of memory on the CUDA device: there is no room for the model; other processes may hold the memory (nvidia-smi lists them)");
    }
    states_.resize(layers_.size());
  }

  void evaluate(const Graph& graph, GraphResult& result, Halo* halo) override {
    if constexpr (is_dual<S>)
      if (!graph.position_tangents) throw std::invalid_argument("a derivative along positions needs position_tangents");
    if (result.features || result.feature_tangents || graph.feature_weights || result.member_energies || result.force_std ||
        result.distances || result.whitened)
      throw std::invalid_argument("features are not there on a CUDA device yet: use device=\"cpu\" for them");
    stream_.use();
    const Wanted wanted{result.forces || result.want_virial || result.atom_virials || result.force_tangents, result.want_virial, result.atom_virials != nullptr,
                        halo != nullptr};
    try {
      prepare(graph, wanted);
    } catch (const OutOfMemory& error) {
      fail_memory(error.bytes);
    }
    std::copy_n(graph.positions, 3 * std::size_t(graph.n_nodes), host_.positions);
    if (shift_rows_) std::copy_n(graph.shifts, 3 * std::size_t(shift_rows_), host_.shifts);
    if constexpr (is_dual<S>) std::copy_n(graph.position_tangents, 3 * std::size_t(graph.n_nodes), host_.tangents);
    const long before = stream_.launches();
    if (halo) {
      begin();
      stream_.synchronize();
      const auto [bad, what] = fault();
      halo->agree(bad, what);
      passes(halo);
      finish();
      stream_.synchronize();
    } else {
      stream_.replay(key_, [&] { begin(), passes(nullptr), finish(); });
      stream_.synchronize();
      const auto [bad, what] = fault();
      if (bad >= 0) throw std::invalid_argument("atom " + std::to_string(bad) + " " + what);
    }
    if (stream_.launches() > before) launches_ = stream_.launches() - before;
    collect(graph, result);
  }

  void weight_gradient(const Graph&, const LossGradient&, ArrayGradients&) override {
    throw std::logic_error("the CUDA backend has no gradients of weights");
  }

  void refresh() override {
    stream_.use();
    pack();
  }

  EvaluatorCounters counters() const override {
    EvaluatorCounters c;
    c.flops_per_step = flops_;
    c.workspace_bytes = arena_.bytes() + topology_arena_.bytes();
    c.launches_per_step = launches_;
    return c;
  }

  void set_threads(int) override {}

 private:
  using T = Base<S>;
  using Sum = SumOf<S>;
  static constexpr int widest = sizeof(S) < 16 ? 16 / sizeof(S) : 1;  ///< channels per thread of a convolution: 16 bytes
  struct Wanted {
    bool forces = true, virial = false, atom_virials = false, halo = false;
    bool operator==(const Wanted&) const = default;
  };

  /// Linear map of the nodes of the present topology.
  struct MapTasks {
    DeviceArray<LinearTask<T>> tasks;
    int most_rows = 0, most_columns = 0;  ///< of any task, per node and in all
    bool covers = false;                  ///< writes every row of its output
  };
  struct LayerTasks {
    MapTasks up, up_reverse, linear, linear_reverse, message_skip, message_skip_reverse, product, product_reverse, skip, skip_reverse, radial;
  };
  /// Of a layer; u, h, gh belong to the features that enter it.
  struct State {
    S *u = nullptr;        ///< [nodes] sender features
    S *h = nullptr;        ///< [receivers] features
    S *gh = nullptr;       ///< [receivers] their adjoint
    S *message = nullptr;  ///< [receivers] input of the update
    S *density = nullptr;  ///< [receivers] 1 / (1 + sum of edge densities)
  };

  int last() const { return static_cast<int>(layers_.size()) - 1; }

  void pack() {
    layers_.clear();
    for (const Layer& layer : network_->layers) layers_.emplace_back(stream_, *network_, layer, widest);
    elements_ = DeviceArray<int>(stream_, network_->elements);
    radii_ = DeviceArray<double>(stream_, network_->radii);
    scale_ = DeviceArray<double>(stream_, network_->scale);
    offset_ = DeviceArray<double>(stream_, network_->energy_offset);
    basis_ = DeviceArray<double>(stream_, network_->radial.basis.parameters);
    harmonics_ = {network_->l_max, network_->solid_harmonics};
    tasks_.clear();  // they point to matrices
    built_ = false;
  }

  // ------------------------------------------------------------------------------------------------------ preparation
  void prepare(const Graph& g, const Wanted& wanted) {
    if (g.revision == 0 || !built_ || g.revision != topology_.revision || g.n_receivers != graph_.receivers || g.n_nodes != graph_.nodes) {
      built_ = false;
      topology_.build(g, network_->species());
      upload_topology(g);
      make_tasks();
      built_ = true;
      reserve(wanted);
    } else if (!(wanted == wanted_)) {
      reserve(wanted);
    }
  }

  void upload_topology(const Graph& g) {
    graph_ = {};
    graph_.receivers = g.n_receivers, graph_.nodes = g.n_nodes;
    graph_.pairs = network_->radial.depends_on_pair();
    shift_rows_ = 0;
    for (const int s : topology_.shift) shift_rows_ = std::max(shift_rows_, s + 1);
    const auto with_arrays = [&](auto f) {
      f(graph_.node, topology_.node), f(graph_.species, topology_.species), f(graph_.first_edge, topology_.first_edge), f(graph_.sender, topology_.sender);
      f(graph_.shift, topology_.shift), f(graph_.first_run, topology_.first_run), f(graph_.run_edge, topology_.run_edge);
      f(graph_.first_sent, topology_.first_sent), f(graph_.sent_edge, topology_.sent_edge), f(groups_, topology_.groups);
      if (!network_->splines) f(receiver_, topology_.receiver);
    };
    topology_arena_.forget();
    with_arrays([&](auto& pointer, const auto& from) { topology_arena_.add(pointer, from.size()); });
    topology_arena_.commit();
    with_arrays([&](auto& pointer, const auto& from) {
      using E = typename std::decay_t<decltype(from)>::value_type;
      if (!from.empty()) stream_.upload(const_cast<E*>(pointer), from.data(), from.size() * sizeof(E));
    });
    stream_.synchronize();
  }

  void make_tasks() {
    std::vector<int> shape = topology_.first_of_species;
    if (!network_->splines) shape.push_back(topology_.edges());
    if (!tasks_.empty() && shape == tasks_shape_) return;
    tasks_shape_.clear();
    tasks_.clear();
    for (const LayerWeights<T>& layer : layers_) {
      const Layer& spec = *layer.spec;
      LayerTasks t;
      t.up = tasks_of(layer.up, false, spec.conv_layout), t.up_reverse = tasks_of(layer.up, true, spec.in_layout);
      t.linear = tasks_of(layer.linear, false, spec.message_layout), t.linear_reverse = tasks_of(layer.linear, true, spec.mid_layout);
      t.message_skip = tasks_of(layer.message_skip, false, spec.message_layout);
      t.message_skip_reverse = tasks_of(layer.message_skip, true, spec.message_layout);
      t.product = tasks_of(layer.product, false, spec.out_layout), t.product_reverse = tasks_of(layer.product, true, spec.contraction.out);
      t.skip = tasks_of(layer.skip, false, spec.update_layout), t.skip_reverse = tasks_of(layer.skip, true, spec.in_layout);
      if (!network_->splines) t.radial = tasks_of(layer.radial, false, FeatureLayout{}, topology_.edges());
      tasks_.push_back(std::move(t));
    }
    tasks_shape_ = std::move(shape);
  }

  /// `rows`: of a map that is the same for all rows, whose number is not that of the receivers.
  MapTasks tasks_of(const DeviceMap<T>& map, bool reverse, const FeatureLayout& to, int rows = -1) {
    MapTasks result;
    std::vector<LinearTask<T>> all;
    for (const MapPart<T>& part : map.parts) {
      const auto& matrices = reverse ? part.transposed_matrices : part.matrices;
      for (std::size_t z = 0; z < matrices.size(); ++z) {
        LinearTask<T> task = reverse ? part.reverse : part.forward;
        task.matrix = matrices[z].data();
        if (!reverse && map.bias.size() && task.components == 1 && task.out == map.bias_offset) task.bias = map.bias.data();
        const bool own = matrices.size() > 1;
        task.first_node = own ? topology_.first_of_species[z] : 0;
        task.nodes = (own ? topology_.first_of_species[z + 1] : rows >= 0 ? rows : graph_.receivers) - task.first_node;
        if (!task.nodes) continue;
        result.most_rows = std::max(result.most_rows, task.components);
        result.most_columns = std::max(result.most_columns, task.n);
        all.push_back(task);
      }
    }
    result.covers = map.parts.size() >= to.blocks.size();
    result.tasks = DeviceArray<LinearTask<T>>(stream_, all);
    return result;
  }

  /// Memory for the present topology; in smaller and smaller blocks if there is not enough.
  void reserve(const Wanted& wanted) {
    wanted_ = wanted;
    ++key_;
    try {
      reserve_host();
      for (int receivers = std::max(graph_.receivers, 1);; receivers = (receivers + 1) / 2) {
        make_blocks(receivers);
        request();
        try {
          arena_.commit();
          break;
        } catch (const OutOfMemory&) {
          const std::size_t needed = arena_.wanted();
          arena_.forget();
          if (receivers <= smallest_block) fail_memory(needed);
        }
      }
    } catch (...) {
      built_ = false;
      throw;
    }
  }
  static constexpr int smallest_block = 64;

  [[noreturn]] void fail_memory(std::size_t needed) {
    built_ = false;
    const double per_atom = static_cast<double>(needed) / std::max(graph_.nodes, 1);
    throw std::runtime_error("out of memory on the CUDA device: " + std::to_string(graph_.nodes) + " atoms with " + std::to_string(topology_.edges()) +
                             " edges need " + std::to_string(needed >> 20) + " MiB beside the model, " + std::to_string(static_cast<long>(per_atom)) +
                             " bytes per atom, and other processes or models may hold some of it: use more devices, fewer atoms, float32, or smaller batches");
  }

  void make_blocks(int receivers) {
    blocks_.clear();
    for (int first = 0; first < graph_.receivers; first += receivers) blocks_.push_back(std::min(first + receivers, graph_.receivers));
    block_receivers_ = block_edges_ = 0;
    int first = 0;
    for (const int end : blocks_) {
      block_receivers_ = std::max(block_receivers_, end - first);
      block_edges_ = std::max(block_edges_, topology_.first_edge[end] - topology_.first_edge[first]);
      first = end;
    }
  }

  void reserve_host() {
    const std::size_t nodes = graph_.nodes, receivers = graph_.receivers;
    std::size_t row = 0;
    for (const auto& layer : layers_)
      if (!layer.spec->merged()) row = std::max<std::size_t>(row, layer.spec->conv_layout.size);
    host_arena_.forget();
    host_arena_.add(host_.positions, 3 * nodes);
    host_arena_.add(host_.tangents, is_dual<S> ? 3 * nodes : 0);
    host_arena_.add(host_.shifts, 3 * std::size_t(shift_rows_));
    host_arena_.add(host_.energies, receivers);
    host_arena_.add(host_.forces, 3 * nodes);
    host_arena_.add(host_.force_tangents, is_dual<S> ? 3 * nodes : 0);
    host_arena_.add(host_.virial, SumRows::width);
    host_arena_.add(host_.atom_virials, wanted_.atom_virials ? 9 * nodes : 0);
    host_arena_.add(host_.status, edge_status_size);
    host_arena_.add(host_.cleared, edge_status_size);
    host_arena_.add(host_.rows, wanted_.halo ? nodes * row : 0);
    host_arena_.commit();
    host_.cleared[not_finite] = host_.cleared[coincident] = std::numeric_limits<int>::max();
    host_.cleared[active_edges] = 0;
  }

  void request() {
    const std::size_t nodes = graph_.nodes, receivers = graph_.receivers, edges = topology_.edges();
    arena_.add(positions_, 3 * nodes);
    arena_.add(tangents_, is_dual<S> ? 3 * nodes : 0);
    arena_.add(shifts_, 3 * std::size_t(shift_rows_));
    arena_.add(status_, edge_status_size);
    arena_.add(vectors_, edges);
    arena_.add(edge_forces_, wanted_.forces ? 3 * edges : 0);
    arena_.add(sums_, receivers);
    arena_.add(energies_, receivers);
    arena_.add(forces_, wanted_.forces ? 3 * nodes : 0);
    arena_.add(force_tangents_, is_dual<S> ? 3 * nodes : 0);
    arena_.add(atom_virials_, wanted_.atom_virials ? 9 * nodes : 0);
    virial_rows_ = wanted_.virial ? static_cast<int>(receivers) : 0;
    arena_.add(virials_[0], 9 * std::size_t(virial_rows_));
    arena_.add(virials_[1], wanted_.virial ? 9 * (receivers / SumRows::rows_per_team + 1) : 0);
    std::size_t mid = 0, message = 0, contracted = 0, conv = 0, hidden = 0, columns = 0;
    bool density = false;
    for (std::size_t t = 0; t < layers_.size(); ++t) {
      const Layer& spec = *layers_[t].spec;
      State& s = states_[t];
      s = {};
      if (t > 0) {
        arena_.add(s.h, receivers * spec.in_layout.size);
        if (wanted_.forces) arena_.add(s.gh, receivers * spec.in_layout.size);
      }
      if (!spec.merged()) {
        arena_.add(s.u, nodes * spec.conv_layout.size);
        conv = std::max<std::size_t>(conv, spec.conv_layout.size);
        mid = std::max<std::size_t>(mid, spec.mid_layout.size);
      }
      arena_.add(s.message, receivers * spec.message_layout.size);
      if (!spec.density.empty()) arena_.add(s.density, receivers), density = true;
      message = std::max<std::size_t>(message, spec.message_layout.size);
      contracted = std::max<std::size_t>(contracted, spec.contraction.out.size);
      hidden = std::max<std::size_t>(hidden, spec.hidden);
      if (!spec.merged()) columns = std::max<std::size_t>(columns, spec.radial_matrix.out);
    }
    const std::size_t out = layers_.back().spec->out_layout.size;
    arena_.add(features_, receivers * out);
    if (wanted_.forces) arena_.add(gfeatures_, receivers * out);
    arena_.add(A_, std::size_t(block_receivers_) * mid);
    arena_.add(contracted_, receivers * contracted);
    if (wanted_.forces) {
      arena_.add(gmessage_, receivers * message);
      arena_.add(gu_, nodes * conv);
      arena_.add(edge_rows_, std::size_t(block_edges_) * conv);
    }
    arena_.add(moved_, wanted_.halo ? receivers * conv : 0);
    bool skips_message = false;
    for (const auto& layer : layers_) skips_message |= !layer.message_skip.empty();
    arena_.add(raw_message_, skips_message ? receivers * message : 0);
    if (!network_->splines) {
      const bool merged = layers_.front().spec->merged();
      const std::size_t all = merged ? edges : block_edges_;
      arena_.add(phi_, all * hidden), arena_.add(phi_slopes_, all * hidden);
      arena_.add(rows_, std::size_t(block_edges_) * columns), arena_.add(row_slopes_, std::size_t(block_edges_) * columns);
      arena_.add(edge_density_, density ? 2 * edges : 0);
    }
  }

  // ------------------------------------------------------------------------------------------------------------ a step
  /// Positions to the device, edges, and the status of the edges back.
  void begin() {
    const std::size_t nodes = graph_.nodes;
    stream_.upload(positions_, host_.positions, 3 * nodes * sizeof(double));
    if (shift_rows_) stream_.upload(shifts_, host_.shifts, 3 * std::size_t(shift_rows_) * sizeof(double));
    if constexpr (is_dual<S>) stream_.upload(tangents_, host_.tangents, 3 * nodes * sizeof(double));
    stream_.upload(status_, host_.cleared, edge_status_size * sizeof(int));
    g_ = graph_;
    g_.positions = positions_;
    g_.shifts = shifts_;
    FormEdges<S> form;
    form.g = g_;
    form.limit = network_->cutoff * network_->cutoff;
    form.tangents = tangents_;
    form.vectors = vectors_;
    form.forces = wanted_.forces ? edge_forces_ : nullptr;
    form.energies = sums_;
    form.status = status_;
    form.repels = network_->repels;
    form.repulsion = network_->repulsion;
    form.radii = radii_.data(), form.elements = elements_.data(), form.scale = scale_.data();
    stream_.teams(form, graph_.receivers);
    stream_.download(host_.status, status_, edge_status_size * sizeof(int));
  }

  std::pair<int, const char*> fault() const {
    if (host_.status[not_finite] < graph_.receivers)
      return {host_.status[not_finite], "or one of its neighbours has a position that is not finite (NaN, infinite, or too large to compute with)"};
    if (host_.status[coincident] < graph_.receivers) return {host_.status[coincident], "and one of its neighbours are on the same spot; move one of them"};
    return {-1, ""};
  }

  void passes(Halo* halo) {
    for (int t = 0; t <= last(); ++t) {
      if (t > 0 && halo) exchange(t, *halo);
      forward(t);
    }
    for (int t = last(); wanted_.forces && t >= 0; --t) {
      reverse(t);
      if (t > 0 && halo) exchange_reverse(t, *halo);
    }
  }

  void finish() {
    const std::size_t nodes = graph_.nodes, receivers = graph_.receivers;
    CollectEnergies<S> energies{g_, offset_.data(), scale_.data(), sums_, energies_};
    stream_.each(energies, graph_.receivers);
    stream_.download(host_.energies, energies_, receivers * sizeof(double));
    if (!wanted_.forces) return;
    CollectForces<S> collect;
    collect.g = g_;
    collect.vectors = vectors_;
    collect.edge_forces = edge_forces_;
    collect.forces = forces_;
    collect.tangents = force_tangents_;
    collect.virials = wanted_.atom_virials ? atom_virials_ : nullptr;
    collect.received = wanted_.virial ? virials_[0] : nullptr;
    stream_.teams(collect, graph_.nodes, CollectForces<S>::shared());
    stream_.download(host_.forces, forces_, 3 * nodes * sizeof(double));
    if constexpr (is_dual<S>) stream_.download(host_.force_tangents, force_tangents_, 3 * nodes * sizeof(double));
    if (wanted_.atom_virials) stream_.download(host_.atom_virials, atom_virials_, 9 * nodes * sizeof(double));
    if (wanted_.virial && receivers > 0) {
      int rows = virial_rows_, from = 0;
      do {
        const int teams = (rows + SumRows::rows_per_team - 1) / SumRows::rows_per_team;
        stream_.teams(SumRows{virials_[from], virials_[1 - from], rows}, teams);
        rows = teams, from = 1 - from;
      } while (rows > 1);
      stream_.download(host_.virial, virials_[from], 9 * sizeof(double));
    }
  }

  void collect(const Graph& g, GraphResult& result) {
    result.energy = 0.0;
    for (int i = 0; i < g.n_receivers; ++i) result.energy += host_.energies[i];
    if (result.energies) std::copy_n(host_.energies, g.n_receivers, result.energies);
    const std::size_t nodes = g.n_nodes;
    if (result.forces) std::copy_n(host_.forces, 3 * nodes, result.forces);
    if constexpr (is_dual<S>)
      if (result.force_tangents) std::copy_n(host_.force_tangents, 3 * nodes, result.force_tangents);
    if (result.atom_virials) std::copy_n(host_.atom_virials, 9 * nodes, result.atom_virials);
    std::fill(std::begin(result.virial), std::end(result.virial), 0.0);
    if (wanted_.virial && g.n_receivers > 0) std::copy_n(host_.virial, 9, result.virial);
    flops_ = 0.0;
    for (const Layer& layer : network_->layers)
      flops_ += count_flops(layer, g.n_receivers, host_.status[active_edges], harmonics_.count(), wanted_.forces, false);
  }

  // ------------------------------------------------------------------------------------------------------------- pieces
  /// y (+)= map(x) for receivers first .. end-1; rows of x and y count from x_first, y_first.
  void apply(const MapTasks& map, const S* x, int x_size, S* y, int y_size, bool accumulate, int first, int end, int x_first = 0, int y_first = 0) {
    if (!accumulate && !map.covers && end > first) stream_.clear(y + std::size_t(first - y_first) * y_size, std::size_t(end - first) * y_size * sizeof(S));
    const std::int64_t tasks = static_cast<std::int64_t>(map.tasks.size());
    if (!tasks || end <= first) return;
    Linear<S> kernel;
    kernel.tasks = map.tasks.data();
    kernel.row_tiles = static_cast<int>((std::int64_t(map.most_rows) * (end - first) + Linear<S>::tile - 1) / Linear<S>::tile);
    kernel.column_tiles = (map.most_columns + Linear<S>::tile - 1) / Linear<S>::tile;
    kernel.first_node = first, kernel.end_node = end;
    kernel.x = x, kernel.x_size = x_size, kernel.x_first = x_first;
    kernel.y = y, kernel.y_size = y_size, kernel.y_first = y_first;
    kernel.accumulate = accumulate;
    stream_.teams(kernel, tasks * kernel.row_tiles * kernel.column_tiles, Linear<S>::shared(), Linear<S>::threads);
  }
  /// A bias that no matrix of the map adds.
  void add_bias(const DeviceMap<T>& map, S* y, int size, int first, int end, int y_first) {
    if (!map.bias.size()) return;
    for (const MapPart<T>& part : map.parts)
      if (part.forward.components == 1 && part.forward.out == map.bias_offset) return;
    const int count = static_cast<int>(map.bias.size());
    stream_.each(AddBias<S>{map.bias.data(), map.bias_offset, count, size, y + std::size_t(first - y_first) * size}, std::int64_t(end - first) * count);
  }
  void forward_map(const DeviceMap<T>& map, const MapTasks& tasks, const S* x, int x_size, S* y, int y_size, bool accumulate, int first, int end,
                   int x_first = 0, int y_first = 0) {
    apply(tasks, x, x_size, y, y_size, accumulate, first, end, x_first, y_first);
    add_bias(map, y, y_size, first, end, y_first);
  }

  /// Without splines, phi of edges first .. end-1 to the beginning of phi_ and phi_slopes_.
  void exact_radial(int t, int first, int end) {
    const LayerWeights<T>& layer = layers_[t];
    ExactRadial<S> kernel;
    kernel.g = g_;
    kernel.receiver = receiver_;
    kernel.vectors = vectors_;
    kernel.first_edge = first;
    const Radial& radial = network_->radial;
    kernel.radial = {{radial.basis.type, basis_.data(), radial.basis.factor, radial.basis.size()}, radial.cutoff, radial.transform, radial.cutoff_on_basis};
    kernel.radii = radial.depends_on_pair() ? radii_.data() : nullptr;
    kernel.layers = layer.mlp.data(), kernel.layer_count = static_cast<int>(layer.mlp.size()), kernel.widest = layer.widest_mlp;
    kernel.activation = layer.spec->radial_activation;
    kernel.constant = layer.spec->radial_constant;
    kernel.hidden = layer.spec->hidden;
    kernel.phi = phi_, kernel.slopes = phi_slopes_;
    kernel.density_weights = layer.density.data();
    kernel.density = edge_density_;
    stream_.teams(kernel, end - first, ExactRadial<S>::shared(layer.widest_mlp));
  }

  ElementInput<S> element_input(int t) {
    const LayerWeights<T>& layer = layers_[t];
    ElementInput<S> in;
    in.g = g_;
    in.harmonics = harmonics_;
    in.vectors = vectors_;
    in.table = layer.table.view;
    if (!network_->splines) in.rows = {phi_, phi_slopes_, layer.spec->hidden};
    in.functions = layer.spec->element_functions;
    in.parts = layer.element_parts.data(), in.part_count = static_cast<int>(layer.element_parts.size());
    in.species = network_->species();
    in.per_receiver = layer.spec->element_linear.size() > 1;
    in.message_size = layer.spec->message_layout.size;
    return in;
  }

  /// For the block of receivers first .. end-1. Without splines its radial functions are evaluated.
  ConvolveInput<S> convolve_input(int t, int first, int end) {
    const LayerWeights<T>& layer = layers_[t];
    ConvolveInput<S> in;
    in.g = g_;
    in.first_node = first;
    in.harmonics = harmonics_;
    in.vectors = vectors_;
    in.table = layer.table.view;
    if (!network_->splines) {
      const int begin = topology_.first_edge[first], edges = topology_.first_edge[end] - begin;
      const int columns = layer.spec->radial_matrix.out, hidden = layer.spec->hidden;
      exact_radial(t, begin, begin + edges);
      apply(tasks_[t].radial, phi_, hidden, rows_, columns, false, 0, edges);
      apply(tasks_[t].radial, phi_slopes_, hidden, row_slopes_, columns, false, 0, edges);
      in.rows = {rows_, row_slopes_, columns};
    }
    in.coupling = layer.convolution.coupling.data();
    in.h = states_[t].u, in.h_size = layer.spec->conv_layout.size;
    in.A_size = layer.spec->mid_layout.size;
    return in;
  }

  template <int V>
  void convolve(ConvolveInput<S> in, const typename ConvolutionWeights<T>::Width& width, const DevicePath* tasks, int receivers) {
    in.paths = tasks + width.first;
    const std::size_t shared = Convolve<S, V>::shared(harmonics_.count(), width.most_z);
    stream_.teams(Convolve<S, V>{in, width.count, A_}, std::int64_t(receivers) * width.count, shared);
  }

  template <int V>
  void convolve_reverse(const ConvolveInput<S>& in, const PathGroup& group, const typename ConvolutionWeights<T>::Need& need, int receivers) {
    using Kernel = ConvolveReverse<S, V>;
    const int warps = (group.channels + warp_size * V - 1) / (warp_size * V), rows = 2 * group.l1 + 1;
    if (warps * warp_size > Kernel::most_threads)
      throw std::runtime_error("model: a convolution has " + std::to_string(group.channels) + " channels, more than the CUDA backend's kernels take");
    int batch = warp_size;
    const auto shared = [&] { return Kernel::shared(batch, harmonics_.count(), need.most_z, need.most_parts, warps, rows, group.channels); };
    while (batch > 1 && shared() > batch_bytes) --batch;
    Kernel kernel;
    kernel.in = in, kernel.group = group, kernel.batch = batch, kernel.most_z = need.most_z, kernel.most_parts = need.most_parts;
    kernel.G = A_;
    kernel.edge_rows = edge_rows_;
    kernel.edge_forces = edge_forces_;
    stream_.teams(kernel, receivers, shared(), warps * warp_size);
  }
  static constexpr std::size_t batch_bytes = 40 * 1024;  ///< of shared memory for a block of the reverse pass: five of them to a multiprocessor

  // ------------------------------------------------------------------------------------------------------------- passes
  void forward(int t) {
    const LayerWeights<T>& layer = layers_[t];
    const LayerTasks& tasks = tasks_[t];
    const Layer& spec = *layer.spec;
    State& state = states_[t];
    const int receivers = graph_.receivers, message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size;
    if (spec.merged()) {
      if (!network_->splines) exact_radial(t, 0, topology_.edges());
      ElementForward<S> kernel;
      kernel.in = element_input(t);
      kernel.bias = layer.linear.bias.data(), kernel.bias_offset = layer.linear.bias_offset, kernel.bias_size = static_cast<int>(layer.linear.bias.size());
      kernel.message = state.message;
      stream_.teams(kernel, receivers, ElementForward<S>::shared(harmonics_.count(), spec.element_functions, message_size), ElementInput<S>::threads);
    } else {
      if (t == 0)
        stream_.each(AddSpeciesRow<S>{g_.species, layer.species_features.data(), state.u, spec.conv_layout.size, false},
                     std::int64_t(graph_.nodes) * spec.conv_layout.size);
      S* raw = layer.message_skip.empty() ? state.message : raw_message_;
      int first = 0;
      for (const int end : blocks_) {
        const ConvolveInput<S> in = convolve_input(t, first, end);
        for (const auto& width : layer.convolution.widths) {
          const DevicePath* list = layer.convolution.tasks.data();
          switch (width.channels_per_thread) {
            case 1: convolve<1>(in, width, list, end - first); break;
            case 2:
              if constexpr (widest >= 2) convolve<2>(in, width, list, end - first);
              break;
            default:
              if constexpr (widest >= 4) convolve<4>(in, width, list, end - first);
          }
        }
        forward_map(layer.linear, tasks.linear, A_, spec.mid_layout.size, raw, message_size, false, first, end, first, 0);
        first = end;
      }
      if (!layer.message_skip.empty())
        forward_map(layer.message_skip, tasks.message_skip, raw, message_size, state.message, message_size, false, 0, receivers);
    }
    if (!spec.density.empty())
      stream_.teams(
          Normalize<S>{g_, vectors_, layer.density_table.view, network_->splines ? nullptr : edge_density_, state.density, state.message, message_size},
          receivers);

    // Update: message -> features after the layer.
    S* out = t == last() ? features_ : states_[t + 1].h;
    S* gout = !wanted_.forces ? nullptr : t == last() ? gfeatures_ : states_[t + 1].gh;
    if (spec.contracts) {
      stream_.teams(Contract<S>{contraction_input(t), contracted_}, contraction_teams(t),
                    Contract<S>::shared(static_cast<int>(spec.contraction.inputs.size())));
      forward_map(layer.product, tasks.product, contracted_, spec.contraction.out.size, out, out_size, false, 0, receivers);
      add_skip(t, out, out_size, in_size);
    } else {
      add_skip(t, state.message, message_size, in_size);
      stream_.teams(ApplyGate<S>{gate(layer), state.message, message_size, out, out_size}, receivers);
    }
    if (gout) stream_.clear(gout, std::size_t(receivers) * out_size * sizeof(S));
    if (spec.has_readout) {
      ApplyReadout<S> kernel;
      kernel.species = g_.species, kernel.scale = scale_.data();
      kernel.steps = layer.readout.steps.data(), kernel.step_count = static_cast<int>(layer.readout.steps.size()), kernel.hidden = layer.readout.hidden;
      kernel.activation = spec.readout.activation;
      kernel.h = out, kernel.gh = gout, kernel.size = out_size, kernel.in = spec.readout.in;
      kernel.energies = sums_;
      stream_.teams(kernel, receivers, ApplyReadout<S>::shared(layer.readout.hidden));
    }
    if (t < last()) {
      const LayerWeights<T>& next = layers_[t + 1];
      forward_map(next.up, tasks_[t + 1].up, out, out_size, states_[t + 1].u, next.spec->conv_layout.size, false, 0, receivers);
    }
  }

  void add_skip(int t, S* y, int size, int in_size) {
    const LayerWeights<T>& layer = layers_[t];
    if (!layer.skip.empty()) forward_map(layer.skip, tasks_[t].skip, states_[t].h, in_size, y, size, true, 0, graph_.receivers);
    if (layer.skip_bias.size()) stream_.each(AddSpeciesRow<S>{g_.species, layer.skip_bias.data(), y, size, true}, std::int64_t(graph_.receivers) * size);
  }

  ContractionInput<S> contraction_input(int t) {
    const LayerWeights<T>& layer = layers_[t];
    const Contraction& c = layer.spec->contraction;
    return {groups_, g_.species, layer.contraction.parts.data(), layer.contraction.inputs.data(), layer.contraction.part_count,
            static_cast<int>(c.inputs.size()), c.channels, layer.spec->message_layout.size, c.out.size, states_[t].message};
  }
  std::int64_t contraction_teams(int t) const {
    return static_cast<std::int64_t>(topology_.groups.size()) * ((layers_[t].spec->contraction.channels + warp_size - 1) / warp_size);
  }
  DeviceGate<T> gate(const LayerWeights<T>& layer) const {
    const Gate& g = layer.spec->gate;
    return {layer.gate_scalars.data(), layer.gate_gated.data(), static_cast<int>(g.scalars.size()), static_cast<int>(g.gated.size()), g.activation,
            static_cast<T>(g.factor)};
  }

  /// From the adjoint of the layer's output: of its input features (gh), of the edges, and (edge_rows_) of the senders' features, which are summed at once.
  void reverse(int t) {
    const LayerWeights<T>& layer = layers_[t];
    const LayerTasks& tasks = tasks_[t];
    const Layer& spec = *layer.spec;
    State& state = states_[t];
    const int receivers = graph_.receivers, message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size;
    S* gout = t == last() ? gfeatures_ : states_[t + 1].gh;
    if (t < last()) {
      const LayerWeights<T>& next = layers_[t + 1];
      apply(tasks_[t + 1].up_reverse, gu_, next.spec->conv_layout.size, gout, out_size, true, 0, receivers);
    }
    const S* gskip = gout;
    if (spec.contracts) {
      apply(tasks.product_reverse, gout, out_size, contracted_, spec.contraction.out.size, false, 0, receivers);
      stream_.teams(ContractReverse<S>{contraction_input(t), contracted_, gmessage_}, contraction_teams(t),
                    ContractReverse<S>::shared(static_cast<int>(spec.contraction.inputs.size())));
    } else {
      gskip = gmessage_;
      stream_.teams(ReverseGate<S>{gate(layer), state.message, gout, gmessage_, message_size, out_size}, receivers);
    }
    if (!layer.skip.empty()) apply(tasks.skip_reverse, gskip, spec.contracts ? out_size : message_size, state.gh, in_size, true, 0, receivers);
    if (!network_->splines && (spec.merged() || !spec.density.empty())) exact_radial_again(t);
    if (!spec.density.empty()) {
      ReverseNormalize<S> kernel;
      kernel.g = g_, kernel.vectors = vectors_, kernel.table = layer.density_table.view;
      kernel.values = network_->splines ? nullptr : edge_density_;
      kernel.inverse = state.density, kernel.message = state.message, kernel.gmessage = gmessage_, kernel.size = message_size;
      kernel.edge_forces = edge_forces_;
      stream_.teams(kernel, receivers);
    }
    if (spec.merged()) {
      ElementReverse<S> kernel;
      kernel.in = element_input(t);
      kernel.gmessage = gmessage_;
      kernel.edge_forces = edge_forces_;
      stream_.teams(kernel, receivers, ElementReverse<S>::shared(harmonics_.count(), spec.element_functions, message_size), ElementInput<S>::threads);
      return;
    }
    S* graw = gmessage_;
    if (!layer.message_skip.empty()) {
      graw = raw_message_;
      apply(tasks.message_skip_reverse, gmessage_, message_size, graw, message_size, false, 0, receivers);
    }
    if (layer.convolution.column_count < spec.conv_layout.size)
      stream_.clear(gu_, std::size_t(graph_.nodes) * spec.conv_layout.size * sizeof(S));
    int first = 0;
    for (const int end : blocks_) {
      apply(tasks.linear_reverse, graw, message_size, A_, spec.mid_layout.size, false, first, end, 0, first);
      ConvolveInput<S> in = convolve_input(t, first, end);
      in.paths = layer.convolution.paths.data();
      for (std::size_t k = 0; k < layer.convolution.groups.size(); ++k) {
        const PathGroup& group = layer.convolution.groups[k];
        const auto& need = layer.convolution.needs[k];
        switch (ConvolutionWeights<T>::channels_per_thread(group.channels, widest)) {
          case 1: convolve_reverse<1>(in, group, need, end - first); break;
          case 2:
            if constexpr (widest >= 2) convolve_reverse<2>(in, group, need, end - first);
            break;
          default:
            if constexpr (widest >= 4) convolve_reverse<4>(in, group, need, end - first);
        }
      }
      if (t > 0) {
        SumSenders<S> sum;
        sum.g = g_, sum.vectors = vectors_, sum.first_node = first, sum.end_node = end;
        sum.columns = layer.convolution.columns.data(), sum.count = layer.convolution.column_count, sum.size = spec.conv_layout.size;
        sum.edge_rows = edge_rows_, sum.gu = gu_;
        stream_.each(sum, std::int64_t(graph_.nodes) * sum.count);
      }
      first = end;
    }
    if (blocks_.empty() && t > 0) stream_.clear(gu_, std::size_t(graph_.nodes) * spec.conv_layout.size * sizeof(S));
  }

  /// Values of the reverse pass that another layer's have taken the place of.
  void exact_radial_again(int t) {
    if (layers_[t].spec->merged()) return exact_radial(t, 0, topology_.edges());
    int first = 0;
    for (const int end : blocks_) {
      exact_radial(t, topology_.first_edge[first], topology_.first_edge[end]);
      first = end;
    }
  }

  // --------------------------------------------------------------------------------------------------------------- halo
  // Rows go through host memory in the caller's order. Ghosts are last in both orders.
  /// Ghosts' rows of the sender features.
  void exchange(int t, Halo& halo) {
    const std::size_t size = layers_[t].spec->conv_layout.size, own = graph_.receivers * size, all = graph_.nodes * size;
    stream_.each(MoveRows<S>{g_.node, states_[t].u, moved_, static_cast<int>(size), true}, own);
    stream_.download(host_.rows, moved_, own * sizeof(S));
    stream_.synchronize();
    halo.forward(host_.rows, size * sizeof(S));
    stream_.upload(states_[t].u + own, host_.rows + own, (all - own) * sizeof(S));
  }
  /// Adds ghosts' rows of the senders' adjoint to those of their owners.
  void exchange_reverse(int t, Halo& halo) {
    const std::size_t size = layers_[t].spec->conv_layout.size, own = graph_.receivers * size, all = graph_.nodes * size;
    stream_.each(MoveRows<S>{g_.node, gu_, moved_, static_cast<int>(size), true}, own);
    stream_.download(host_.rows, moved_, own * sizeof(S));
    stream_.download(host_.rows + own, gu_ + own, (all - own) * sizeof(S));
    stream_.synchronize();
    halo.reverse(host_.rows, size * sizeof(S), sizeof(T));
    stream_.upload(moved_, host_.rows, own * sizeof(S));
    stream_.each(MoveRows<S>{g_.node, moved_, gu_, static_cast<int>(size), false}, own);
  }

  std::shared_ptr<const Network> network_;
  Stream stream_;
  std::vector<LayerWeights<T>> layers_;
  DeviceArray<int> elements_;
  DeviceArray<double> radii_, scale_, offset_, basis_;
  Harmonics harmonics_;
  Topology topology_;
  bool built_ = false;
  Wanted wanted_;
  std::uint64_t key_ = 0;                 // of the memory and the topology that a recorded graph refers to
  DeviceGraph graph_, g_;
  const NodeGroup* groups_ = nullptr;
  const int* receiver_ = nullptr;
  int shift_rows_ = 0;
  std::vector<LayerTasks> tasks_;
  std::vector<int> tasks_shape_;          // what they depend on
  std::vector<State> states_;
  std::vector<int> blocks_;               // ends of blocks of receivers
  int block_receivers_ = 0, block_edges_ = 0;
  Arena topology_arena_, arena_, host_arena_{true};
  struct {
    double *positions, *tangents, *shifts, *energies, *forces, *force_tangents, *virial, *atom_virials;
    int *status, *cleared;
    S* rows;
  } host_{};
  double *positions_ = nullptr, *tangents_ = nullptr, *shifts_ = nullptr, *energies_ = nullptr, *forces_ = nullptr, *force_tangents_ = nullptr,
         *atom_virials_ = nullptr, *virials_[2] = {};
  int* status_ = nullptr;
  int virial_rows_ = 0;
  EdgeVector<S>* vectors_ = nullptr;
  Sum *edge_forces_ = nullptr, *sums_ = nullptr;
  S *features_ = nullptr, *gfeatures_ = nullptr, *A_ = nullptr, *contracted_ = nullptr, *gmessage_ = nullptr, *gu_ = nullptr, *edge_rows_ = nullptr,
    *moved_ = nullptr, *raw_message_ = nullptr, *phi_ = nullptr, *phi_slopes_ = nullptr, *rows_ = nullptr, *row_slopes_ = nullptr, *edge_density_ = nullptr;
  double flops_ = 0.0;
  long launches_ = 0;
};

}  // namespace adatom::gnn::cuda
