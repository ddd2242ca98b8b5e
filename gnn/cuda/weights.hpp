// SPDX-License-Identifier: MIT
// The network on the device, in the precision of the run.
#pragma once
#include <map>

#include "gnn/cuda/contract.hpp"
#include "gnn/cuda/convolve.hpp"
#include "gnn/cuda/detect.hpp"
#include "gnn/cuda/element.hpp"
#include "gnn/cuda/exact_radial.hpp"
#include "gnn/cuda/linear.hpp"
#include "gnn/cuda/nodes.hpp"
#include "gnn/cuda/runtime.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn::cuda {

template <class T>
std::vector<T> converted(const std::vector<double>& x) {
  return std::vector<T>(x.begin(), x.end());
}

template <class T>
std::vector<T> transposed(const Matrix& m) {
  std::vector<T> x(m.weight.size());
  for (int i = 0; i < m.in; ++i)
    for (int o = 0; o < m.out; ++o) x[std::size_t(o) * m.in + i] = static_cast<T>(m(i, o));
  return x;
}

template <class T>
struct MapPart {
  LinearTask<T> forward, reverse;  ///< without matrices and nodes
  std::vector<DeviceArray<T>> matrices, transposed_matrices;
};

template <class T>
struct DeviceMap {
  const LinearMap* spec = nullptr;
  std::vector<MapPart<T>> parts;
  DeviceArray<T> bias;
  int bias_offset = 0;

  DeviceMap() = default;
  /// `reverses`: also what its reverse pass needs.
  DeviceMap(Store& store, const LinearMap& map, bool reverses = true) : bias(store, converted<T>(map.bias)), bias_offset(map.bias_offset) {
    for (const LinearPart& p : map.parts) {
      MapPart<T> part;
      const Matrix& first = p.matrices.front();
      part.forward = {nullptr, nullptr, p.ir.dim(), first.in, first.out, p.in, p.in_row, p.out, p.out_row, 0, 0};
      part.reverse = {nullptr, nullptr, p.ir.dim(), first.out, first.in, p.out, p.out_row, p.in, p.in_row, 0, 0};
      for (const Matrix& m : p.matrices) {
        part.matrices.emplace_back(store, converted<T>(m.weight));
        if (reverses) part.transposed_matrices.emplace_back(store, transposed<T>(m));
      }
      parts.push_back(std::move(part));
    }
  }
  bool empty() const { return parts.empty() && bias.size() == 0; }
};

template <class T>
struct TableWeights {
  DeviceArray<T> data;
  DeviceTable<T> view;

  TableWeights() = default;
  TableWeights(Store& store, const SplineTable& table) {
    std::vector<T> all;
    for (const auto& pair : table.coefficients) all.insert(all.end(), pair.begin(), pair.end());
    data = DeviceArray<T>(store, all);
    view.data = data.data();
    view.functions = table.functions;
    view.pair_rows = table.rows;
    view.segments = static_cast<int>(table.segments.size());
    if (view.segments > 2) throw std::logic_error("a spline table of more than two segments");
    for (int s = 0; s < view.segments; ++s) {
      const SplineTable::Segment& from = table.segments[s];
      view.begin[s] = static_cast<T>(from.begin), view.inverse_h[s] = static_cast<T>(1.0 / from.h);
      view.last[s] = from.intervals - 1, view.first[s] = from.first;
    }
  }
};

template <class T>
struct ContractionWeights {
  std::vector<DeviceArray<int>> lists;
  std::vector<DeviceArray<T>> coefficients;
  DeviceArray<int> inputs;
  DeviceArray<ContractionPart<T>> parts;
  int part_count = 0;
  std::vector<DeviceArray<int>> orders;  ///< of each part's value program: the network's coefficients in its order, -1 for one that is zero
  int value_coefficients = 0;            ///< of all value programs

  ContractionWeights() = default;
  ContractionWeights(Store& store, const Contraction& c) : inputs(store, c.inputs) {
    std::vector<ContractionPart<T>> all;
    for (const ContractionComponent& component : c.components) {
      std::vector<int> order;
      const ContractionProgram<T> value = pack(store, c, component.value, component.value_coefficients, order);
      orders.emplace_back(store, order);
      value_coefficients += value.count;
      all.push_back({component.out, value, pack(store, c, component.gradient, component.gradient_coefficients, order)});
    }
    parts = DeviceArray<ContractionPart<T>>(store, all);
    part_count = static_cast<int>(all.size());
  }

