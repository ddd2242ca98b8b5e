// SPDX-License-Identifier: MIT
#include "gnn/radial_assembly.hpp"

#include <Eigen/Dense>
#include <Eigen/SparseCore>
#include <Eigen/SparseLU>
#include <algorithm>
#include <cmath>

#include "gnn/kernels/lane.hpp"
#include "gnn/kernels/spline.hpp"

namespace adatom::gnn {
namespace {

constexpr double smallest_r = 1e-5;  // radial bases divide by r
constexpr double norm_epsilon = 1e-5;

Rows transpose(const double* a, int rows, int columns) {
  Rows t(columns, rows);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) t.row(j)[i] = a[std::size_t(i) * columns + j];
  return t;
}
Rows transpose(const Rows& a) { return transpose(a.values.data(), a.rows, a.columns); }

/// a b, b: [a.columns][columns]
Rows product(const Rows& a, const double* b, int columns) {
  Rows c(a.rows, columns);
  cpu_multiply(a.rows, a.columns, columns, a.values.data(), b, c.values.data(), false);
  return c;
}

/// Calls f(lane) for all numbers, two at a time.
template <class F>
void for_pairs(std::size_t n, F f) {
  std::size_t k = 0;
  for (; k + 2 <= n; k += 2) f(k, std::integral_constant<int, 2>{});
  if (k < n) f(k, std::integral_constant<int, 1>{});
}
Vec<double, 2> load(const double* p, int n) {
  Vec<double, 2> x(p[0]);
  if (n > 1) x.v[1] = p[1];
  return x;
}
void store(double* p, Vec<double, 2> x, int n) {
  p[0] = x.v[0];
  if (n > 1) p[1] = x.v[1];
}

/// Adds a segment: values at all knots and at two midpoints next to each end, or, at the cutoff, no slope and no curvature instead of those two.
void add_segment(double begin, double end, int intervals, bool vanishes, Collocation& c, std::vector<Eigen::Triplet<double>>& entries,
                 std::vector<Eigen::Triplet<double>>& inputs) {
  const SplineTable::Segment segment{begin, (end - begin) / intervals, intervals, c.rows};
  std::vector<double> at;  // in intervals
  for (int i = 0; i < intervals + (vanishes ? 0 : 1); ++i) at.push_back(i);
  at.push_back(0.5), at.push_back(1.5);
  if (!vanishes) at.push_back(intervals - 0.5), at.push_back(intervals - 1.5);
  int row = c.rows;
  for (const double x : at) {
    const int first = std::min(static_cast<int>(x), intervals - 1);
    double w[spline_taps], dw[spline_taps];
    spline_weights(x - first, 1.0, w, dw);
    for (int k = 0; k < spline_taps; ++k)
      if (w[k] != 0.0) entries.emplace_back(row, c.rows + first + k, w[k]);
    inputs.emplace_back(row++, static_cast<int>(c.points.size()), 1.0);
    c.points.push_back(std::max(begin + x * segment.h, smallest_r));
  }
  if (vanishes) {  // the last three coefficients but two: value, slope and curvature at the last knot are zero
    const double conditions[3][5] = {{1, 26, 66, 26, 1}, {-1, -10, 0, 10, 1}, {1, 2, -6, 2, 1}};
    for (const auto& condition : conditions) {
      for (int k = 0; k < 5; ++k)
        if (condition[k] != 0.0) entries.emplace_back(row, c.rows + intervals + k, condition[k]);
      ++row;
    }
  }
  c.segments.push_back(segment);
  c.rows += intervals + spline_taps - 1;
}

}  // namespace

Collocation make_collocation(double cutoff, double kink, int knots) {
  Collocation c;
  std::vector<Eigen::Triplet<double>> entries, inputs;
  const int inner = kink > 0.0 ? std::max(4, static_cast<int>(std::lround(knots * kink / cutoff))) : 0;
  if (inner) add_segment(0.0, kink, inner, false, c, entries, inputs);
  add_segment(kink, cutoff, std::max(4, knots - inner), true, c, entries, inputs);
  Eigen::SparseMatrix<double> equations(c.rows, c.rows);
  equations.setFromTriplets(entries.begin(), entries.end());
  Eigen::MatrixXd right = Eigen::MatrixXd::Zero(c.rows, static_cast<std::ptrdiff_t>(c.points.size()));
  for (const auto& t : inputs) right(t.row(), t.col()) = t.value();
  const Eigen::SparseLU<Eigen::SparseMatrix<double>> solver(equations);
  const Eigen::MatrixXd solution = solver.solve(right);
  c.matrix = Rows(c.rows, static_cast<int>(c.points.size()));
  for (int i = 0; i < c.matrix.rows; ++i)
    for (int j = 0; j < c.matrix.columns; ++j) c.matrix.row(i)[j] = solution(i, j);
  return c;
}

