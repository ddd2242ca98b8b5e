// SPDX-License-Identifier: MIT
// What the linear maps of a network have to do for the nodes of a graph: which rows meet which matrix. Made when the number of nodes of some species changes.
#pragma once
#include "gnn/cuda/gradient.hpp"
#include "gnn/cuda/weights.hpp"

namespace adatom::gnn::cuda {

/// A linear map of the nodes.
template <class T>
struct MapTasks {
  DeviceArray<LinearTask<T>> tasks;
  int most_rows = 0, most_columns = 0;  ///< of any task, per node and in all
  bool covers = false;                  ///< writes every row of its output
};

/// The gradient of its weights.
struct GradientTasks {
  DeviceArray<GradientTask> tasks;
  DeviceArray<PartialSum> sums;
  int most_splits = 0, most_k = 0, most_n = 0, most_sum = 0;
  std::size_t partials = 0;  ///< numbers
};

template <class T>
struct LayerTasks {
  MapTasks<T> up, up_reverse, linear, linear_reverse, message_skip, message_skip_reverse, product, product_reverse, skip, skip_reverse, radial;
  struct {
    GradientTasks up, linear, message_skip, product, skip, species_features, skip_bias, readout;
    // Parts of the sums over edges and over groups of nodes.
    int parts = 0, receivers_per_part = 0;
    DeviceArray<PartialSum> table, density, contraction;
    int most_table = 0, most_density = 0, most_contraction = 0;
    DeviceArray<GroupRange> ranges;
    std::size_t partials = 0;
  } gradient;
};

template <class T>
class TaskMaker {
 public:
  /// Edges: only of networks whose radial functions are evaluated.
  TaskMaker(Store& store, const Network& network, const std::vector<int>& first_of_species, int receivers, int edges)
      : store_(store), network_(network), first_(first_of_species), receivers_(receivers), edges_(edges) {
    std::size_t at = 0;
    for (const std::size_t size : network.array_sizes) offsets_.push_back(at), at += size;
  }

  /// `gradients`: of weights, for a trainable network.
  LayerTasks<T> make(const LayerWeights<T>& layer, bool gradients) const {
    const Layer& spec = *layer.spec;
    LayerTasks<T> t;
    t.up = map(layer.up, false, spec.conv_layout), t.up_reverse = map(layer.up, true, spec.in_layout);
    t.linear = map(layer.linear, false, spec.message_layout), t.linear_reverse = map(layer.linear, true, spec.mid_layout);
    t.message_skip = map(layer.message_skip, false, spec.message_layout);
    t.message_skip_reverse = map(layer.message_skip, true, spec.message_layout);
    t.product = map(layer.product, false, spec.out_layout), t.product_reverse = map(layer.product, true, spec.contraction.out);
    t.skip = map(layer.skip, false, spec.update_layout), t.skip_reverse = map(layer.skip, true, spec.in_layout);
    if (!network_.splines) t.radial = map(layer.radial, false, FeatureLayout{}, edges_);
    if (gradients && receivers_ > 0) add_gradients(layer, t);
    return t;
  }
  MapTasks<T> make(const DetectorWeights<T>& detectors) const { return map(detectors.map, false, FeatureLayout{}); }

 private:
  static constexpr int nodes_per_range = nodes_per_group * 8;
  static constexpr std::size_t most_table_bytes = std::size_t(128) << 20;  ///< of all copies of a table together, if it is not larger itself

