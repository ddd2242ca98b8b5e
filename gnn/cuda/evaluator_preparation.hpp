// SPDX-License-Identifier: MIT
// Preparation of a step: topology or neighbour lists, tasks, and where everything lies in memory. Part of evaluator.hpp.
#pragma once
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

template <class S>
void CudaEvaluator<S>::prepare_atoms(const StructureView& view, std::uint64_t revision, const Wanted& wanted) {
  const int atoms = view.first_atom[view.structures];
  const bool same = revision != 0 && built_ && of_structures_ && revision == topology_.revision && atoms == graph_.nodes;
  if (same && wanted == wanted_) return;
  built_ = false;  // an error must not leave what looks complete
  if (same && listed_) {
    wanted_ = wanted;
    reserve_host();
    built_ = true;
    reserve(wanted);
    return;
  }
  if (!same) {
    listed_ = false;
    of_structures_ = true;
    graph_ = {};
    graph_.receivers = graph_.nodes = atoms;
    shift_rows_ = 0;
    topology_.build_species(view.species, atoms, network_->species());
    topology_.revision = revision;
    topology_.first_edge.clear();
    lists_.set_atoms(stream_, view, network_->species(), topology_.groups);
  }
  wanted_ = wanted;
  reserve_host();
  built_ = true;
  listed_ = false;  // memory of the device is laid out when the number of edges is known
}

template <class S>
void CudaEvaluator<S>::make_lists(const StructureView& view) {
  const bool fresh = !listed_;
  const DeviceGraph old = graph_;
  const std::pair<const double*, const double*> frame{lists_.offset(), lists_.reference()};
  listed_ = false;
  lists_.build(stream_, view, host_.positions, !network_->splines);
  graph_ = lists_.graph();
  graph_.pairs = network_->radial.depends_on_pair();
  if (!(graph_ == old) || frame != std::pair(lists_.offset(), lists_.reference())) ++key_;
  groups_ = lists_.groups(), receiver_ = lists_.receiver();
  const double limit2 = 0.25 * (view.range - network_->cutoff) * (view.range - network_->cutoff);
  if (limit2 != move_limit2_) ++key_;
  move_limit2_ = limit2;
  edges_ = lists_.edges();
  topology_.first_edge.clear();
  if (!network_->splines) download_first_edges();
  make_tasks(false);
  if (fresh || lists_.edge_room() != edge_room_ || blocks_.size() > 1 || !network_->splines) {
    edge_room_ = lists_.edge_room();
    reserve(wanted_);
  }
  listed_ = true;
}

template <class S>
void CudaEvaluator<S>::download_first_edges() {
  if (!topology_.first_edge.empty()) return;
  topology_.first_edge.resize(graph_.receivers + 1);
  stream_.download(topology_.first_edge.data(), graph_.first_edge, topology_.first_edge.size() * sizeof(int));
  stream_.synchronize();
}

template <class S>
void CudaEvaluator<S>::begin_step(const Graph& graph, const Wanted& wanted, [[maybe_unused]] const double* tangents, const Halo* halo) {
  try {
    prepare(graph, wanted, halo);
  } catch (const OutOfMemory& error) {
    fail_memory(error.bytes);
  }
  std::copy_n(graph.positions, 3 * std::size_t(graph.n_nodes), host_.positions);
  if (shift_rows_) std::copy_n(graph.shifts, 3 * std::size_t(shift_rows_), host_.shifts);
  if constexpr (is_dual<S>) std::copy_n(tangents, 3 * std::size_t(graph.n_nodes), host_.tangents);
  if (wanted.weighted) std::copy_n(graph.feature_weights, std::size_t(graph.n_receivers) * network_->features(), host_.feature_weights);
}

template <class S>
void CudaEvaluator<S>::prepare(const Graph& g, const Wanted& wanted, const Halo* halo) {
  // Whether rows are packed, and which, a halo says when it comes, and again with another neighbour list.
  const bool other_halo = halo && !wanted_.halo;
  if (g.revision == 0 || !built_ || of_structures_ || other_halo || g.revision != topology_.revision || g.n_receivers != graph_.receivers ||
      g.n_nodes != graph_.nodes) {
    built_ = of_structures_ = false;
    topology_.build(g, network_->species());
    edges_ = edge_room_ = topology_.edges();
    const std::vector<int>* shared = halo ? halo->shared_rows() : nullptr;
    packs_ = shared != nullptr;
    topology_.build_halo(shared ? *shared : std::vector<int>());
    upload_topology(g);
    make_tasks(wanted.weights);
    built_ = true;
    reserve(wanted);
  } else if (!(wanted == wanted_) || structures_ > reserved_structures_) {
    built_ = false;  // an error must not leave what looks complete
    make_tasks(wanted.weights);
    built_ = true;
    reserve(wanted);
  }
}

