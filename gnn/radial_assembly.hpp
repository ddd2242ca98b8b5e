// SPDX-License-Identifier: MIT
// Radial functions of a network that is trained.
//
// An edge sees the radial MLP only through a spline table, so a training step evaluates the MLP at the table's points, about a hundred, instead of at every
// edge. The table's coefficients are a constant matrix times the values at the points: the gradient goes back the same way, and is exactly that of the
// tabulated loss.
#pragma once
#include <Eigen/Dense>
#include <string>

#include "gnn/assembly.hpp"

namespace adatom::gnn {

/// Interpolation by quintic splines: coefficients = matrix * (values at the points). Functions vanish at the cutoff with two derivatives.
struct Collocation {
  std::vector<SplineTable::Segment> segments;
  int rows = 0;                ///< coefficients per function
  std::vector<double> points;  ///< angstrom
  Eigen::MatrixXd matrix;      ///< [rows][points]
};

/// `knots` intervals over (0, cutoff]. `kink`: where the second derivative of the functions may jump, 0 for nowhere.
Collocation make_collocation(double cutoff, double kink, int knots);

/// Where the tensors of one layer of a radial MLP begin in t; -1 where there is none.
struct MlpTensors {
  int in = 0, out = 0;
  std::ptrdiff_t weight = -1, bias = -1, norm_weight = -1, norm_bias = -1;
};

/// A layer's table from its radial MLP, or (with `density`) from the weights of the edge density.
class RadialStep final : public AssemblyStep {
 public:
  /// Lays out the table, whose number of functions (padded) is given. `columns`: of the table for each output of the MLP.
  RadialStep(const Network& network, SplineTable& table, Collocation collocation, std::vector<MlpTensors> layers, Activation activation,
             std::vector<int> columns);
  /// One function, tanh(d^2) with d = basis * w.
  RadialStep(const Network& network, SplineTable& table, Collocation collocation, std::ptrdiff_t density);

  void set_id(int id) { id_ = id; }  ///< of the table
  void forward(const double* tensors) override;
  void reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const override;

 private:
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  /// What one layer of the MLP leaves for the reverse pass.
  struct Pass {
    Rows in, centred, before;  ///< inputs; normalised outputs; inputs of the activation
    Eigen::VectorXd inverse;   ///< 1 / standard deviation of each row
  };

  RadialStep(const Network& network, SplineTable& table, Collocation collocation);
  Rows values(const double* tensors, std::size_t pair, std::vector<Pass>& passes) const;
  void reverse_values(const double* tensors, std::size_t pair, const std::vector<Pass>& passes, const Rows& g, double* gradient) const;

  int functions_, id_ = -1;
  std::vector<double*> coefficients_;      ///< [pair] of the table
  Collocation collocation_;
  std::vector<MlpTensors> layers_;
  Activation activation_ = Activation::identity;
  std::vector<int> columns_;
  std::ptrdiff_t density_ = -1;
  std::vector<Rows> basis_;                ///< [pair][points][basis functions]
  std::vector<Eigen::VectorXd> factor_;    ///< [pair][points] what the MLP's output is multiplied with
  std::vector<std::vector<Pass>> passes_;  ///< [pair] of the last forward
};

}  // namespace adatom::gnn
