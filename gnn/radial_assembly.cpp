// SPDX-License-Identifier: MIT
#include "gnn/radial_assembly.hpp"

#include <Eigen/SparseCore>
#include <Eigen/SparseLU>
#include <algorithm>
#include <cmath>

#include "gnn/kernels/spline.hpp"

namespace adatom::gnn {
namespace {

constexpr double smallest_r = 1e-5;  // radial bases divide by r
constexpr double norm_epsilon = 1e-5;

using Weights = Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using WeightGradients = Eigen::Map<Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
using Row = Eigen::Map<const Eigen::RowVectorXd>;
using RowGradient = Eigen::Map<Eigen::RowVectorXd>;

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
  c.matrix = solver.solve(right);
  return c;
}

RadialStep::RadialStep(const Network& network, SplineTable& table, Collocation collocation) : functions_(table.functions), collocation_(std::move(collocation)) {
  const int points = static_cast<int>(collocation_.points.size()), functions = network.radial.basis.size();
  for (int pair = 0; pair < network.pairs(); ++pair) {
    Rows basis(points, functions);
    Eigen::VectorXd factor(points);
    for (int p = 0; p < points; ++p) factor[p] = radial_basis(network.radial, collocation_.points[p], network.pair_radii(pair), basis.row(p).data());
    basis_.push_back(std::move(basis));
    factor_.push_back(std::move(factor));
  }
  table.segments = collocation_.segments;
  table.rows = collocation_.rows;
  table.coefficients.assign(basis_.size(), std::vector<double>(std::size_t(table.rows) * table.functions, 0.0));
  for (auto& c : table.coefficients) coefficients_.push_back(c.data());
  passes_.resize(basis_.size());
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
  columns_ = {0};
}

RadialStep::Rows RadialStep::values(const double* tensors, std::size_t pair, std::vector<Pass>& passes) const {
  passes.clear();
  if (density_ >= 0) {
    const Eigen::VectorXd d = basis_[pair] * Eigen::Map<const Eigen::VectorXd>(tensors + density_, basis_[pair].cols());
    return (d.array().square().tanh() * factor_[pair].array()).matrix();
  }
  Rows x = basis_[pair];
  for (std::size_t n = 0; n < layers_.size(); ++n) {
    const MlpTensors& layer = layers_[n];
    const bool last = n + 1 == layers_.size();
    Pass pass;
    if (last) x = factor_[pair].asDiagonal() * x;
    pass.in = std::move(x);
    Rows z = pass.in * Weights(tensors + layer.weight, layer.in, layer.out);
    if (layer.bias >= 0) {
      const Row bias(tensors + layer.bias, layer.out);
      if (last)
        z += factor_[pair] * bias;
      else
        z.rowwise() += Eigen::RowVectorXd(bias);
    }
    if (last) {
      passes.push_back(std::move(pass));
      return z;
    }
    if (layer.norm_weight >= 0) {
      z.colwise() -= Eigen::VectorXd(z.rowwise().mean());
      pass.inverse = (z.rowwise().squaredNorm() / layer.out).array().operator+(norm_epsilon).rsqrt();
      z = pass.inverse.asDiagonal() * z;
      pass.centred = z;
      z = z * Eigen::VectorXd(Row(tensors + layer.norm_weight, layer.out)).asDiagonal();
      z.rowwise() += Eigen::RowVectorXd(Row(tensors + layer.norm_bias, layer.out));
    }
    pass.before = z;
    x = z.unaryExpr([this](double v) { return activate(activation_, v); });
    passes.push_back(std::move(pass));
  }
  return x;
}

void RadialStep::reverse_values(const double* tensors, std::size_t pair, const std::vector<Pass>& passes, const Rows& g_values, double* gradient) const {
  if (density_ >= 0) {
    const Eigen::VectorXd d = basis_[pair] * Eigen::Map<const Eigen::VectorXd>(tensors + density_, basis_[pair].cols());
    const Eigen::ArrayXd t = d.array().square().tanh();
    const Eigen::VectorXd g = g_values.col(0).array() * factor_[pair].array() * (1.0 - t * t) * 2.0 * d.array();
    Eigen::Map<Eigen::VectorXd>(gradient + density_, basis_[pair].cols()) += basis_[pair].transpose() * g;
    return;
  }
  Rows g = g_values;
  for (std::size_t n = layers_.size(); n-- > 0;) {
    const MlpTensors& layer = layers_[n];
    const Pass& pass = passes[n];
    const bool last = n + 1 == layers_.size();
    if (!last) {
      g.array() *= pass.before.unaryExpr([this](double v) { return activate(activation_, Dual<double>(v, 1.0)).d; }).array();
      if (layer.norm_weight >= 0) {
        RowGradient(gradient + layer.norm_weight, layer.out) += (g.array() * pass.centred.array()).matrix().colwise().sum();
        RowGradient(gradient + layer.norm_bias, layer.out) += g.colwise().sum();
        g = g * Eigen::VectorXd(Row(tensors + layer.norm_weight, layer.out)).asDiagonal();
        // y = (z - mean) / deviation: dz = (dy - mean(dy) - y mean(y dy)) / deviation
        const Eigen::VectorXd along = (g.array() * pass.centred.array()).rowwise().mean(), mean = g.rowwise().mean();
        g -= along.asDiagonal() * pass.centred;
        g.colwise() -= mean;
        g = pass.inverse.asDiagonal() * g;
      }
    }
    if (layer.bias >= 0) {
      if (last)
        RowGradient(gradient + layer.bias, layer.out) += factor_[pair].transpose() * g;
      else
        RowGradient(gradient + layer.bias, layer.out) += g.colwise().sum();
    }
    WeightGradients(gradient + layer.weight, layer.in, layer.out) += pass.in.transpose() * g;
    if (n == 0) return;
    g = g * Weights(tensors + layer.weight, layer.in, layer.out).transpose();
    if (last) g = factor_[pair].asDiagonal() * g;
  }
}

void RadialStep::forward(const double* tensors) {
  for (std::size_t pair = 0; pair < basis_.size(); ++pair) {
    const Rows c = collocation_.matrix * values(tensors, pair, passes_[pair]);
    for (int row = 0; row < collocation_.rows; ++row)
      for (std::size_t k = 0; k < columns_.size(); ++k) coefficients_[pair][std::size_t(row) * functions_ + columns_[k]] = c(row, static_cast<std::ptrdiff_t>(k));
  }
}

void RadialStep::reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const {
  const std::size_t size = std::size_t(collocation_.rows) * functions_;
  for (std::size_t pair = 0; pair < basis_.size(); ++pair) {
    const double* from = &arrays[id_][pair * size];
    Rows g(collocation_.rows, static_cast<std::ptrdiff_t>(columns_.size()));
    for (int row = 0; row < collocation_.rows; ++row)
      for (std::size_t k = 0; k < columns_.size(); ++k) g(row, static_cast<std::ptrdiff_t>(k)) = from[std::size_t(row) * functions_ + columns_[k]];
    reverse_values(tensors, pair, passes_[pair], collocation_.matrix.transpose() * g, gradient);
  }
}

}  // namespace adatom::gnn