 private:
  /// Sorts the terms of a row by their first factor; see ContractionProgram. `order`: the coefficients of the network in its order, -1 for zero.
  ContractionProgram<T> pack(Store& store, const Contraction& c, const ContractionRows& rows, const std::vector<std::vector<double>>& from,
                             std::vector<int>& order) {
    struct Group {
      int linear = -1;
      std::vector<std::array<int, 2>> terms;
    };  // coefficients of x_a; b and coefficient of x_a x_b
    std::vector<int> list{static_cast<int>(rows.rows.size())};
    order.clear();
    int pair = 0, triple = 0, at = 0;
    for (const ContractionRows::Row& row : rows.rows) {
      std::map<int, Group> groups;
      const int constant = at++;
      for (; pair < row.pairs_end; ++pair) groups[rows.pairs[pair]].linear = at++;
      for (; triple < row.triples_end; ++triple) {
        const auto [a, b] = c.products[rows.triples[triple]];
        groups[a].terms.push_back({b, at++});
      }
      list.push_back(row.input), list.push_back(static_cast<int>(groups.size()));
      order.push_back(constant);
      for (const auto& [a, group] : groups) {
        list.push_back(a), list.push_back(static_cast<int>(group.terms.size()));
        order.push_back(group.linear);
        for (const auto& [b, coefficient] : group.terms) list.push_back(b), order.push_back(coefficient);
      }
    }
    std::vector<T> values;
    for (const std::vector<double>& element : from)
      for (const int n : order)
        for (int k = 0; k < c.channels; ++k) values.push_back(n < 0 ? T(0) : static_cast<T>(element[std::size_t(n) * c.channels + k]));
    lists.emplace_back(store, list);
    coefficients.emplace_back(store, values);
    return {lists.back().data(), coefficients.back().data(), static_cast<int>(order.size()), from.size() > 1};
  }
};

template <class T>
struct ReadoutWeights {
  std::vector<DeviceArray<double>> arrays;
  DeviceArray<ReadoutStep> steps;
  int hidden = 0;

  ReadoutWeights() = default;
  ReadoutWeights(Store& store, const Readout& r) {
    std::vector<ReadoutStep> all;
    for (const MlpLayer& l : r.layers) {
      arrays.emplace_back(store, l.weight);
      const double* weight = arrays.back().data();
      arrays.emplace_back(store, l.bias);
      all.push_back({l.in, l.out, weight, arrays.back().data()});
      hidden += l.out;
    }
    steps = DeviceArray<ReadoutStep>(store, all);
  }
};

/// Paths of a convolution for both directions.
template <class T>
struct ConvolutionWeights {
  DeviceArray<DeviceCoupling<T>> coupling;
  DeviceArray<DevicePath> paths, tasks;  ///< by group; of the forward pass, one per path and warp, those of a width side by side
  std::vector<PathGroup> groups;
  struct Width {
    int channels_per_thread, first, count, most_z;
  };
  std::vector<Width> widths;  ///< of `tasks`
  struct Need {
    int most_z, most_parts;
  };
  std::vector<Need> needs;   ///< of `groups`
  DeviceArray<int> columns;  ///< of the sender's features that some path reads
  int column_count = 0;