RadialStep::RadialStep(const Network& network, SplineTable& table, Collocation collocation)
    : functions_(table.functions), collocation_(std::move(collocation)), transposed_(transpose(collocation_.matrix)), pairs_(network.pairs()) {
  table.segments = collocation_.segments;
  table.rows = collocation_.rows;
  table.coefficients.assign(pairs_.size(), std::vector<double>(std::size_t(table.rows) * table.functions, 0.0));
  const int points = static_cast<int>(collocation_.points.size());
  for (std::size_t n = 0; n < pairs_.size(); ++n) {
    Pair& pair = pairs_[n];
    pair.basis = Rows(points, network.radial.basis.size());
    for (int p = 0; p < points; ++p)
      pair.factor.push_back(radial_basis(network.radial, collocation_.points[p], network.pair_radii(static_cast<int>(n)), pair.basis.row(p)));
    pair.spread = product(collocation_.matrix, pair.factor.data(), 1).values;
    pair.coefficients = table.coefficients[n].data();
  }
}

RadialStep::RadialStep(const Network& network, SplineTable& table, Collocation collocation, std::vector<MlpTensors> layers, Activation activation,
                       std::vector<int> columns)
    : RadialStep(network, table, std::move(collocation)) {
  layers_ = std::move(layers);
  activation_ = activation;
  columns_ = std::move(columns);
}

RadialStep::RadialStep(const Network& network, SplineTable& table, Collocation collocation, std::ptrdiff_t density)
    : RadialStep(network, table, std::move(collocation)) {
  density_ = density;
}

void RadialStep::hidden_layers(const double* tensors, Pair& pair) const {
  pair.passes.clear();
  Rows x = pair.basis;
  for (std::size_t n = 0; n + 1 < layers_.size(); ++n) {
    const MlpTensors& layer = layers_[n];
    Pass pass;
    pass.in = std::move(x);
    Rows z = product(pass.in, tensors + layer.weight, layer.out);
    for (int p = 0; layer.bias >= 0 && p < z.rows; ++p)
      for (int o = 0; o < layer.out; ++o) z.row(p)[o] += tensors[layer.bias + o];
    if (layer.norm_weight >= 0) {
      pass.centred = Rows(z.rows, layer.out);
      for (int p = 0; p < z.rows; ++p) {
        double *row = z.row(p), *centred = pass.centred.row(p), mean = 0.0, variance = 0.0;
        for (int o = 0; o < layer.out; ++o) mean += row[o] / layer.out;
        for (int o = 0; o < layer.out; ++o) variance += (row[o] - mean) * (row[o] - mean) / layer.out;
        pass.inverse.push_back(1.0 / std::sqrt(variance + norm_epsilon));
        for (int o = 0; o < layer.out; ++o) {
          centred[o] = (row[o] - mean) * pass.inverse.back();
          row[o] = centred[o] * tensors[layer.norm_weight + o] + tensors[layer.norm_bias + o];
        }
      }
    }
    x = Rows(z.rows, layer.out);
    for_pairs(z.values.size(), [&](std::size_t k, auto n_lanes) { store(&x.values[k], activate(activation_, load(&z.values[k], n_lanes)), n_lanes); });
    pass.before = std::move(z);
    pair.passes.push_back(std::move(pass));
  }
  for (int p = 0; p < x.rows; ++p)
    for (int i = 0; i < x.columns; ++i) x.row(p)[i] *= pair.factor[p];
  pair.scaled = std::move(x);
}

