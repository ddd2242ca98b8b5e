// SPDX-License-Identifier: MIT
// Evaluates a network on a graph, on a device: what is launched, in which order, and where everything lies. Why it is laid out so: docs/cuda.md.
//
// A step copies positions to the device, enqueues all of its kernels on one stream, and copies energies, forces and virials back; the host waits once, at the
// end. With a halo it waits where rows are exchanged. What is kept of a layer between its forward and its reverse pass: sender features and messages.
// Convolutions go over blocks of receivers; there is one block unless memory is short, and results do not depend on their number but for rounding.
#pragma once
#include <limits>

#include "gnn/cuda/edges.hpp"
#include "gnn/cuda/lists.hpp"
#include "gnn/cuda/tasks.hpp"
#include "gnn/cuda/topology.hpp"
#include "gnn/cuda/traffic.hpp"
#include "gnn/evaluator.hpp"
#include "gnn/flops.hpp"

namespace adatom::gnn::cuda {

template <class S>
class CudaEvaluator final : public Evaluator {
 public:
  explicit CudaEvaluator(std::shared_ptr<const Network> network, Matmul matmul) : network_(std::move(network)), matmul_(matmul) {
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
    const Wanted wanted = wanted_of(result, graph.feature_weights, halo);
    begin_call();
    begin_step(graph, wanted, graph.position_tangents, halo);
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
      throw_fault();
    }
    if (stream_.launches() > before) launches_ = stream_.launches() - before;
    collect(result);
  }

  bool finds_neighbours() const override { return true; }

  void evaluate_structures(const StructureView& view, std::uint64_t revision, GraphResult& result) override {
    if constexpr (is_dual<S>)
      if (!view.position_tangents) throw std::invalid_argument("a derivative along positions needs position_tangents");
    const Wanted wanted = wanted_of(result, view.feature_weights, nullptr);
    begin_call();
    const std::size_t atoms = view.first_atom[view.structures];
    try {
      prepare_atoms(view, revision, wanted);
      std::copy_n(view.positions, 3 * atoms, host_.positions);
      if constexpr (is_dual<S>) std::copy_n(view.position_tangents, 3 * atoms, host_.tangents);
      if (wanted.weighted) std::copy_n(view.feature_weights, atoms * network_->features(), host_.feature_weights);
      if (!listed_ || !lists_.fits(view)) make_lists(view);
      bool again = true;
      for (int attempt = 0; again; ++attempt) {
        if (attempt > 1) throw std::logic_error("a neighbour list that was made of these positions does not fit them");
        const long before = stream_.launches();
        stream_.replay(key_, [&] { begin(), passes(nullptr), finish(); });
        stream_.synchronize();
        if (stream_.launches() > before) launches_ = stream_.launches() - before;
        // Whether atoms moved too far for the list is seen at the end of a step, which is then done once more: no step waits for the answer.
        again = host_.status[moved] < graph_.nodes;
        if (again) make_lists(view);
      }
    } catch (const OutOfMemory& error) {
      fail_memory(error.bytes);
    }
    throw_fault();
    collect(result);
  }

  void weight_gradient(const Graph& graph, const LossGradient& loss, ArrayGradients& gradient) override {
    if constexpr (is_dual<S>) {
      if (!network_->trainable) throw std::logic_error("the network was not assembled for training");
      begin_call();
      structures_ = 0;
      for (int i = 0; loss.strains && i < graph.n_nodes; ++i) structures_ = std::max(structures_, loss.structure[i] + 1);
      Wanted wanted;
      wanted.forces = false, wanted.weights = true, wanted.strains = structures_ > 0;
      begin_step(graph, wanted, loss.forces);
      std::copy_n(loss.energies, graph.n_receivers, host_.loss);
      if (structures_) {
        std::copy_n(loss.strains, 9 * std::size_t(structures_), host_.strains);
        std::copy_n(loss.structure, graph.n_nodes, host_.structure);
      }
      stream_.replay(key_, [&] { begin(), passes(nullptr), stream_.download(host_.gradient, gradient_, array_entries() * sizeof(double)); });
      stream_.synchronize();
      throw_fault();
      gradient.clear();
      const double* from = host_.gradient;
      for (const std::size_t size : network_->array_sizes) gradient.emplace_back(from, from + size), from += size;
    } else {
      (void)graph, (void)loss, (void)gradient;
      throw std::logic_error("gradients of weights need dual scalars");
    }
  }

  void refresh() override {
    packed_ = false;
    begin_call();
  }