  ConvolutionWeights() = default;
  ConvolutionWeights(Store& store, const std::vector<ConvolutionPath>& all, int widest) {
    std::vector<DeviceCoupling<T>> terms;
    std::map<int, std::vector<DevicePath>> by_input;
    std::map<int, std::vector<DevicePath>> by_width;
    for (const ConvolutionPath& p : all) {
      DevicePath path{
          p.l1, p.l2, p.l3, p.in, p.in_row, p.out, p.out_row, p.channels, p.radial, static_cast<int>(terms.size()), static_cast<int>(p.coupling.size()), 0};
      for (const CouplingTerm& c : p.coupling) terms.push_back({c.m1, c.m2, c.m3, static_cast<T>(c.c)});
      by_input[p.in].push_back(path);
      const int width = channels_per_thread(p.channels, widest);
      for (path.first_channel = 0; path.first_channel < p.channels; path.first_channel += warp_size * width) by_width[width].push_back(path);
    }
    const auto z_size = [](const DevicePath& p) { return p.l1 > 0 ? (2 * p.l1 + 1) * (2 * p.l3 + 1) : 0; };
    std::vector<DevicePath> grouped, listed;
    std::vector<int> read;
    for (const auto& [in, own] : by_input) {
      const DevicePath& first = own.front();
      groups.push_back({first.l1, first.in, first.in_row, first.channels, static_cast<int>(grouped.size()), static_cast<int>(own.size())});
      Need need{0, 0};
      for (const DevicePath& p : own) {
        if (p.channels != first.channels || p.l1 != first.l1) throw std::logic_error("paths that share rows of the sender differ in them");
        need.most_z = std::max(need.most_z, z_size(p));
        need.most_parts = std::max(need.most_parts, (2 * p.l1 + 1) * (2 * p.l3 + 2));
        grouped.push_back(p);
      }
      needs.push_back(need);
      for (int m = 0; m <= 2 * first.l1; ++m)
        for (int k = 0; k < first.channels; ++k) read.push_back(in + m * first.in_row + k);
    }
    for (const auto& [width, own] : by_width) {
      int most = 0;
      for (const DevicePath& p : own) most = std::max(most, z_size(p));
      widths.push_back({width, static_cast<int>(listed.size()), static_cast<int>(own.size()), most});
      listed.insert(listed.end(), own.begin(), own.end());
    }
    std::sort(read.begin(), read.end());
    coupling = DeviceArray<DeviceCoupling<T>>(store, terms);
    paths = DeviceArray<DevicePath>(store, grouped);
    tasks = DeviceArray<DevicePath>(store, listed);
    columns = DeviceArray<int>(store, read);
    column_count = static_cast<int>(read.size());
  }

  static int channels_per_thread(int channels, int widest) {
    for (int width = widest; width > 1; width /= 2)
      if (channels % (warp_size * width) == 0) return width;
    return 1;
  }
};

template <class T>
struct LayerWeights {
  const Layer* spec;
  DeviceMap<T> up, linear, message_skip, product, skip, radial;  ///< radial: of evaluated radial functions, phi to R
  DeviceArray<T> species_features, skip_bias;
  TableWeights<T> table, density_table;
  ConvolutionWeights<T> convolution;
  ContractionWeights<T> contraction;
  ReadoutWeights<T> readout;
  DeviceArray<Gate::Scalars> gate_scalars;
  DeviceArray<Gate::Gated> gate_gated;
  DeviceArray<int> scalars;  ///< offsets of the scalar features
  DeviceArray<T> element_matrices;
  std::vector<DeviceArray<const T*>> element_lists;
  DeviceArray<ElementPart<T>> element_parts;
  std::vector<DeviceArray<double>> mlp_arrays;
  DeviceArray<DeviceMlpLayer> mlp;
  DeviceArray<double> density;
  int widest_mlp = 0;

  /// `widest`: most channels per thread of a convolution.
  LayerWeights(Store& store, const Network& network, const Layer& layer, int widest)
      : spec(&layer),
        up(store, layer.up),
        linear(store, layer.linear),
        message_skip(store, layer.message_skip),
        product(store, layer.product),
        skip(store, layer.skip),
        species_features(store, joined(layer.species_features)),
        skip_bias(store, joined(layer.skip_bias)),
        convolution(store, layer.paths, widest),
        gate_scalars(store, layer.gate.scalars),
        gate_gated(store, layer.gate.gated),
        scalars(store, layer.scalars) {
    if (network.splines) {
      table = TableWeights<T>(store, layer.table);
      if (!layer.density.empty()) density_table = TableWeights<T>(store, layer.density_table);
    } else {
      pack_mlp(store, network);
    }
    if (layer.contracts) contraction = ContractionWeights<T>(store, layer.contraction);
    if (layer.has_readout) readout = ReadoutWeights<T>(store, layer.readout);
    if (layer.merged()) pack_elements(store);
  }

 private:
  static std::vector<T> joined(const std::vector<std::vector<double>>& rows) {
    std::vector<T> all;
    for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
    return all;
  }