/// g: adjoint of f X.
void RadialStep::reverse_hidden_layers(const double* tensors, const Pair& pair, Rows g, double* gradient) const {
  for (int p = 0; p < g.rows; ++p)
    for (int i = 0; i < g.columns; ++i) g.row(p)[i] *= pair.factor[p];
  for (std::size_t n = pair.passes.size(); n-- > 0;) {
    const MlpTensors& layer = layers_[n];
    const Pass& pass = pair.passes[n];
    for_pairs(g.values.size(), [&](std::size_t k, auto n_lanes) {
      const auto slope = activate(activation_, Dual<Vec<double, 2>>(load(&pass.before.values[k], n_lanes), Vec<double, 2>(1.0))).d;
      store(&g.values[k], load(&g.values[k], n_lanes) * slope, n_lanes);
    });
    for (int p = 0; layer.norm_weight >= 0 && p < g.rows; ++p) {
      double *row = g.row(p), mean = 0.0, along = 0.0;
      const double* centred = pass.centred.row(p);
      for (int o = 0; o < layer.out; ++o) {
        gradient[layer.norm_weight + o] += row[o] * centred[o];
        gradient[layer.norm_bias + o] += row[o];
        row[o] *= tensors[layer.norm_weight + o];
        mean += row[o] / layer.out;
        along += row[o] * centred[o] / layer.out;
      }
      // y = (z - mean) / deviation: dz = (dy - mean(dy) - y mean(y dy)) / deviation
      for (int o = 0; o < layer.out; ++o) row[o] = (row[o] - mean - centred[o] * along) * pass.inverse[p];
    }
    for (int p = 0; layer.bias >= 0 && p < g.rows; ++p)
      for (int o = 0; o < layer.out; ++o) gradient[layer.bias + o] += g.row(p)[o];
    cpu_multiply(layer.in, g.rows, layer.out, transpose(pass.in).values.data(), g.values.data(), gradient + layer.weight, true);
    if (n == 0) return;
    g = product(g, transpose(tensors + layer.weight, layer.in, layer.out).values.data(), layer.in);
  }
}

void RadialStep::forward_density(const double* tensors, Pair& pair) const {
  Rows d = product(pair.basis, tensors + density_, 1);
  for (int p = 0; p < d.rows; ++p) d.values[p] = std::tanh(d.values[p] * d.values[p]) * pair.factor[p];
  const Rows c = product(collocation_.matrix, d.values.data(), 1);
  for (int row = 0; row < c.rows; ++row) pair.coefficients[std::size_t(row) * functions_] = c.values[row];
}

void RadialStep::reverse_density(const double* tensors, const Pair& pair, const double* g, double* gradient) const {
  std::vector<double> g_row(collocation_.rows);
  for (int row = 0; row < collocation_.rows; ++row) g_row[row] = g[std::size_t(row) * functions_];
  Rows g_d = product(transposed_, g_row.data(), 1);
  const Rows d = product(pair.basis, tensors + density_, 1);
  for (int p = 0; p < d.rows; ++p) {
    const double t = std::tanh(d.values[p] * d.values[p]);
    g_d.values[p] *= pair.factor[p] * (1.0 - t * t) * 2.0 * d.values[p];
    for (int i = 0; i < pair.basis.columns; ++i) gradient[density_ + i] += pair.basis.row(p)[i] * g_d.values[p];
  }
}

void RadialStep::forward(const double* tensors) {
  for (Pair& pair : pairs_) {
    if (density_ >= 0) {
      forward_density(tensors, pair);
      continue;
    }
    hidden_layers(tensors, pair);
    const MlpTensors& last = layers_.back();
    pair.hidden = product(collocation_.matrix, pair.scaled.values.data(), pair.scaled.columns);
    const Rows c = product(pair.hidden, tensors + last.weight, last.out);
    for (int row = 0; row < c.rows; ++row)
      for (std::size_t k = 0; k < columns_.size(); ++k)
        pair.coefficients[std::size_t(row) * functions_ + columns_[k]] = c.row(row)[k] + (last.bias >= 0 ? pair.spread[row] * tensors[last.bias + k] : 0.0);
  }
}

void RadialStep::reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const {
  const std::size_t size = std::size_t(collocation_.rows) * functions_;
  for (std::size_t n = 0; n < pairs_.size(); ++n) {
    const Pair& pair = pairs_[n];
    const double* from = &arrays[id_][n * size];
    if (density_ >= 0) {
      reverse_density(tensors, pair, from, gradient);
      continue;
    }
    const MlpTensors& last = layers_.back();
    Rows g(collocation_.rows, last.out);
    for (int row = 0; row < g.rows; ++row)
      for (std::size_t k = 0; k < columns_.size(); ++k) g.row(row)[k] = from[std::size_t(row) * functions_ + columns_[k]];
    for (int row = 0; last.bias >= 0 && row < g.rows; ++row)
      for (int k = 0; k < last.out; ++k) gradient[last.bias + k] += pair.spread[row] * g.row(row)[k];
    cpu_multiply(last.in, g.rows, last.out, transpose(pair.hidden).values.data(), g.values.data(), gradient + last.weight, true);
    if (pair.passes.empty()) continue;
    const Rows g_hidden = product(g, transpose(tensors + last.weight, last.in, last.out).values.data(), last.in);
    reverse_hidden_layers(tensors, pair, product(transposed_, g_hidden.values.data(), last.in), gradient);
  }
}

}  // namespace adatom::gnn