  EvaluatorCounters counters() const override {
    EvaluatorCounters c;
    c.flops_per_step = flops_;
    c.bytes_per_step = bytes_;
    c.workspace_bytes = arena_.bytes() + topology_arena_.bytes() + lists_.bytes();
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
    bool weights = false;  ///< gradients of weights, instead of forces
    bool strains = false;  ///< of a loss that depends on strains
    bool features = false, feature_tangents = false;
    bool weighted = false;  ///< weighted sums of features, instead of energies
    bool members = false, force_std = false, distances = false, whitened = false;
    bool detects() const { return members || force_std || distances || whitened; }
    bool passes_features() const { return features || feature_tangents || weighted || detects(); }
    bool reverses() const { return forces || weights; }
    bool operator==(const Wanted&) const = default;
  };

  /// Of a layer; u, h, gh belong to the features that enter it.
  struct State {
    S* u = nullptr;           ///< [nodes] sender features
    S* h = nullptr;           ///< [receivers] features
    S* gh = nullptr;          ///< [receivers] their adjoint
    S* message = nullptr;     ///< [receivers] input of the update
    S* density = nullptr;     ///< [receivers] 1 / (1 + sum of edge densities)
    S* A = nullptr;           ///< [receivers] for gradients of weights: sums over edges
    S* contracted = nullptr;  ///< [receivers] the same: contraction of the message
  };

  static constexpr double least_distance = 1e-3;  ///< angstrom; no two atoms of a meaningful structure are closer

  Wanted wanted_of(const GraphResult& result, const double* feature_weights, const Halo* halo) const {
    Wanted w;
    w.forces = result.forces || result.want_virial || result.atom_virials || result.force_tangents;
    w.virial = result.want_virial, w.atom_virials = result.atom_virials != nullptr, w.halo = halo != nullptr;
    w.features = result.features != nullptr, w.feature_tangents = is_dual<S> && result.feature_tangents, w.weighted = feature_weights != nullptr;
    w.members = result.member_energies != nullptr, w.force_std = result.force_std != nullptr;
    w.distances = result.distances != nullptr, w.whitened = result.whitened != nullptr;
    if (w.detects() && (is_dual<S> || !network_->detectors)) throw std::invalid_argument("the network has no detectors of uncertainty");
    return w;
  }
  void begin_call() {
    stream_.use();
    if (!packed_) pack();  // now, or again after an error
  }
  int last() const { return static_cast<int>(layers_.size()) - 1; }

  void pack() {
    const bool interrupted = packing_;  // by an error, the last time
    packing_ = true;
    model_.begin();
    layers_.clear();
    for (const Layer& layer : network_->layers) layers_.emplace_back(model_, *network_, layer, widest);
    elements_ = DeviceArray<int>(model_, network_->elements);
    radii_ = DeviceArray<double>(model_, network_->radii);
    scale_ = DeviceArray<double>(model_, network_->scale);
    offset_ = DeviceArray<double>(model_, network_->energy_offset);
    basis_ = DeviceArray<double>(model_, network_->radial.basis.parameters);
    if (network_->detectors && !is_dual<S>) detectors_ = DetectorWeights<T>(model_, *network_->detectors);
    harmonics_ = {network_->l_max, network_->solid_harmonics};
    model_.upload(stream_);
    stream_.synchronize();
    packed_ = true, packing_ = false;
    if (!interrupted && !model_.moved()) return;
    tasks_.clear();  // they point to matrices
    built_ = false;
  }
  std::size_t array_entries() const {
    std::size_t total = 0;
    for (const std::size_t size : network_->array_sizes) total += size;
    return total;
  }

  // ------------------------------------------------------------------------------------------------------ preparation
  /// What does not change while atoms move: their species, host memory.
  void prepare_atoms(const StructureView& view, std::uint64_t revision, const Wanted& wanted);

  /// Neighbour lists of the present positions, and memory for as many edges, and some more.
  void make_lists(const StructureView& view);

  void download_first_edges();

  /// Memory and topology, and what goes up with the step.
  void begin_step(const Graph& graph, const Wanted& wanted, [[maybe_unused]] const double* tangents, const Halo* halo = nullptr);

  void prepare(const Graph& g, const Wanted& wanted, const Halo* halo);

  void upload_topology(const Graph& g);

  void make_tasks(bool gradients);

  /// Memory for the present topology; in smaller and smaller blocks if there is not enough.
  void reserve(const Wanted& wanted);
  static constexpr int smallest_block = 64;

