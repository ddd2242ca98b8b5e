// SPDX-License-Identifier: MIT
// The network in the precision of the run, laid out for the kernels.
#pragma once
#include <memory>

#include "gnn/kernels/aligned.hpp"
#include "gnn/kernels/linear.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn::cpu {

/// y = x W and its reverse x^T: one packed matrix per irrep (and element).
template <class T>
struct PackedPart {
  int rows, in, in_row, out, out_row;
  std::vector<PackedMatrix<T>> forward, reverse;
};

template <class T>
struct PackedMap {
  std::vector<PackedPart<T>> parts;
  int bias_offset = 0;
  AlignedVector<T> bias;

  PackedMap() = default;
  explicit PackedMap(const LinearMap& map) : bias_offset(map.bias_offset) {
    for (const LinearPart& p : map.parts) {
      PackedPart<T> q{p.ir.dim(), p.in, p.in_row, p.out, p.out_row, {}, {}};
      for (const Matrix& m : p.matrices) {
        q.forward.push_back(pack<T>(m, false));
        q.reverse.push_back(pack<T>(m, true));
      }
      parts.push_back(std::move(q));
    }
    bias.assign(map.bias.begin(), map.bias.end());
  }
  bool empty() const { return parts.empty() && bias.empty(); }
};

/// A spline table in blocks of 16 functions, [block][pair][row][16]. One row of padding keeps blocks from falling onto the same cache sets.
template <class T>
struct PackedTable {
  struct Segment {
    double begin, inverse_h;
    int last, first;  ///< last interval; row of the first coefficient
  };
  int functions = 0;
  std::vector<Segment> segments;
  std::ptrdiff_t block = 0;      ///< scalars between blocks
  std::ptrdiff_t pair_rows = 0;  ///< rows between pairs: a pair's table is reached by an offset of the knot
  AlignedVector<T> data;

  PackedTable() = default;
  explicit PackedTable(const SplineTable& table) : functions(table.functions), pair_rows(table.rows) {
    for (const SplineTable::Segment& s : table.segments) segments.push_back({s.begin, 1.0 / s.h, s.intervals - 1, s.first});
    block = (pair_rows * static_cast<std::ptrdiff_t>(table.coefficients.size()) + 1) * 16;
    data.resize(static_cast<std::size_t>(block * (functions / 16)));
    for (std::size_t pair = 0; pair < table.coefficients.size(); ++pair)
      for (std::ptrdiff_t i = 0; i < pair_rows; ++i)
        for (int k = 0; k < functions; ++k)
          data[(k / 16) * block + (pair * pair_rows + i) * 16 + k % 16] = static_cast<T>(table.coefficients[pair][i * functions + k]);
  }
};

/// Coefficients of rows of a contraction, [element or 1][block of 16 channels][coefficient][16].
template <class T>
struct PackedRows {
  const ContractionRows* rows = nullptr;
  std::ptrdiff_t panel = 0;  ///< scalars between blocks of 16 channels
  std::vector<AlignedVector<T>> coefficients;

  PackedRows(const ContractionRows& r, const std::vector<std::vector<double>>& elements, int channels) : rows(&r), panel(std::ptrdiff_t(r.coefficients) * 16) {
    for (const auto& from : elements) {
      AlignedVector<T> to(from.size());
      for (int i = 0; i < r.coefficients; ++i)
        for (int k = 0; k < channels; ++k) to[(k / 16) * panel + i * 16 + k % 16] = static_cast<T>(from[std::size_t(i) * channels + k]);
      coefficients.push_back(std::move(to));
    }
  }
  /// Of the channels from k on, for an element.
  const T* at(int element, int k) const { return coefficients[coefficients.size() > 1 ? element : 0].data() + (k / 16) * panel + k % 16; }
};

template <class T>
struct PackedComponent {
  int out;
  PackedRows<T> value, gradient;
};

struct ReadoutLayer {
  int in, out;
  std::vector<double> weight, bias;
};

/// A readout: its first layer as one row of channels per output, then the small layers.
template <class T>
struct PackedReadout {
  const Readout* spec = nullptr;
  int in = 0, channels = 0;
  std::size_t hidden = 0;  ///< outputs of all layers
  Activation activation = Activation::silu;
  std::vector<AlignedVector<T>> rows;           ///< for the reverse pass
  std::vector<std::vector<double>> exact_rows;  ///< the same, for the forward pass
  std::vector<double> bias;
  std::vector<ReadoutLayer> layers;

  PackedReadout() = default;
  explicit PackedReadout(const Readout& r) : spec(&r), in(r.in), channels(r.layers[0].in), activation(r.activation) {
    const MlpLayer& first = r.layers[0];
    for (int o = 0; o < first.out; ++o) {
      rows.emplace_back(channels);
      exact_rows.emplace_back(channels);
      for (int i = 0; i < channels; ++i) {
        exact_rows.back()[i] = first.weight[std::size_t(i) * first.out + o];
        rows.back()[i] = static_cast<T>(exact_rows.back()[i]);
      }
      bias.push_back(first.bias.empty() ? 0.0 : first.bias[o]);
    }
    for (const MlpLayer& l : r.layers) hidden += l.out;
    for (std::size_t n = 1; n < r.layers.size(); ++n) layers.push_back({r.layers[n].in, r.layers[n].out, r.layers[n].weight, r.layers[n].bias});
  }
};

template <class T>
struct PackedLayer {
  const Layer* spec = nullptr;
  PackedMap<T> up, linear, message_skip, product, skip;
  std::vector<AlignedVector<T>> species_features;
  std::vector<std::vector<PackedMap<T>>> element_linear;
  PackedTable<T> table, density_table;
  PackedMatrix<T> radial_matrix;  ///< without splines, later layers
  std::vector<AlignedVector<T>> skip_bias;
  std::vector<PackedComponent<T>> components;
  PackedReadout<T> readout;
  bool keeps_gradient = false;  ///< forward stores d(contraction)/d(message) instead of the message
  int z_size = 0;               ///< scalars of Z per edge, over the paths with l1 > 0

  PackedLayer(const Network& network, const Layer& layer)
      : spec(&layer), up(layer.up), linear(layer.linear), message_skip(layer.message_skip), product(layer.product), skip(layer.skip) {
    for (const auto& row : layer.element_linear) {
      element_linear.emplace_back();
      for (const LinearMap& map : row) element_linear.back().emplace_back(map);
    }
    if (network.splines) {
      table = PackedTable<T>(layer.table);
      if (!layer.density.empty()) density_table = PackedTable<T>(layer.density_table);
    } else {
      radial_matrix = pack<T>(layer.radial_matrix, false);
    }
    if (layer.has_readout) readout = PackedReadout<T>(layer.readout);
    for (const auto& row : layer.skip_bias) skip_bias.emplace_back(row.begin(), row.end());
    for (const auto& row : layer.species_features) species_features.emplace_back(row.begin(), row.end());
    const int channels = layer.contraction.channels;
    for (const ContractionComponent& c : layer.contraction.components)
      components.push_back({c.out, PackedRows<T>(c.value, c.value_coefficients, channels), PackedRows<T>(c.gradient, c.gradient_coefficients, channels)});
    // With one component the gradient costs little more than the value, and takes the place of the message in what is kept for the reverse pass. Weight
    // gradients need the message itself.
    keeps_gradient = layer.contracts && components.size() == 1 && layer.density.empty() && !network.trainable;
    for (const ConvolutionPath& p : layer.paths)
      if (p.l1 > 0) z_size += (2 * p.l1 + 1) * (2 * p.l3 + 1);
  }
};

}  // namespace adatom::gnn::cpu
