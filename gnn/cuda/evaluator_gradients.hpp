// SPDX-License-Identifier: MIT
// Gradients of weights: launches of the kernels of gradient.hpp. Part of evaluator.hpp.
#pragma once
#include "gnn/cuda/evaluator.hpp"

namespace adatom::gnn::cuda {

template <class S>
template <class X, class P>
void CudaEvaluator<S>::gradient(const GradientTasks& tasks, const X* x, int x_size, const X* g, int g_size, P* partials) {
  if constexpr (is_dual<X>) {
    const std::int64_t count = static_cast<std::int64_t>(tasks.tasks.size());
    if (!count) return;
    using Kernel = LinearGradient<X>;
    Kernel kernel;
    kernel.tasks = tasks.tasks.data();
    kernel.most_splits = tasks.most_splits;
    kernel.k_tiles = (tasks.most_k + Kernel::tile - 1) / Kernel::tile, kernel.n_tiles = (tasks.most_n + Kernel::tile - 1) / Kernel::tile;
    kernel.x = x, kernel.x_size = x_size, kernel.g = g, kernel.g_size = g_size;
    kernel.partials = partials;
    stream_.teams(kernel, count * kernel.most_splits * kernel.k_tiles * kernel.n_tiles, Kernel::shared(), Kernel::threads);
    add_partials(tasks.sums, tasks.most_sum, partials);
  }
}

template <class S>
template <class P>
void CudaEvaluator<S>::add_partials(const DeviceArray<PartialSum>& sums, int most, const P* partials) {
  stream_.each(AddPartials<P>{sums.data(), most, partials, gradient_}, static_cast<std::int64_t>(sums.size()) * most);
}

template <class S>
void CudaEvaluator<S>::contraction_gradient(int t) {
  if constexpr (is_dual<S>) {
    const auto& tasks = tasks_[t].gradient;
    ContractGradient<S> kernel;
    kernel.in = contraction_input(t);
    kernel.ranges = tasks.ranges.data();
    kernel.gout = contracted_;
    kernel.coefficients = layers_[t].contraction.value_coefficients;
    kernel.partials = partials_;
    const int blocks = (kernel.in.channels + warp_size - 1) / warp_size;
    stream_.teams(kernel, static_cast<std::int64_t>(tasks.ranges.size()) * blocks, ContractGradient<S>::shared(kernel.in.input_count));
    add_partials(tasks.contraction, tasks.most_contraction, partials_);
  }
}

template <class S>
void CudaEvaluator<S>::density_gradient(int t) {
  if constexpr (is_dual<S>) {
    const auto& tasks = tasks_[t].gradient;
    DensityGradient<S> kernel;
    kernel.g = g_, kernel.vectors = vectors_, kernel.table = layers_[t].density_table.view;
    kernel.receivers = graph_.receivers, kernel.receivers_per_part = tasks.receivers_per_part;
    kernel.grho = grho_, kernel.partials = partials_, kernel.rows = tasks.most_density;
    stream_.clear(partials_, std::size_t(tasks.parts) * spline_taps * kernel.rows * sizeof(T));
    stream_.teams(kernel, tasks.parts, DensityGradient<S>::shared());
    add_partials(tasks.density, tasks.most_density, partials_);
  }
}

template <class S>
void CudaEvaluator<S>::table_gradient([[maybe_unused]] int t, [[maybe_unused]] const ConvolveInput<S>& in) {
  if constexpr (is_dual<S>) {
    const auto& tasks = tasks_[t].gradient;
    const ConvolutionWeights<T>& convolution = layers_[t].convolution;
    stream_.clear(partials_, std::size_t(tasks.parts) * tasks.most_table * sizeof(T));
    for (std::size_t k = 0; k < convolution.groups.size(); ++k) {
      ConvolveGradient<S> kernel;
      kernel.in = in, kernel.group = convolution.groups[k];
      kernel.receivers = graph_.receivers, kernel.receivers_per_part = tasks.receivers_per_part;
      kernel.most_z = convolution.needs[k].most_z;
      kernel.batch = warp_size;
      const auto shared = [&] { return ConvolveGradient<S>::shared(kernel.batch, harmonics_.count(), kernel.most_z, kernel.group.l1); };
      while (kernel.batch > 1 && shared() > warp_batch_bytes) --kernel.batch;
      kernel.G = A_, kernel.edge_rows = edge_rows_;
      kernel.partials = partials_, kernel.table_size = tasks.most_table;
      const int blocks = (kernel.group.channels + warp_size - 1) / warp_size;
      stream_.teams(kernel, std::int64_t(tasks.parts) * blocks, shared());
    }
    add_partials(tasks.table, tasks.most_table, partials_);
  }
}

}  // namespace adatom::gnn::cuda