  [[noreturn]] void fail_memory(std::size_t needed) {
    built_ = false;
    const double per_atom = static_cast<double>(needed) / std::max(graph_.nodes, 1);
    const auto fit = static_cast<long>(static_cast<double>(free_memory()) / per_atom);
    throw std::runtime_error("out of memory on the CUDA device: " + std::to_string(graph_.nodes) + " atoms with " + std::to_string(edges_) + " edges need " +
                             std::to_string(needed >> 20) + " MiB beside the model, " + std::to_string(static_cast<long>(per_atom)) +
                             " bytes per atom; about " + std::to_string(fit) +
                             " atoms fit into what is free now (other processes or models may hold some): use more devices, fewer atoms, float32, or smaller "
                             "batches");
  }

  void make_blocks(int receivers);

  void reserve_host();

  void request();

  // ------------------------------------------------------------------------------------------------------------ a step
  /// Positions to the device, edges, and the status of the edges back.
  void begin();

  std::pair<int, const char*> fault() const;

  void throw_fault() const;

  void passes(Halo* halo);

  void finish();

  void collect(GraphResult& result);

  // ------------------------------------------------------------------------------------------------------------- pieces
  /// y (+)= map(x) for receivers first .. end-1; rows of x and y count from x_first, y_first. `exact`: whatever Matmul says.
  void apply(const MapTasks<T>& map, const S* x, int x_size, S* y, int y_size, bool accumulate, int first, int end, int x_first = 0, int y_first = 0,
             bool exact = false);
  /// A bias that no matrix of the map adds.
  void add_bias(const DeviceMap<T>& map, S* y, int size, int first, int end, int y_first);
  void forward_map(const DeviceMap<T>& map, const MapTasks<T>& tasks, const S* x, int x_size, S* y, int y_size, bool accumulate, int first, int end,
                   int x_first = 0, int y_first = 0) {
    apply(tasks, x, x_size, y, y_size, accumulate, first, end, x_first, y_first);
    add_bias(map, y, y_size, first, end, y_first);
  }

  /// Without splines, phi of edges first .. end-1 to the beginning of phi_ and phi_slopes_.
  void exact_radial(int t, int first, int end);

  ElementInput<S> element_input(int t);

  /// For the block of receivers first .. end-1. Without splines its radial functions are evaluated.
  ConvolveInput<S> convolve_input(int t, int first, int end);

  template <int V>
  void convolve(ConvolveInput<S> in, const typename ConvolutionWeights<T>::Width& width, const DevicePath* tasks, int receivers, S* A);

  template <int V>
  void convolve_reverse(const ConvolveInput<S>& in, const PathGroup& group, const typename ConvolutionWeights<T>::Need& need, int receivers);
  static constexpr std::size_t batch_bytes = 40 * 1024;  ///< of shared memory for a block of the reverse pass: five of them to a multiprocessor

  // ------------------------------------------------------------------------------------------------------------- passes
  void forward(int t);

  void add_skip(int t, S* y, int size, int in_size);

  /// Scalar features of layer t, whose output is h and its adjoint gh, as far as they are wanted.
  void pass_features(int t, const S* h, S* gh);
  void detect();

  ContractionInput<S> contraction_input(int t);
  std::int64_t contraction_teams(int t) const;
  DeviceGate<T> gate(const LayerWeights<T>& layer) const;

  /// From the adjoint of the layer's output: of its input features (gh), of the edges, and (edge_rows_) of the senders' features, which are summed at once.
  void reverse(int t);

  // ------------------------------------------------------------------------------------------------- gradients of weights
  /// Adds the gradients of a map's matrices from its inputs x and the adjoints g of its outputs.
  void gradient(const GradientTasks& tasks, const S* x, int x_size, const S* g, int g_size) { gradient(tasks, x, x_size, g, g_size, partials_); }
  template <class X, class P>
  void gradient(const GradientTasks& tasks, const X* x, int x_size, const X* g, int g_size, P* partials);

  template <class P>
  void add_partials(const DeviceArray<PartialSum>& sums, int most, const P* partials);

  void contraction_gradient(int t);

  void density_gradient(int t);

  /// Of the radial functions, and the senders' adjoints of the edges (edge_rows_).
  void table_gradient([[maybe_unused]] int t, [[maybe_unused]] const ConvolveInput<S>& in);
  static constexpr std::size_t warp_batch_bytes = 12 * 1024;  ///< of shared memory for a warp: 16 of them to a multiprocessor

  /// Values of the reverse pass that another layer's have taken the place of.
  void exact_radial_again(int t);