template <class S>
void CudaEvaluator<S>::upload_topology(const Graph& g) {
  graph_ = {};
  graph_.receivers = g.n_receivers, graph_.nodes = g.n_nodes;
  graph_.pairs = network_->radial.depends_on_pair();
  shift_rows_ = 0;
  for (const int s : topology_.shift) shift_rows_ = std::max(shift_rows_, s + 1);
  const auto with_arrays = [&](auto f) {
    f(graph_.node, topology_.node), f(graph_.species, topology_.species), f(graph_.first_edge, topology_.first_edge), f(graph_.sender, topology_.sender);
    f(graph_.shift, topology_.shift), f(graph_.first_run, topology_.first_run), f(graph_.run_edge, topology_.run_edge);
    f(graph_.first_sent, topology_.first_sent), f(graph_.sent_edge, topology_.sent_edge), f(groups_, topology_.groups);
    f(halo_.shared, topology_.shared), f(halo_.target, topology_.target), f(halo_.first, topology_.first_packed), f(halo_.packed, topology_.packed);
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

template <class S>
void CudaEvaluator<S>::make_tasks(bool gradients) {
  std::vector<int> shape = topology_.first_of_species;
  if (!network_->splines) shape.push_back(edges_);
  if (!tasks_.empty() && shape == tasks_shape_ && (tasks_gradients_ || !gradients)) return;
  tasks_shape_.clear();
  tasks_.clear();
  task_store_.begin();
  const TaskMaker<T> maker(task_store_, *network_, topology_.first_of_species, graph_.receivers, edges_);
  for (const LayerWeights<T>& layer : layers_) tasks_.push_back(maker.make(layer, gradients));
  if (detectors_.in) detector_tasks_ = maker.make(detectors_);
  task_store_.upload(stream_);
  stream_.synchronize();
  tasks_shape_ = std::move(shape);
  tasks_gradients_ = gradients;
}

template <class S>
void CudaEvaluator<S>::reserve(const Wanted& wanted) {
  wanted_ = wanted;
  ++key_;
  try {
    if (!of_structures_) reserve_host();  // the others' is in use
    reserved_structures_ = structures_;
    for (int receivers = std::max(graph_.receivers, 1);; receivers = (receivers + 1) / 2) {
      make_blocks(receivers);
      request();
      try {
        arena_.commit();
        break;
      } catch (const OutOfMemory&) {
        const std::size_t needed = arena_.wanted();
        arena_.forget();
        if (receivers <= smallest_block || wanted.weights) fail_memory(needed);
      }
    }
  } catch (...) {
    built_ = false;
    arena_.forget();
    throw;
  }
}

template <class S>
void CudaEvaluator<S>::make_blocks(int receivers) {
  blocks_.clear();
  if (of_structures_ && receivers < graph_.receivers) download_first_edges();
  for (int first = 0; first < graph_.receivers; first += receivers) blocks_.push_back(std::min(first + receivers, graph_.receivers));
  block_receivers_ = block_edges_ = 0;
  if (blocks_.size() == 1) {
    block_receivers_ = graph_.receivers, block_edges_ = edge_room_;
    return;
  }
  int first = 0;
  for (const int end : blocks_) {
    block_receivers_ = std::max(block_receivers_, end - first);
    block_edges_ = std::max(block_edges_, topology_.first_edge[end] - topology_.first_edge[first]);
    first = end;
  }
}

template <class S>
void CudaEvaluator<S>::reserve_host() {
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
  // Of a halo that packs rows itself all nodes' rows; else only those that are exchanged.
  host_arena_.add(host_.rows, wanted_.halo ? (packs_ ? topology_.shared.size() + nodes - receivers : nodes) * row : 0);
  host_arena_.add(host_.loss, wanted_.weights ? receivers : 0);
  host_arena_.add(host_.strains, wanted_.weights ? 9 * std::size_t(structures_) : 0);
  host_arena_.add(host_.structure, wanted_.weights && structures_ ? nodes : 0);
  host_arena_.add(host_.gradient, wanted_.weights ? array_entries() : 0);
  const std::size_t features = receivers * network_->features();
  host_arena_.add(host_.features, wanted_.features ? features : 0);
  host_arena_.add(host_.feature_tangents, wanted_.feature_tangents ? features : 0);
  host_arena_.add(host_.feature_weights, wanted_.weighted ? features : 0);
  host_arena_.add(host_.members, wanted_.members ? receivers * detectors_.view.members : 0);
  host_arena_.add(host_.force_std, wanted_.force_std ? receivers : 0);
  host_arena_.add(host_.distances, wanted_.distances ? receivers : 0);
  host_arena_.add(host_.whitened, wanted_.whitened ? receivers * detectors_.view.components : 0);
  host_arena_.commit();
  host_.cleared[not_finite] = host_.cleared[coincident] = host_.cleared[moved] = std::numeric_limits<int>::max();
  host_.cleared[active_edges] = 0;
}

template <class S>
void CudaEvaluator<S>::request() {
  const std::size_t nodes = graph_.nodes, receivers = graph_.receivers, edges = edge_room_;
  arena_.add(positions_, 3 * nodes);
  arena_.add(x_, 3 * nodes);
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
  const std::size_t scalars = receivers * network_->features();
  arena_.add(node_features_, wanted_.features ? scalars : 0);
  arena_.add(feature_tangents_, wanted_.feature_tangents ? scalars : 0);
  arena_.add(feature_weights_, wanted_.weighted ? scalars : 0);
  arena_.add(members_, wanted_.members ? receivers * detectors_.view.members : 0);
  arena_.add(force_std_, wanted_.force_std ? receivers : 0);
  arena_.add(distances_, wanted_.distances ? receivers : 0);
  arena_.add(whitened_, wanted_.whitened ? receivers * detectors_.view.components : 0);
  arena_.add(centred_, wanted_.detects() ? receivers * detectors_.in : 0);
  arena_.add(detected_, wanted_.detects() ? receivers * detectors_.out : 0);
  virial_rows_ = wanted_.virial ? static_cast<int>(receivers) : 0;
  arena_.add(virials_[0], 9 * std::size_t(virial_rows_));
  arena_.add(virials_[1], wanted_.virial ? 9 * (receivers / SumRows::rows_per_team + 1) : 0);
  std::size_t mid = 0, message = 0, contracted = 0, conv = 0, hidden = 0, columns = 0;
  std::size_t partials = 0, readout_partials = 0, readout_x = 0, readout_g = 0;
  bool density = false;
  for (std::size_t t = 0; t < layers_.size(); ++t) {
    const Layer& spec = *layers_[t].spec;
    State& s = states_[t];
    s = {};
    if (t > 0) {
      arena_.add(s.h, receivers * spec.in_layout.size);
      if (wanted_.reverses()) arena_.add(s.gh, receivers * spec.in_layout.size);
    }
    if (!spec.merged()) {
      arena_.add(s.u, nodes * spec.conv_layout.size);
      conv = std::max<std::size_t>(conv, spec.conv_layout.size);
      mid = std::max<std::size_t>(mid, spec.mid_layout.size);
    }
    arena_.add(s.message, receivers * spec.message_layout.size);
    if (!spec.density.empty()) arena_.add(s.density, receivers), density = true;
    if (wanted_.weights) {
      arena_.add(s.A, receivers * spec.mid_layout.size);
      arena_.add(s.contracted, receivers * spec.contraction.out.size);
      if (spec.has_readout) {
        const int width = spec.readout.layers.front().in + layers_[t].readout.hidden;
        readout_x = std::max<std::size_t>(readout_x, width), readout_g = std::max<std::size_t>(readout_g, layers_[t].readout.hidden);
      }
      if (graph_.receivers > 0) {
        partials = std::max(partials, tasks_[t].gradient.partials);
        readout_partials = std::max(readout_partials, tasks_[t].gradient.readout.partials);
      }
    }
    message = std::max<std::size_t>(message, spec.message_layout.size);
    contracted = std::max<std::size_t>(contracted, spec.contraction.out.size);
    hidden = std::max<std::size_t>(hidden, spec.hidden);
    if (!spec.merged()) columns = std::max<std::size_t>(columns, spec.radial_matrix.out);
  }
  const std::size_t out = layers_.back().spec->out_layout.size;
  arena_.add(features_, receivers * out);
  if (wanted_.reverses()) arena_.add(gfeatures_, receivers * out);
  arena_.add(A_, std::size_t(block_receivers_) * mid);
  arena_.add(contracted_, receivers * contracted);
  arena_.add(gradient_, wanted_.weights ? array_entries() : 0);
  arena_.add(loss_, wanted_.weights ? receivers : 0);
  arena_.add(strains_, wanted_.weights ? 9 * std::size_t(structures_) : 0);
  arena_.add(structure_, wanted_.weights && structures_ ? nodes : 0);
  arena_.add(partials_, partials);
  arena_.add(readout_partials_, readout_partials);
  arena_.add(readout_x_, receivers * readout_x);
  arena_.add(readout_g_, receivers * readout_g);
  arena_.add(grho_, wanted_.weights && density ? receivers : 0);
  if (wanted_.reverses()) {
    arena_.add(gmessage_, receivers * message);
    arena_.add(gu_, nodes * conv);
    arena_.add(edge_rows_, std::size_t(block_edges_) * conv);
  }
  arena_.add(moved_, wanted_.halo ? (packs_ ? topology_.shared.size() : receivers) * conv : 0);
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

}  // namespace adatom::gnn::cuda
