// SPDX-License-Identifier: MIT
#include "gnn/radial_table.hpp"

#include <Eigen/Dense>
#include <Eigen/SparseCore>
#include <Eigen/SparseLU>
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "gnn/kernels/spline.hpp"

namespace adatom::gnn {
namespace {

// Radial bases divide by r: the functions are continued to r = 0 by their value here.
constexpr double smallest_r = 1e-5;
constexpr double largest_table = 2e9;  // numbers

/// Coefficients of the quintic B-spline that interpolates f at the knots of a segment, with the first and second derivatives of f at both ends:
/// n + 5 equations for n + 5 coefficients, with five neighbouring coefficients in each.
void fit(const RadialFunctions& f, int pair, int count, int stride, const SplineTable::Segment& segment, double cutoff, double* c) {
  const int n = segment.intervals, unknowns = n + spline_taps - 1;
  const double h = segment.h;
  const double value[5] = {1.0 / 120, 26.0 / 120, 66.0 / 120, 26.0 / 120, 1.0 / 120};
  const double slope[5] = {-1.0 / 24, -10.0 / 24, 0.0, 10.0 / 24, 1.0 / 24}, curvature[5] = {1.0 / 6, 2.0 / 6, -1.0, 2.0 / 6, 1.0 / 6};
  std::vector<Eigen::Triplet<double>> entries;
  Eigen::MatrixXd right = Eigen::MatrixXd::Zero(unknowns, count);
  const auto equation = [&](int row, int first, const double(&w)[5]) {
    for (int k = 0; k < 5; ++k)
      if (w[k] != 0.0) entries.emplace_back(row, first + k, w[k]);
  };
  std::vector<Dual<double>> at(stride);
  const auto evaluate = [&](double r) { f(pair, Dual<double>(std::max(r, smallest_r), 1.0), at.data()); };
  const double end = segment.begin + n * h;
  const bool vanishes = end > cutoff - 1e-9;
  for (int i = 0; i <= n; ++i) {
    equation(i + 2, i, value);
    if (i == n && vanishes) continue;  // zero there, exactly
    evaluate(segment.begin + i * h);
    for (int k = 0; k < count; ++k) right(i + 2, k) = at[k].v;
  }
  // Slopes and curvatures at the ends, taken from inside the segment: at a kink the curvature jumps, and beyond the cutoff there is nothing.
  const double e = 1e-4 * h;
  const auto derivatives = [&](double r, double inward, int slope_row, int curvature_row) {
    evaluate(r + inward * e);
    std::vector<double> inner(count);
    for (int k = 0; k < count; ++k) inner[k] = at[k].d;
    evaluate(r + 2 * inward * e);
    for (int k = 0; k < count; ++k) {
      const double second = inward * (at[k].d - inner[k]) / e;
      right(slope_row, k) = h * (inner[k] - inward * e * second);
      right(curvature_row, k) = h * h * second;
    }
  };
  equation(0, 0, curvature);
  equation(1, 0, slope);
  derivatives(std::max(segment.begin, smallest_r), 1.0, 1, 0);
  equation(n + 3, n, slope);
  equation(n + 4, n, curvature);
  derivatives(end, -1.0, n + 3, n + 4);
  if (vanishes) right.row(n + 3).setZero();
  Eigen::SparseMatrix<double> matrix(unknowns, unknowns);
  matrix.setFromTriplets(entries.begin(), entries.end());
  const Eigen::SparseLU<Eigen::SparseMatrix<double>> solver(matrix);
  const Eigen::MatrixXd solution = solver.solve(right);
  for (int i = 0; i < unknowns; ++i)
    for (int k = 0; k < count; ++k) c[std::size_t(i) * stride + k] = solution(i, k);
}

}  // namespace

SplineTable make_spline_table(const RadialFunctions& f, int count, int pairs, double cutoff, double kink, double tolerance) {
  SplineTable table;
  table.functions = padded(count);
  const int stride = table.functions;
  std::vector<Dual<double>> exact(stride);
  for (int n = 32;; n *= 2) {
    table.segments.clear();
    if (kink > 0.0) {
      const int inner = std::max(4, static_cast<int>(std::lround(n * kink / cutoff))), outer = std::max(4, n - inner);
      table.segments = {{0.0, kink / inner, inner, 0}, {kink, (cutoff - kink) / outer, outer, inner + spline_taps - 1}};
      table.rows = inner + outer + 2 * (spline_taps - 1);
    } else {
      table.segments = {{0.0, cutoff / n, n, 0}};
      table.rows = n + spline_taps - 1;
    }
    if (static_cast<double>(table.rows) * stride * pairs > largest_table)
      throw std::runtime_error("model: tables of its radial functions would be larger than " +
                               std::to_string(static_cast<int>(largest_table / 1e9 * sizeof(double))) + " GB: load it with splines off");
    table.coefficients.clear();
    double largest = 0.0, error = 0.0, largest_slope = 0.0, slope_error = 0.0;
    for (int pair = 0; pair < pairs; ++pair) {
      table.coefficients.emplace_back(std::size_t(table.rows) * stride, 0.0);
      std::vector<double>& c = table.coefficients.back();
      for (const SplineTable::Segment& s : table.segments) {
        fit(f, pair, count, stride, s, cutoff, &c[std::size_t(s.first) * stride]);
        for (int i = 0; i < s.intervals; ++i)
          for (const double t : {0.0, 0.25, 0.5, 0.75}) {
            const double r = s.begin + (i + t) * s.h;
            // Below half an angstrom no model means anything; the spline is smooth there, but is not asked to follow steep functions.
            if (r < 0.5) continue;
            f(pair, Dual<double>(r, 1.0), exact.data());
            double w[spline_taps], dw[spline_taps];
            spline_weights(t, 1.0 / s.h, w, dw);
            for (int k = 0; k < count; ++k) {
              double sum = 0.0, slope = 0.0;
              for (int tap = 0; tap < spline_taps; ++tap) {
                sum += w[tap] * c[std::size_t(s.first + i + tap) * stride + k];
                slope += dw[tap] * c[std::size_t(s.first + i + tap) * stride + k];
              }
              // max() below would pass NaN over.
              if (!std::isfinite(exact[k].v) || !std::isfinite(exact[k].d) || !std::isfinite(sum) || !std::isfinite(slope))
                throw std::runtime_error("model: its radial functions are not finite at a distance of " + std::to_string(r) +
                                         " angstrom: the file is damaged, or its training diverged");
              largest = std::max(largest, std::abs(exact[k].v));
              error = std::max(error, std::abs(sum - exact[k].v));
              largest_slope = std::max(largest_slope, std::abs(exact[k].d));
              slope_error = std::max(slope_error, std::abs(slope - exact[k].d));
            }
          }
      }
    }
    table.error = largest > 0.0 ? error / largest : 0.0;
    if (error <= tolerance * largest && slope_error <= 4 * tolerance * largest_slope) return table;
    if (n >= 8192)
      throw std::runtime_error("model: its radial functions cannot be tabulated: relative error " + std::to_string(table.error) + " with " + std::to_string(n) +
                               " knots, wanted " + std::to_string(tolerance) + "; load it with splines off");
  }
}

ReducedFunctions reduce_functions(const RadialFunctions& phi, const Matrix& m, int pairs, double cutoff, double tolerance) {
  using Dense = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int samples = std::max(64, 768 / pairs);
  Dense H = Dense::Zero(std::ptrdiff_t(samples) * pairs, m.in);
  std::vector<Dual<double>> values(m.in);
  for (int pair = 0; pair < pairs; ++pair)
    for (int s = 0; s < samples; ++s) {
      phi(pair, Dual<double>(0.2 + (cutoff - 0.2) * s / samples), values.data());
      for (int i = 0; i < m.in; ++i) H(std::ptrdiff_t(pair) * samples + s, i) = values[i].v;
    }
  const Eigen::Map<const Dense> M(m.weight.data(), m.in, m.out);
  const Eigen::MatrixXd R = H * M;
  // R = H M and (H L)(H L)^T = R R^T with L L^T = M M^T, so the left singular vectors of R come from a matrix with few columns.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> gram(Eigen::MatrixXd(M * M.transpose()));
  const Eigen::MatrixXd L = gram.eigenvectors() * gram.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal();
  if (!H.allFinite() || !R.allFinite() || !L.allFinite())
    throw std::runtime_error("model: its radial functions are not finite, or too large to compute with: the file is damaged, or its training diverged");
  const double largest = R.cwiseAbs().maxCoeff();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(H * L, Eigen::ComputeThinU | Eigen::ComputeThinV);
  int count = channel_block;
  for (;; count += channel_block) {
    count = std::min<int>(count, svd.singularValues().size());
    const Eigen::MatrixXd rest = R - svd.matrixU().leftCols(count) * (svd.matrixU().leftCols(count).transpose() * R);
    if (count == svd.singularValues().size() || rest.cwiseAbs().maxCoeff() <= tolerance * largest) break;
  }
  // Leave out what is noise: functions whose norm rounding has made.
  while (count > 1 && svd.singularValues()[count - 1] <= 1e-13 * svd.singularValues()[0]) --count;
  const Eigen::MatrixXd P = L * svd.matrixV().leftCols(count);
  // A radial MLP that ends in zeros is a legitimate one: all functions are zero, and so are these.
  const Eigen::VectorXd inverse = svd.singularValues().head(count).unaryExpr([](double s) { return s > 0.0 ? 1.0 / s : 0.0; });
  const Eigen::MatrixXd reduced = inverse.asDiagonal() * (svd.matrixU().leftCols(count).transpose() * R);
  ReducedFunctions result;
  result.projection = Matrix(m.in, padded(count));
  result.matrix = Matrix(padded(count), m.out);
  for (int c = 0; c < count; ++c) {
    for (int i = 0; i < m.in; ++i) result.projection(i, c) = P(i, c);
    for (int o = 0; o < m.out; ++o) result.matrix(c, o) = reduced(c, o);
  }
  return result;
}

}  // namespace adatom::gnn