  /// `rows`: of a map that is the same for all rows, whose number is not that of the receivers.
  MapTasks<T> map(const DeviceMap<T>& m, bool reverse, const FeatureLayout& to, int rows = -1) const {
    MapTasks<T> result;
    std::vector<LinearTask<T>> all;
    for (const MapPart<T>& part : m.parts) {
      const auto& matrices = reverse ? part.transposed_matrices : part.matrices;
      for (std::size_t z = 0; z < matrices.size(); ++z) {
        LinearTask<T> task = reverse ? part.reverse : part.forward;
        task.matrix = matrices[z].data();
        if (!reverse && m.bias.size() && task.components == 1 && task.out == m.bias_offset) task.bias = m.bias.data();
        const bool own = matrices.size() > 1;
        task.first_node = own ? first_[z] : 0;
        task.nodes = (own ? first_[z + 1] : rows >= 0 ? rows : receivers_) - task.first_node;
        if (!task.nodes) continue;
        result.most_rows = std::max(result.most_rows, task.components);
        result.most_columns = std::max(result.most_columns, task.n);
        all.push_back(task);
      }
    }
    result.covers = m.parts.size() >= to.blocks.size();
    result.tasks = DeviceArray<LinearTask<T>>(store_, all);
    return result;
  }

  /// Collects the tasks of one launch.
  struct GradientList {
    std::vector<GradientTask> tasks;
    std::vector<PartialSum> sums;
    GradientTasks result;

    /// To array entries `to` on.
    void add(std::size_t to, GradientTask task) {
      if (!task.nodes) return;
      const std::int64_t rows = std::int64_t(task.nodes) * task.components;
      task.rows_per_split = static_cast<int>(std::max<std::int64_t>(512, (rows + 63) / 64));
      const int splits = static_cast<int>((rows + task.rows_per_split - 1) / task.rows_per_split), size = task.k * task.n;
      task.partial = result.partials;
      result.partials += std::size_t(splits) * size;
      tasks.push_back(task);
      PartialSum sum{};
      sum.from = task.partial, sum.stride = size, sum.to = to, sum.splits = splits, sum.count = size, sum.to_step = 1, sum.row = 1;
      sums.push_back(sum);
      result.most_splits = std::max(result.most_splits, splits);
      result.most_k = std::max(result.most_k, task.k), result.most_n = std::max(result.most_n, task.n);
      result.most_sum = std::max(result.most_sum, size);
    }
    GradientTasks finish(Store& store) {
      result.tasks = DeviceArray<GradientTask>(store, tasks);
      result.sums = DeviceArray<PartialSum>(store, sums);
      return result;
    }
  };

  GradientTasks of_map(const LinearMap& m) const {
    GradientList list;
    for (const LinearPart& p : m.parts)
      for (std::size_t z = 0; z < p.matrices.size(); ++z) {
        const Matrix& w = p.matrices[z];
        const bool own = p.matrices.size() > 1;
        const int first = own ? first_[z] : 0, end = own ? first_[z + 1] : receivers_;
        list.add(offsets_[w.id], {p.ir.dim(), w.in, w.out, p.in, p.in_row, p.out, p.out_row, first, end - first, 0, 0});
      }
    if (m.bias_id >= 0) list.add(offsets_[m.bias_id], {1, 1, static_cast<int>(m.bias.size()), -1, 0, m.bias_offset, 0, 0, receivers_, 0, 0});
    return list.finish(store_);
  }

  /// Rows of `size` numbers per species.
  GradientTasks of_species(int id, int size) const {
    GradientList list;
    for (int z = 0; id >= 0 && z < network_.species(); ++z)
      list.add(offsets_[id] + std::size_t(z) * size, {1, 1, size, -1, 0, 0, 0, first_[z], first_[z + 1] - first_[z], 0, 0});
    return list.finish(store_);
  }

  /// Of the weights of a readout, from what ApplyReadout keeps: inputs of its steps side by side, and adjoints of their outputs.
  GradientTasks of_readout(const Readout& r) const {
    GradientList list;
    int in = 0, out = 0;
    for (std::size_t n = 0; n < r.layers.size(); ++n) {
      const MlpLayer& l = r.layers[n];
      list.add(offsets_[r.weight_ids[n]], {1, l.in, l.out, in, 0, out, 0, 0, receivers_, 0, 0});
      if (r.bias_ids[n] >= 0) list.add(offsets_[r.bias_ids[n]], {1, 1, l.out, -1, 0, out, 0, 0, receivers_, 0, 0});
      in += l.in, out += l.out;
    }
    return list.finish(store_);
  }