  void pack_mlp(Store& store, const Network& network) {
    const auto array = [&](const std::vector<double>& x) {
      mlp_arrays.emplace_back(store, x);
      return mlp_arrays.back().data();
    };
    std::vector<DeviceMlpLayer> all;
    widest_mlp = network.radial.basis.size();
    for (const MlpLayer& l : spec->radial_mlp) {
      DeviceMlpLayer to{l.in, l.out, nullptr, nullptr, nullptr, nullptr};
      to.weight = array(l.weight), to.bias = array(l.bias), to.norm_weight = array(l.norm_weight), to.norm_bias = array(l.norm_bias);
      all.push_back(to);
      widest_mlp = std::max(widest_mlp, l.out);
    }
    mlp = DeviceArray<DeviceMlpLayer>(store, all);
    density = DeviceArray<double>(store, spec->density);
    LinearMap map;
    const Matrix& m = spec->radial_matrix;
    map.parts.push_back({Irrep{0, 1}, 0, 0, m.in, m.out, {m}});
    radial = DeviceMap<T>(store, map);
  }

  void pack_elements(Store& store) {
    const auto& maps = spec->element_linear;
    const int C = spec->element_functions;
    std::vector<T> values;  // all matrices, one after the other
    std::vector<ElementPart<T>> all;
    std::vector<std::vector<std::size_t>> offsets;  // of each part: forward, then reverse
    for (std::size_t p = 0; p < maps[0][0].parts.size(); ++p) {
      const LinearPart& part = maps[0][0].parts[p];
      std::vector<std::size_t> forward, reverse;
      for (const auto& row : maps)
        for (const LinearMap& map : row) {
          const Matrix& m = map.parts[p].matrices.front();
          if (m.in != C) throw std::logic_error("matrices of the first layer differ in the number of functions");
          forward.push_back(values.size());
          values.insert(values.end(), m.weight.begin(), m.weight.end());
          reverse.push_back(values.size());
          const std::vector<T> other = transposed<T>(m);
          values.insert(values.end(), other.begin(), other.end());
        }
      offsets.push_back(std::move(forward)), offsets.push_back(std::move(reverse));
      all.push_back({part.ir.l, part.out, part.out_row, part.matrices.front().out, nullptr, nullptr});
    }
    element_matrices = DeviceArray<T>(store, values);
    for (std::size_t k = 0; k < offsets.size(); ++k) {
      std::vector<const T*> list;
      for (const std::size_t offset : offsets[k]) list.push_back(element_matrices.data() + offset);
      element_lists.emplace_back(store, list);
      (k % 2 ? all[k / 2].reverse : all[k / 2].forward) = element_lists.back().data();
    }
    element_parts = DeviceArray<ElementPart<T>>(store, all);
  }
};

template <class T>
struct DetectorWeights {
  DeviceArray<T> mean;  ///< [species][in]
  DeviceMap<T> map;     ///< x - mean to whitened features and what members add
  DeviceArray<int> band_ends;
  DeviceArray<double> distance_scale, force;
  int in = 0, out = 0;  ///< padded
  DeviceDetectors view;

  DetectorWeights() = default;
  DetectorWeights(Store& store, const Detectors& d) : in(padded(d.features)), out(padded(d.outputs())) {
    std::vector<T> means;
    std::vector<double> coefficients;
    for (const auto& row : d.mean) {
      means.insert(means.end(), row.begin(), row.end());
      means.resize((means.size() + in - 1) / in * in);
    }
    for (const auto& row : d.force) coefficients.insert(coefficients.end(), row.begin(), row.end());
    LinearMap linear;
    linear.parts.push_back({Irrep{0, 1}, 0, 0, in, out, d.matrices});
    mean = DeviceArray<T>(store, means);
    map = DeviceMap<T>(store, linear, false);
    band_ends = DeviceArray<int>(store, d.band_ends);
    distance_scale = DeviceArray<double>(store, d.distance_scale), force = DeviceArray<double>(store, coefficients);
    view = {d.components, d.members, static_cast<int>(d.band_ends.size()), band_ends.data(), distance_scale.data(), force.data()};
  }
};

}  // namespace adatom::gnn::cuda
