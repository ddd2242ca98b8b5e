// SPDX-License-Identifier: MIT
// The passes over layers: launches of their kernels. Part of evaluator.hpp.
#pragma once
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

template <class S>
void CudaEvaluator<S>::apply(const MapTasks<T>& map, const S* x, int x_size, S* y, int y_size, bool accumulate, int first, int end, int x_first, int y_first,
                             [[maybe_unused]] bool exact) {
  if (!accumulate && !map.covers && end > first) stream_.clear(y + std::size_t(first - y_first) * y_size, std::size_t(end - first) * y_size * sizeof(S));
  const std::int64_t tasks = static_cast<std::int64_t>(map.tasks.size());
  if (!tasks || end <= first) return;
  const auto launch = [&](auto kernel) {
    using Kernel = decltype(kernel);
    kernel.tasks = map.tasks.data();
    kernel.row_tiles = static_cast<int>((std::int64_t(map.most_rows) * (end - first) + Kernel::tile - 1) / Kernel::tile);
    kernel.column_tiles = (map.most_columns + Kernel::tile - 1) / Kernel::tile;
    kernel.first_node = first, kernel.end_node = end;
    kernel.x = x, kernel.x_size = x_size, kernel.x_first = x_first;
    kernel.y = y, kernel.y_size = y_size, kernel.y_first = y_first;
    kernel.accumulate = accumulate;
    stream_.teams(kernel, tasks * kernel.row_tiles * kernel.column_tiles, Kernel::shared(), Kernel::threads);
  };
  if constexpr (std::is_same_v<S, float>) {
    if (!exact && matmul_ == Matmul::tf32) return launch(LinearTensor<Matmul::tf32>{});
    if (!exact && matmul_ == Matmul::bf16) return launch(LinearTensor<Matmul::bf16>{});
  }
  launch(Linear<S>{});
}

template <class S>
void CudaEvaluator<S>::add_bias(const DeviceMap<T>& map, S* y, int size, int first, int end, int y_first) {
  if (!map.bias.size()) return;
  for (const MapPart<T>& part : map.parts)
    if (part.forward.components == 1 && part.forward.out == map.bias_offset) return;
  const int count = static_cast<int>(map.bias.size());
  stream_.each(AddBias<S>{map.bias.data(), map.bias_offset, count, size, y + std::size_t(first - y_first) * size}, std::int64_t(end - first) * count);
}

