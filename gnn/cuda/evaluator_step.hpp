// SPDX-License-Identifier: MIT
// A step from positions to results: what goes up, what comes down. Part of evaluator.hpp.
#pragma once
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

template <class S>
void CudaEvaluator<S>::begin() {
  const std::size_t nodes = graph_.nodes;
  stream_.upload(positions_, host_.positions, 3 * nodes * sizeof(double));
  if (shift_rows_) stream_.upload(shifts_, host_.shifts, 3 * std::size_t(shift_rows_) * sizeof(double));
  if constexpr (is_dual<S>) stream_.upload(tangents_, host_.tangents, 3 * nodes * sizeof(double));
  if (wanted_.weights) {
    stream_.clear(gradient_, array_entries() * sizeof(double));
    stream_.upload(loss_, host_.loss, graph_.receivers * sizeof(double));
    stream_.upload(strains_, host_.strains, 9 * std::size_t(structures_) * sizeof(double));
    if (structures_) stream_.upload(structure_, host_.structure, nodes * sizeof(int));
  }
  if (wanted_.weighted) stream_.upload(feature_weights_, host_.feature_weights, std::size_t(graph_.receivers) * network_->features() * sizeof(double));
  stream_.upload(status_, host_.cleared, edge_status_size * sizeof(int));
  g_ = graph_;
  g_.x = x_;
  g_.shifts = shifts_;
  GatherPositions gather;
  gather.node = g_.node, gather.positions = positions_, gather.x = x_;
  if (of_structures_) {
    gather.offset = lists_.offset(), gather.reference = lists_.reference();
    gather.limit2 = move_limit2_, gather.moved = status_ + moved;
  }
  stream_.each(gather, graph_.nodes);
  FormEdges<S> form;
  form.g = g_;
  form.limit = network_->cutoff * network_->cutoff;
  if (of_structures_) form.least = least_distance * least_distance;
  form.tangents = tangents_;
  if (wanted_.weights) {
    form.sign = -1.0;
    form.strains = structures_ ? strains_ : nullptr, form.structure = structure_;
  }
  form.vectors = vectors_;
  form.forces = wanted_.forces ? edge_forces_ : nullptr;
  form.energies = sums_;
  form.status = status_;
  form.repels = network_->repels && !wanted_.weights && !wanted_.weighted;
  form.repulsion = network_->repulsion;
  form.radii = radii_.data(), form.elements = elements_.data(), form.scale = scale_.data();
  stream_.teams(form, graph_.receivers);
  stream_.download(host_.status, status_, edge_status_size * sizeof(int));
}

template <class S>
auto CudaEvaluator<S>::fault() const -> std::pair<int, const char*> {
  if (host_.status[not_finite] < graph_.receivers)
    return {host_.status[not_finite], "or one of its neighbours has a position that is not finite (NaN, infinite, or too large to compute with)"};
  if (host_.status[coincident] < graph_.receivers) return {host_.status[coincident], "and one of its neighbours are on the same spot; move one of them"};
  return {-1, ""};
}

template <class S>
void CudaEvaluator<S>::throw_fault() const {
  const auto [bad, what] = fault();
  if (bad >= 0) throw std::invalid_argument("atom " + std::to_string(bad) + " " + what);
}

template <class S>
void CudaEvaluator<S>::passes(Halo* halo) {
  for (int t = 0; t <= last(); ++t) {
    if (t > 0 && halo) exchange(t, *halo);
    forward(t);
  }
  for (int t = last(); wanted_.reverses() && t >= 0; --t) {
    reverse(t);
    if (t > 0 && halo) exchange_reverse(t, *halo);
  }
}

template <class S>
void CudaEvaluator<S>::finish() {
  const std::size_t nodes = graph_.nodes, receivers = graph_.receivers;
  CollectEnergies<S> energies{g_, wanted_.weighted ? nullptr : offset_.data(), scale_.data(), sums_, energies_};
  stream_.each(energies, graph_.receivers);
  stream_.download(host_.energies, energies_, receivers * sizeof(double));
  const std::size_t features = network_->features(), members = detectors_.view.members, components = detectors_.view.components;
  if (wanted_.features) stream_.download(host_.features, node_features_, receivers * features * sizeof(double));
  if (wanted_.feature_tangents) stream_.download(host_.feature_tangents, feature_tangents_, receivers * features * sizeof(double));
  if (wanted_.members) stream_.download(host_.members, members_, receivers * members * sizeof(double));
  if (wanted_.force_std) stream_.download(host_.force_std, force_std_, receivers * sizeof(double));
  if (wanted_.distances) stream_.download(host_.distances, distances_, receivers * sizeof(double));
  if (wanted_.whitened) stream_.download(host_.whitened, whitened_, receivers * components * sizeof(double));
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

template <class S>
void CudaEvaluator<S>::collect(GraphResult& result) {
  const int receivers = graph_.receivers;
  result.energy = 0.0;
  for (int i = 0; i < receivers; ++i) result.energy += host_.energies[i];
  if (result.energies) std::copy_n(host_.energies, receivers, result.energies);
  const std::size_t nodes = graph_.nodes;
  if (result.forces) std::copy_n(host_.forces, 3 * nodes, result.forces);
  if constexpr (is_dual<S>)
    if (result.force_tangents) std::copy_n(host_.force_tangents, 3 * nodes, result.force_tangents);
  if (result.atom_virials) std::copy_n(host_.atom_virials, 9 * nodes, result.atom_virials);
  std::fill(std::begin(result.virial), std::end(result.virial), 0.0);
  if (wanted_.virial && receivers > 0) std::copy_n(host_.virial, 9, result.virial);
  const std::size_t features = network_->features(), members = detectors_.view.members, components = detectors_.view.components;
  if (wanted_.features) std::copy_n(host_.features, receivers * features, result.features);
  if (wanted_.feature_tangents) std::copy_n(host_.feature_tangents, receivers * features, result.feature_tangents);
  if (wanted_.members) std::copy_n(host_.members, receivers * members, result.member_energies);
  if (wanted_.force_std) std::copy_n(host_.force_std, receivers, result.force_std);
  if (wanted_.distances) std::copy_n(host_.distances, receivers, result.distances);
  if (wanted_.whitened) std::copy_n(host_.whitened, receivers * components, result.whitened);
  flops_ = 0.0;
  bytes_ = count_edge_bytes(receivers, edges_, wanted_.forces, sizeof(S));
  for (const Layer& layer : network_->layers) {
    bytes_ += count_bytes(layer, receivers, edges_, wanted_.forces, sizeof(S));
    flops_ += count_flops(layer, receivers, host_.status[active_edges], harmonics_.count(), wanted_.forces, false);
  }
}

}  // namespace adatom::gnn::cuda
