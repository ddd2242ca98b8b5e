// SPDX-License-Identifier: MIT
// Radial functions of a network that is trained.
//
// An edge sees the radial MLP only through a spline table, so a training step evaluates the MLP at the table's points, about a hundred, instead of at every
// edge. The table's coefficients are a constant matrix times the values at the points: the gradient goes back the same way, and is exactly that of the
// tabulated loss.
#pragma once
#include <string>

#include "gnn/assembly.hpp"

namespace adatom::gnn {

/// A dense matrix, row major. Products with the instruction set in use.
struct Rows {
  int rows = 0, columns = 0;
  std::vector<double> values;
  Rows() = default;
  Rows(int r, int c) : rows(r), columns(c), values(std::size_t(r) * c, 0.0) {}
  double* row(int r) { return &values[std::size_t(r) * columns]; }
  const double* row(int r) const { return &values[std::size_t(r) * columns]; }
};

/// Interpolation by quintic splines: coefficients = matrix * (values at the points). Functions vanish at the cutoff with two derivatives.
struct Collocation {
  std::vector<SplineTable::Segment> segments;
  int rows = 0;                ///< coefficients per function
  std::vector<double> points;  ///< angstrom
  Rows matrix;                 ///< [rows][points]
};

/// `knots` intervals over (0, cutoff]. `kink`: where the second derivative of the functions may jump, 0 for nowhere.
Collocation make_collocation(double cutoff, double kink, int knots);

/// Where the tensors of one layer of a radial MLP begin in t; -1 where there is none.
struct MlpTensors {
  int in = 0, out = 0;
  std::ptrdiff_t weight = -1, bias = -1, norm_weight = -1, norm_bias = -1;
};

/// A layer's table from its radial MLP, or (with `density`) from the weights of the edge density.
///
///     C = P (f X M + f b),   X = hidden layers(basis at the points),   f: cutoff function where it applies to the MLP's output
///
/// is formed as (P f X) M + (P f) b, P: the collocation's matrix, since X has fewer columns than M.
class RadialStep final : public AssemblyStep {
 public:
  /// Lays out the table, whose number of functions (padded) is given. `columns`: of the table for each output of the MLP.
  RadialStep(const Network& network, SplineTable& table, Collocation collocation, std::vector<MlpTensors> layers, Activation activation,
             std::vector<int> columns);
  /// One function, f tanh(d^2) with d = basis * w.
  RadialStep(const Network& network, SplineTable& table, Collocation collocation, std::ptrdiff_t density);

  void set_id(int id) { id_ = id; }  ///< of the table
  void forward(const double* tensors) override;
  void reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const override;

 private:
  /// What one hidden layer of the MLP leaves for the reverse pass.
  struct Pass {
    Rows in, centred, before;     ///< inputs; normalised outputs; inputs of the activation
    std::vector<double> inverse;  ///< 1 / standard deviation of each row
  };
  struct Pair {
    Rows basis;                  ///< [points][basis functions]
    std::vector<double> factor;  ///< [points] f
    std::vector<double> spread;  ///< [rows] P f
    double* coefficients;        ///< [rows][functions] of the table
    std::vector<Pass> passes;    ///< of the last forward, as what follows
    Rows scaled, hidden;         ///< f X; P f X
  };

  RadialStep(const Network& network, SplineTable& table, Collocation collocation);
  void hidden_layers(const double* tensors, Pair& pair) const;
  void reverse_hidden_layers(const double* tensors, const Pair& pair, Rows g, double* gradient) const;
  void forward_density(const double* tensors, Pair& pair) const;
  void reverse_density(const double* tensors, const Pair& pair, const double* g, double* gradient) const;

  int functions_, id_ = -1;
  Collocation collocation_;
  Rows transposed_;  // the collocation's matrix
  std::vector<MlpTensors> layers_;
  Activation activation_ = Activation::identity;
  std::vector<int> columns_;
  std::ptrdiff_t density_ = -1;
  std::vector<Pair> pairs_;
};

}  // namespace adatom::gnn
