// SPDX-License-Identifier: MIT
// The network in the precision of the run, laid out for the kernels.
#pragma once
#include <memory>

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
  std::vector<T> bias;

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
    if (!map.bias.empty()) bias.assign(map.bias[0].begin(), map.bias[0].end());
  }
  bool empty() const { return parts.empty() && bias.empty(); }
};

/// A spline table in blocks of 16 functions, [pair][block][knot][16]. One knot of padding keeps blocks from falling onto the same cache sets.
template <class T>
struct PackedTable {
  int functions = 0;
  double inverse_h = 0.0;
  int last_knot = 0;
  std::ptrdiff_t block = 0;       ///< scalars between blocks
  std::ptrdiff_t pair_rows = 0;   ///< knots between pairs: a pair's table is reached by an offset of the knot
  std::vector<T> data;

  PackedTable() = default;
  explicit PackedTable(const SplineTable& table) : functions(table.functions), inverse_h(1.0 / table.h), last_knot(table.knots - 1) {
    const std::ptrdiff_t knots = table.knots + 3;
    pair_rows = knots;
    block = (knots * static_cast<std::ptrdiff_t>(table.coefficients.size()) + 1) * 16;
    data.resize(static_cast<std::size_t>(block * (functions / 16)));
    for (std::size_t pair = 0; pair < table.coefficients.size(); ++pair)
      for (std::ptrdiff_t i = 0; i < knots; ++i)
        for (int k = 0; k < functions; ++k)
          data[(k / 16) * block + (pair * knots + i) * 16 + k % 16] = static_cast<T>(table.coefficients[pair][i * functions + k]);
  }
};

template <class T>
struct PackedComponent {
  int out;
  const ContractionPolynomial* polynomial;
  std::ptrdiff_t panel;                   ///< scalars between blocks of 16 channels
  std::vector<std::vector<T>> coefficients;  ///< [element or 1][block of 16 channels][coefficient][16]
};

template <class T>
struct PackedLayer {
  const Layer* spec = nullptr;
  PackedMap<T> up, linear, product, skip;
  std::vector<std::vector<PackedMap<T>>> element_linear;
  PackedTable<T> table, density_table;
  PackedMatrix<T> radial_matrix;          ///< without splines, later layers
  std::vector<std::vector<T>> skip_bias;
  std::vector<PackedComponent<T>> components;
  int z_size = 0;                         ///< scalars of Z per edge, over the paths with l1 > 0

  PackedLayer(const Network& network, const Layer& layer) : spec(&layer), up(layer.up), linear(layer.linear), product(layer.product), skip(layer.skip) {
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
    for (const auto& row : layer.skip_bias) skip_bias.emplace_back(row.begin(), row.end());
    for (const ContractionComponent& c : layer.contraction.components) {
      PackedComponent<T> p;
      p.out = c.out;
      p.polynomial = &c.polynomial;
      const int channels = layer.contraction.channels, n = c.polynomial.coefficients;
      p.panel = std::ptrdiff_t(n) * 16;
      for (const auto& from : c.coefficients) {
        std::vector<T> to(from.size());
        for (int i = 0; i < n; ++i)
          for (int k = 0; k < channels; ++k) to[(k / 16) * p.panel + i * 16 + k % 16] = static_cast<T>(from[std::size_t(i) * channels + k]);
        p.coefficients.push_back(std::move(to));
      }
      components.push_back(std::move(p));
    }
    for (const ConvolutionPath& p : layer.paths)
      if (p.l1 > 0) z_size += (2 * p.l1 + 1) * (2 * p.l3 + 1);
  }
};

}  // namespace adatom::gnn::cpu
