// SPDX-License-Identifier: MIT
// The loss of a batch and its derivatives with respect to energies, forces and strain derivatives.
//
//     L = w_E / N_E sum_b a_b rho_E((E_b - E_b^ref) / n_b)  +  w_F / N_F sum_i,c a_b rho_F(F_ic - F_ic^ref)  +  w_S / N_S sum_b,ac a_b rho_S(s_ac - s_ac^ref)
//
// with the weights a_b of each configuration and term, and N the number of configurations, force components and stress components that have labels in the whole
// batch, over all processes: so L does not depend on how many processes share the batch.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "gnn/evaluator.hpp"
#include "training/batch.hpp"

namespace adatom::training {

enum class LossShape {
  l2,         ///< rho = x^2
  l1,         ///< |x|
  huber,      ///< x^2 / 2 for |x| < delta, else delta (|x| - delta / 2)
  universal,  ///< huber; for forces with delta times 1, 0.7, 0.4, 0.1 where |F^ref| is below 100, 200, 300 eV/angstrom and above (arXiv 2401.00096)
};

struct LossOptions {
  LossShape shape = LossShape::l2;
  double energy = 1.0, forces = 100.0, stress = 0.0;  ///< w_E, w_F, w_S
  double delta = 0.01;                                ///< of huber and universal: eV/atom, eV/angstrom, eV/angstrom^3
};

/// Numbers of labels in a batch: they add up over processes.
struct LabelCounts {
  double energies = 0.0, force_components = 0.0, stress_components = 0.0;
  LabelCounts& operator+=(const LabelCounts& other);
};

/// Sums over configurations, from which errors of a whole data set are formed.
struct ErrorSums {
  double energies = 0, energy_square = 0, energy_absolute = 0, energy_per_atom_square = 0, energy_per_atom_absolute = 0;
  double forces = 0, force_square = 0, force_absolute = 0;
  double stresses = 0, stress_square = 0, stress_absolute = 0;
  double loss = 0;
  ErrorSums& operator+=(const ErrorSums& other);
};

/// What a plain pass over a batch gives.
struct Predictions {
  std::vector<double> atom_energies, forces, atom_virials;  ///< [atoms], [atoms][3], [atoms][9] or empty
  std::vector<double> energies;                             ///< [configurations]
  std::vector<double> strains;                              ///< [configurations][9] dE/d(strain), symmetric
};

/// Runs an evaluator over a batch. `strains`: whether strain derivatives are needed.
void predict(gnn::Evaluator& evaluator, const TrainingBatch& batch, bool strains, Predictions& predictions);

/// A prediction that is not finite, of a configuration of a batch.
struct NotFinite : std::domain_error {
  explicit NotFinite(std::size_t k) : std::domain_error("an energy, force or stress is not finite"), configuration(k) {}
  std::size_t configuration;
};

/// Loss and errors of a batch, and, if `gradient` is not null, the derivatives of the loss in the form that Evaluator::weight_gradient takes.
/// Throws NotFinite.
class Loss {
 public:
  explicit Loss(const LossOptions& options) : options_(options) {}
  ErrorSums operator()(const TrainingBatch& batch, const Predictions& predictions, const LabelCounts& counts, gnn::LossGradient* gradient);
  bool needs_strains(const TrainingBatch& batch) const;
  LossOptions& options() { return options_; }

 private:
  LossOptions options_;
  std::vector<double> energies_, forces_, strains_;  // derivatives
};

}  // namespace adatom::training