template <class S>
void CudaEvaluator<S>::exact_radial(int t, int first, int end) {
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

template <class S>
auto CudaEvaluator<S>::element_input(int t) -> ElementInput<S> {
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

template <class S>
auto CudaEvaluator<S>::convolve_input(int t, int first, int end) -> ConvolveInput<S> {
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

template <class S>
template <int V>
void CudaEvaluator<S>::convolve(ConvolveInput<S> in, const typename ConvolutionWeights<T>::Width& width, const DevicePath* tasks, int receivers, S* A) {
  in.paths = tasks + width.first;
  const std::size_t shared = Convolve<S, V>::shared(harmonics_.count(), width.most_z);
  stream_.teams(Convolve<S, V>{in, width.count, A}, std::int64_t(receivers) * width.count, shared);
}

template <class S>
template <int V>
void CudaEvaluator<S>::convolve_reverse(const ConvolveInput<S>& in, const PathGroup& group, const typename ConvolutionWeights<T>::Need& need, int receivers) {
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

template <class S>
void CudaEvaluator<S>::forward(int t) {
  const LayerWeights<T>& layer = layers_[t];
  const LayerTasks<T>& tasks = tasks_[t];
  const Layer& spec = *layer.spec;
  State& state = states_[t];
  const int receivers = graph_.receivers, message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size;
  if (spec.merged()) {
    if (!network_->splines) exact_radial(t, 0, edges_);
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
      S* const A = wanted_.weights ? state.A : A_;  // with gradients of weights there is one block
      for (const auto& width : layer.convolution.widths) {
        const DevicePath* list = layer.convolution.tasks.data();
        switch (width.channels_per_thread) {
          case 1: convolve<1>(in, width, list, end - first, A); break;
          case 2:
            if constexpr (widest >= 2) convolve<2>(in, width, list, end - first, A);
            break;
          default:
            if constexpr (widest >= 4) convolve<4>(in, width, list, end - first, A);
        }
      }
      forward_map(layer.linear, tasks.linear, A, spec.mid_layout.size, raw, message_size, false, first, end, first, 0);
      first = end;
    }
    if (!layer.message_skip.empty()) forward_map(layer.message_skip, tasks.message_skip, raw, message_size, state.message, message_size, false, 0, receivers);
  }
  if (!spec.density.empty())
    stream_.teams(Normalize<S>{g_, vectors_, layer.density_table.view, network_->splines ? nullptr : edge_density_, state.density, state.message, message_size},
                  receivers);

  // Update: message -> features after the layer.
  S* out = t == last() ? features_ : states_[t + 1].h;
  S* gout = !wanted_.reverses() ? nullptr : t == last() ? gfeatures_ : states_[t + 1].gh;
  if (spec.contracts) {
    S* const contracted = wanted_.weights ? state.contracted : contracted_;
    stream_.teams(Contract<S>{contraction_input(t), contracted}, contraction_teams(t), Contract<S>::shared(static_cast<int>(spec.contraction.inputs.size())));
    forward_map(layer.product, tasks.product, contracted, spec.contraction.out.size, out, out_size, false, 0, receivers);
    add_skip(t, out, out_size, in_size);
  } else {
    add_skip(t, state.message, message_size, in_size);
    stream_.teams(ApplyGate<S>{gate(layer), state.message, message_size, out, out_size}, receivers);
  }
  if (gout) stream_.clear(gout, std::size_t(receivers) * out_size * sizeof(S));
  if (wanted_.passes_features()) pass_features(t, out, gout);
  if (wanted_.detects() && t == last()) detect();
  if (spec.has_readout && !wanted_.weighted) {
    ApplyReadout<S> kernel;
    kernel.species = g_.species, kernel.scale = scale_.data();
    kernel.steps = layer.readout.steps.data(), kernel.step_count = static_cast<int>(layer.readout.steps.size()), kernel.hidden = layer.readout.hidden;
    kernel.activation = spec.readout.activation;
    kernel.h = out, kernel.gh = gout, kernel.size = out_size, kernel.in = spec.readout.in;
    kernel.energies = sums_;
    if (wanted_.weights) {
      kernel.loss = loss_, kernel.node = g_.node;
      kernel.kept_x = readout_x_, kernel.kept_g = readout_g_, kernel.kept_size = spec.readout.layers.front().in + layer.readout.hidden;
    }
    stream_.teams(kernel, receivers, ApplyReadout<S>::shared(layer.readout.hidden));
    if (wanted_.weights) gradient(tasks.gradient.readout, readout_x_, kernel.kept_size, readout_g_, kernel.hidden, readout_partials_);
  }
  if (t < last()) {
    const LayerWeights<T>& next = layers_[t + 1];
    forward_map(next.up, tasks_[t + 1].up, out, out_size, states_[t + 1].u, next.spec->conv_layout.size, false, 0, receivers);
  }
}

template <class S>
void CudaEvaluator<S>::add_skip(int t, S* y, int size, int in_size) {
  const LayerWeights<T>& layer = layers_[t];
  if (!layer.skip.empty()) forward_map(layer.skip, tasks_[t].skip, states_[t].h, in_size, y, size, true, 0, graph_.receivers);
  if (layer.skip_bias.size()) stream_.each(AddSpeciesRow<S>{g_.species, layer.skip_bias.data(), y, size, true}, std::int64_t(graph_.receivers) * size);
}

template <class S>
void CudaEvaluator<S>::pass_features(int t, const S* h, S* gh) {
  const LayerWeights<T>& layer = layers_[t];
  PassFeatures<S> kernel;
  kernel.node = g_.node, kernel.species = g_.species;
  kernel.offsets = layer.scalars.data(), kernel.count = static_cast<int>(layer.scalars.size()), kernel.width = network_->features();
  for (int s = 0; s < t; ++s) kernel.first += static_cast<int>(layers_[s].scalars.size());
  kernel.h = h, kernel.gh = gh, kernel.size = layer.spec->out_layout.size;
  kernel.values = wanted_.features ? node_features_ : nullptr, kernel.tangents = wanted_.feature_tangents ? feature_tangents_ : nullptr;
  kernel.weights = wanted_.weighted ? feature_weights_ : nullptr;
  kernel.energies = sums_;
  if (wanted_.detects()) {
    kernel.mean = detectors_.mean.data(), kernel.centred = centred_, kernel.centred_size = detectors_.in;
    if (t == 0) stream_.clear(centred_, std::size_t(graph_.receivers) * detectors_.in * sizeof(T));  // rows are padded
  }
  stream_.teams(kernel, graph_.receivers);
}

template <class S>
void CudaEvaluator<S>::detect() {
  if constexpr (!is_dual<S>) {
    apply(detector_tasks_, centred_, detectors_.in, detected_, detectors_.out, false, 0, graph_.receivers, 0, 0, true);
    DetectNodes<T> kernel;
    kernel.d = detectors_.view;
    kernel.node = g_.node, kernel.species = g_.species;
    kernel.y = detected_, kernel.size = detectors_.out;
    kernel.member_energies = wanted_.members ? members_ : nullptr, kernel.force_std = wanted_.force_std ? force_std_ : nullptr;
    kernel.distances = wanted_.distances ? distances_ : nullptr, kernel.whitened = wanted_.whitened ? whitened_ : nullptr;
    stream_.teams(kernel, graph_.receivers, DetectNodes<T>::shared(detectors_.view.bands));
  }
}

template <class S>
auto CudaEvaluator<S>::contraction_input(int t) -> ContractionInput<S> {
  const LayerWeights<T>& layer = layers_[t];
  const Contraction& c = layer.spec->contraction;
  return {groups_,
          g_.species,
          layer.contraction.parts.data(),
          layer.contraction.inputs.data(),
          layer.contraction.part_count,
          static_cast<int>(c.inputs.size()),
          c.channels,
          layer.spec->message_layout.size,
          c.out.size,
          states_[t].message};
}

template <class S>
auto CudaEvaluator<S>::contraction_teams(int t) const -> std::int64_t {
  return static_cast<std::int64_t>(topology_.groups.size()) * ((layers_[t].spec->contraction.channels + warp_size - 1) / warp_size);
}

template <class S>
auto CudaEvaluator<S>::gate(const LayerWeights<T>& layer) const -> DeviceGate<T> {
  const Gate& g = layer.spec->gate;
  return {layer.gate_scalars.data(), layer.gate_gated.data(), static_cast<int>(g.scalars.size()), static_cast<int>(g.gated.size()), g.activation,
          static_cast<T>(g.factor)};
}

template <class S>
void CudaEvaluator<S>::reverse(int t) {
  const LayerWeights<T>& layer = layers_[t];
  const LayerTasks<T>& tasks = tasks_[t];
  const Layer& spec = *layer.spec;
  State& state = states_[t];
  const int receivers = graph_.receivers, message_size = spec.message_layout.size, out_size = spec.out_layout.size, in_size = spec.in_layout.size;
  S* gout = t == last() ? gfeatures_ : states_[t + 1].gh;
  if (t < last()) {
    const LayerWeights<T>& next = layers_[t + 1];
    if (wanted_.weights) gradient(tasks_[t + 1].gradient.up, states_[t + 1].h, out_size, gu_, next.spec->conv_layout.size);
    apply(tasks_[t + 1].up_reverse, gu_, next.spec->conv_layout.size, gout, out_size, true, 0, receivers);
  }
  const S* gskip = gout;
  if (spec.contracts) {
    apply(tasks.product_reverse, gout, out_size, contracted_, spec.contraction.out.size, false, 0, receivers);
    stream_.teams(ContractReverse<S>{contraction_input(t), contracted_, gmessage_}, contraction_teams(t),
                  ContractReverse<S>::shared(static_cast<int>(spec.contraction.inputs.size())));
    if (wanted_.weights) {
      gradient(tasks.gradient.product, state.contracted, spec.contraction.out.size, gout, out_size);
      contraction_gradient(t);
    }
  } else {
    gskip = gmessage_;
    stream_.teams(ReverseGate<S>{gate(layer), state.message, gout, gmessage_, message_size, out_size}, receivers);
  }
  const int skip_size = spec.contracts ? out_size : message_size;
  if (wanted_.weights) {
    gradient(tasks.gradient.skip, state.h, in_size, gskip, skip_size);
    gradient(tasks.gradient.skip_bias, nullptr, 0, gskip, skip_size);
  }
  if (!layer.skip.empty()) apply(tasks.skip_reverse, gskip, skip_size, state.gh, in_size, true, 0, receivers);
  if (!network_->splines && (spec.merged() || !spec.density.empty())) exact_radial_again(t);
  if (!spec.density.empty()) {
    ReverseNormalize<S> kernel;
    kernel.g = g_, kernel.vectors = vectors_, kernel.table = layer.density_table.view;
    kernel.values = network_->splines ? nullptr : edge_density_;
    kernel.inverse = state.density, kernel.message = state.message, kernel.gmessage = gmessage_, kernel.size = message_size;
    kernel.edge_forces = wanted_.forces ? edge_forces_ : nullptr;
    kernel.grho = wanted_.weights ? grho_ : nullptr;
    stream_.teams(kernel, receivers);
    if (wanted_.weights) density_gradient(t);
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
    if (wanted_.weights) {  // the skip's input is formed again
      forward_map(layer.linear, tasks.linear, state.A, spec.mid_layout.size, raw_message_, message_size, false, 0, receivers);
      gradient(tasks.gradient.message_skip, raw_message_, message_size, gmessage_, message_size);
    }
    apply(tasks.message_skip_reverse, gmessage_, message_size, graw, message_size, false, 0, receivers);
  }
  if (wanted_.weights) gradient(tasks.gradient.linear, state.A, spec.mid_layout.size, graw, message_size);
  if (layer.convolution.column_count < spec.conv_layout.size) stream_.clear(gu_, std::size_t(graph_.nodes) * spec.conv_layout.size * sizeof(S));
  int first = 0;
  for (const int end : blocks_) {
    apply(tasks.linear_reverse, graw, message_size, A_, spec.mid_layout.size, false, first, end, 0, first);
    ConvolveInput<S> in = convolve_input(t, first, end);
    in.paths = layer.convolution.paths.data();
    if (wanted_.weights) table_gradient(t, in);
    for (std::size_t k = 0; k < layer.convolution.groups.size() && !wanted_.weights; ++k) {
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
    if (t > 0 || wanted_.weights) {
      SumSenders<S> sum;
      sum.g = g_, sum.vectors = vectors_, sum.first_node = first, sum.end_node = end;
      sum.columns = layer.convolution.columns.data(), sum.count = layer.convolution.column_count, sum.size = spec.conv_layout.size;
      sum.edge_rows = edge_rows_, sum.gu = gu_;
      stream_.each(sum, std::int64_t(graph_.nodes) * sum.count);
    }
    first = end;
  }
  if (blocks_.empty() && t > 0) stream_.clear(gu_, std::size_t(graph_.nodes) * spec.conv_layout.size * sizeof(S));
  if (wanted_.weights && t == 0) gradient(tasks.gradient.species_features, nullptr, 0, gu_, spec.conv_layout.size);
}

template <class S>
void CudaEvaluator<S>::exact_radial_again(int t) {
  if (layers_[t].spec->merged()) return exact_radial(t, 0, edges_);
  int first = 0;
  for (const int end : blocks_) {
    exact_radial(t, topology_.first_edge[first], topology_.first_edge[end]);
    first = end;
  }
}

}  // namespace adatom::gnn::cuda