  void add_gradients(const LayerWeights<T>& layer, LayerTasks<T>& t) const {
    const Layer& spec = *layer.spec;
    auto& g = t.gradient;
    g.up = of_map(spec.up), g.linear = of_map(spec.linear), g.message_skip = of_map(spec.message_skip);
    g.product = of_map(spec.product), g.skip = of_map(spec.skip);
    g.species_features = of_species(spec.species_features_id, spec.conv_layout.size);
    g.skip_bias = of_species(spec.skip_bias_id, spec.update_layout.size);
    if (spec.has_readout) g.readout = of_readout(spec.readout);
    for (const GradientTasks* tasks : {&g.up, &g.linear, &g.message_skip, &g.product, &g.skip, &g.species_features, &g.skip_bias})
      g.partials = std::max(g.partials, tasks->partials);

    const std::size_t table = spec.table.coefficients.size() * spec.table.rows * spec.table.functions;
    const std::size_t copies = std::clamp<std::size_t>(most_table_bytes / (table * sizeof(T)), 1, 256);
    g.receivers_per_part = static_cast<int>((receivers_ + copies - 1) / copies);
    g.parts = (receivers_ + g.receivers_per_part - 1) / g.receivers_per_part;
    PartialSum sum{0, table, offsets_[spec.table.id], g.parts, static_cast<int>(table)};
    g.table = DeviceArray<PartialSum>(store_, {sum}), g.most_table = sum.count;
    g.partials = std::max(g.partials, g.parts * table);
    if (!spec.density.empty()) {
      const std::size_t rows = spec.density_table.coefficients.size() * spec.density_table.rows;
      sum = {0, rows, offsets_[spec.density_table.id], g.parts * spline_taps, static_cast<int>(rows), spec.density_table.functions};
      g.density = DeviceArray<PartialSum>(store_, {sum}), g.most_density = sum.count;
      g.partials = std::max(g.partials, g.parts * spline_taps * rows);
    }
    if (spec.contracts) add_contraction(layer, g);
  }

  template <class Gradient>
  void add_contraction(const LayerWeights<T>& layer, Gradient& g) const {
    const Contraction& c = layer.spec->contraction;
    std::vector<GroupRange> ranges;
    std::vector<int> first_range{0};
    int group = 0;
    for (int z = 0; z < network_.species(); ++z) {
      const int groups = (first_[z + 1] - first_[z] + nodes_per_group - 1) / nodes_per_group;
      const int per_range = std::max(nodes_per_range / nodes_per_group, (groups + 63) / 64);
      for (int k = 0; k < groups; k += per_range) ranges.push_back({group + k, group + std::min(k + per_range, groups)});
      group += groups;
      first_range.push_back(static_cast<int>(ranges.size()));
    }
    const std::size_t stride = std::size_t(layer.contraction.value_coefficients) * c.channels;
    std::vector<PartialSum> sums;
    std::size_t from = 0;
    for (std::size_t n = 0; n < c.components.size(); ++n) {
      const std::vector<int>& ids = c.components[n].ids;
      const DeviceArray<int>& order = layer.contraction.orders[n];
      const int count = static_cast<int>(order.size()) * c.channels;
      for (std::size_t z = 0; z < ids.size(); ++z) {
        const int begin = ids.size() > 1 ? first_range[z] : 0, end = ids.size() > 1 ? first_range[z + 1] : first_range.back();
        if (begin == end) continue;
        sums.push_back({begin * stride + from, stride, offsets_[ids[z]], end - begin, count, 1, order.data(), c.channels});
      }
      from += count;
      g.most_contraction = std::max(g.most_contraction, count);
    }
    g.contraction = DeviceArray<PartialSum>(store_, sums);
    g.ranges = DeviceArray<GroupRange>(store_, ranges);
    g.partials = std::max(g.partials, ranges.size() * stride);
  }

  Store& store_;
  const Network& network_;
  const std::vector<int>& first_;
  int receivers_, edges_;
  std::vector<std::size_t> offsets_;  // of arrays
};

}  // namespace adatom::gnn::cuda