  // --------------------------------------------------------------------------------------------------------------- halo
  // Rows that are not packed here go through host memory in the caller's order. Ghosts are last in both orders.
  /// Ghosts' rows of the sender features.
  void exchange(int t, Halo& halo);
  /// Adds ghosts' rows of the senders' adjoint to those of their owners.
  void exchange_reverse(int t, Halo& halo);

  std::shared_ptr<const Network> network_;
  [[maybe_unused]] Matmul matmul_;  // of single precision
  Stream stream_;
  Store model_, task_store_;
  std::vector<LayerWeights<T>> layers_;
  DeviceArray<int> elements_;
  DeviceArray<double> radii_, scale_, offset_, basis_;
  DetectorWeights<T> detectors_;
  Harmonics harmonics_;
  Topology topology_;
  NeighbourLists lists_;
  bool packed_ = false, packing_ = false;                        // the weights are on the device; are on their way
  bool built_ = false, of_structures_ = false, listed_ = false;  // of_structures_: with lists of its own, which listed_ says there are
  int edges_ = 0, edge_room_ = 0;                                // of the list; that memory is laid out for
  double move_limit2_ = 0.0;                                     // square of the distance that atoms may move before the lists are made anew
  Wanted wanted_;
  std::uint64_t key_ = 0;  // of the memory and the topology that a recorded graph refers to
  DeviceGraph graph_, g_;
  const NodeGroup* groups_ = nullptr;
  bool packs_ = false;  // rows of the halo are packed here
  struct {
    const int *shared, *target, *first, *packed;
  } halo_{};  // see Topology
  const int* receiver_ = nullptr;
  int shift_rows_ = 0;
  std::vector<LayerTasks<T>> tasks_;
  MapTasks<T> detector_tasks_;
  std::vector<int> tasks_shape_;                  // what they depend on
  bool tasks_gradients_ = false;                  // whether they include gradients of weights
  int structures_ = 0, reserved_structures_ = 0;  // whose strains a loss depends on
  std::vector<State> states_;
  std::vector<int> blocks_;  // ends of blocks of receivers
  int block_receivers_ = 0, block_edges_ = 0;
  Arena topology_arena_, arena_, host_arena_{true};
  struct {
    double *positions, *tangents, *shifts, *energies, *forces, *force_tangents, *virial, *atom_virials;
    double *loss, *strains, *gradient;
    double *features, *feature_tangents, *feature_weights, *members, *force_std, *distances, *whitened;
    int *status, *cleared, *structure;
    S* rows;
  } host_{};
  double *positions_ = nullptr, *x_ = nullptr, *tangents_ = nullptr, *shifts_ = nullptr, *energies_ = nullptr, *forces_ = nullptr, *force_tangents_ = nullptr,
         *atom_virials_ = nullptr, *virials_[2] = {};
  int *status_ = nullptr, *structure_ = nullptr;
  double *gradient_ = nullptr, *loss_ = nullptr, *strains_ = nullptr, *readout_partials_ = nullptr;
  double *node_features_ = nullptr, *feature_tangents_ = nullptr, *feature_weights_ = nullptr, *members_ = nullptr, *force_std_ = nullptr,
         *distances_ = nullptr, *whitened_ = nullptr;
  T *centred_ = nullptr, *detected_ = nullptr;  // of detectors: features less their mean, and what their matrices make of them
  Sum *readout_x_ = nullptr, *readout_g_ = nullptr;
  T* partials_ = nullptr;
  int virial_rows_ = 0;
  EdgeVector<S>* vectors_ = nullptr;
  Sum *edge_forces_ = nullptr, *sums_ = nullptr;
  S *features_ = nullptr, *gfeatures_ = nullptr, *A_ = nullptr, *contracted_ = nullptr, *gmessage_ = nullptr, *gu_ = nullptr, *edge_rows_ = nullptr,
    *moved_ = nullptr, *raw_message_ = nullptr, *phi_ = nullptr, *phi_slopes_ = nullptr, *rows_ = nullptr, *row_slopes_ = nullptr, *edge_density_ = nullptr,
    *grho_ = nullptr;
  double flops_ = 0.0, bytes_ = 0.0;
  long launches_ = 0;
};

}  // namespace adatom::gnn::cuda

#include "gnn/cuda/evaluator_preparation.hpp"
#include "gnn/cuda/evaluator_step.hpp"
#include "gnn/cuda/evaluator_passes.hpp"
#include "gnn/cuda/evaluator_gradients.hpp"
#include "gnn/cuda/evaluator_halo.hpp"
