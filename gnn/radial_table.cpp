// SPDX-License-Identifier: MIT
#include "gnn/radial_table.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "gnn/kernels/spline.hpp"

namespace adatom::gnn {
namespace {

// Radial bases divide by r: the functions are continued to r = 0 by their value here.
constexpr double smallest_r = 1e-5;

/// Coefficients of the cubic B-spline that interpolates f at the knots, with f'(cutoff) = 0 and a one-sided estimate of f'(0).
/// The value at knot i is (c_i + 4 c_{i+1} + c_{i+2}) / 6, the derivative (c_{i+2} - c_i) / 2h: a tridiagonal system for c_1 .. c_{n+1}.
std::vector<double> fit(const RadialFunctions& f, int pair, int count, int stride, int n, double h) {
  std::vector<double> value(std::size_t(n + 1) * stride, 0.0);
  for (int i = 0; i < n; ++i) f(pair, std::max(i * h, smallest_r), &value[std::size_t(i) * stride]);  // zero at the cutoff itself
  std::vector<double> c(std::size_t(n + 3) * stride, 0.0), diagonal(n + 2);
  const auto row = [stride](std::vector<double>& x, int i) { return &x[std::size_t(i) * stride]; };
  std::vector<double> slope(count);
  for (int k = 0; k < count; ++k)
    slope[k] = (-11 * row(value, 0)[k] + 18 * row(value, 1)[k] - 9 * row(value, 2)[k] + 2 * row(value, 3)[k]) / 6;  // h f'(0)
  diagonal[1] = 4.0;
  for (int k = 0; k < count; ++k) row(c, 1)[k] = 6 * row(value, 0)[k] + 2 * slope[k];
  for (int i = 1; i <= n; ++i) {  // forward elimination; row i + 1 belongs to knot i
    const double upper = i == 1 ? 2.0 : 1.0, lower = i == n ? 2.0 : 1.0, m = lower / diagonal[i];
    diagonal[i + 1] = 4.0 - m * upper;
    for (int k = 0; k < count; ++k) row(c, i + 1)[k] = 6 * row(value, i)[k] - m * row(c, i)[k];
  }
  for (int k = 0; k < count; ++k) row(c, n + 1)[k] /= diagonal[n + 1];
  for (int i = n; i >= 1; --i)
    for (int k = 0; k < count; ++k) row(c, i)[k] = (row(c, i)[k] - (i == 1 ? 2.0 : 1.0) * row(c, i + 1)[k]) / diagonal[i];
  for (int k = 0; k < count; ++k) {
    row(c, 0)[k] = row(c, 2)[k] - 2 * slope[k];
    row(c, n + 2)[k] = row(c, n)[k];
  }
  return c;
}

}  // namespace

SplineTable make_spline_table(const RadialFunctions& f, int count, int pairs, double cutoff, double tolerance) {
  SplineTable table;
  table.functions = padded(count);
  const int stride = table.functions;
  for (int n = 128;; n *= 2) {
    table.knots = n;
    table.h = cutoff / n;
    table.coefficients.clear();
    table.error = 0.0;
    double largest = 0.0, error = 0.0;
    std::vector<double> exact(stride, 0.0);
    for (int pair = 0; pair < pairs; ++pair) {
      table.coefficients.push_back(fit(f, pair, count, stride, n, table.h));
      const std::vector<double>& c = table.coefficients.back();
      for (int i = 0; i < n; ++i)
        for (const double t : {0.25, 0.5, 0.75}) {
          const double r = (i + t) * table.h;
          // Below 0.2 angstrom no model means anything; the spline is smooth there, but is not asked to follow steep functions.
          if (r < 0.2) continue;
          f(pair, r, exact.data());
          double w[spline_taps], dw[spline_taps];
          spline_weights(t, 1.0 / table.h, w, dw);
          for (int k = 0; k < count; ++k) {
            double sum = 0.0;
            for (int tap = 0; tap < spline_taps; ++tap) sum += w[tap] * c[std::size_t(i + tap) * stride + k];
            largest = std::max(largest, std::abs(exact[k]));
            error = std::max(error, std::abs(sum - exact[k]));
          }
        }
    }
    table.error = largest > 0.0 ? error / largest : 0.0;
    if (table.error <= tolerance) return table;
    if (n >= 8192)
      throw std::runtime_error("the radial functions cannot be tabulated: relative error " + std::to_string(table.error) + " with " + std::to_string(n) +
                               " knots, wanted " + std::to_string(tolerance) + "; load the model with splines off");
  }
}

ReducedFunctions reduce_functions(const RadialFunctions& phi, const Matrix& m, int pairs, double cutoff, double tolerance) {
  using Dense = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const int samples = std::max(64, 768 / pairs);
  Dense H = Dense::Zero(std::ptrdiff_t(samples) * pairs, m.in);
  for (int pair = 0; pair < pairs; ++pair)
    for (int s = 0; s < samples; ++s) phi(pair, 0.2 + (cutoff - 0.2) * s / samples, H.row(std::ptrdiff_t(pair) * samples + s).data());
  const Eigen::Map<const Dense> M(m.weight.data(), m.in, m.out);
  const Eigen::MatrixXd R = H * M;
  // R = H M and (H L)(H L)^T = R R^T with L L^T = M M^T, so the left singular vectors of R come from a matrix with few columns.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> gram(Eigen::MatrixXd(M * M.transpose()));
  const Eigen::MatrixXd L = gram.eigenvectors() * gram.eigenvalues().cwiseMax(0.0).cwiseSqrt().asDiagonal();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(H * L, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const double largest = R.cwiseAbs().maxCoeff();
  int count = channel_block;
  for (;; count += channel_block) {
    count = std::min<int>(count, svd.singularValues().size());
    const Eigen::MatrixXd rest = R - svd.matrixU().leftCols(count) * (svd.matrixU().leftCols(count).transpose() * R);
    if (count == svd.singularValues().size() || rest.cwiseAbs().maxCoeff() <= tolerance * largest) break;
  }
  // Leave out what is noise: functions whose norm rounding has made.
  while (count > 1 && svd.singularValues()[count - 1] < 1e-13 * svd.singularValues()[0]) --count;
  const Eigen::MatrixXd P = L * svd.matrixV().leftCols(count);
  const Eigen::MatrixXd reduced = svd.singularValues().head(count).cwiseInverse().asDiagonal() * (svd.matrixU().leftCols(count).transpose() * R);
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
