// SPDX-License-Identifier: MIT
// Errors of a data set: of all its configurations, by element and by head.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "training/communicator.hpp"
#include "training/loss.hpp"

namespace adatom::training {

/// Where there are no labels of a kind, its numbers of labels and its errors are zero.
struct Errors {
  double loss = 0;
  double energies = 0, energy_rmse = 0, energy_mae = 0;       ///< number of labels; eV
  double energy_per_atom_rmse = 0, energy_per_atom_mae = 0;   ///< eV/atom
  double forces = 0, force_rmse = 0, force_mae = 0;           ///< number of components; eV/angstrom
  double stresses = 0, stress_rmse = 0, stress_mae = 0;       ///< number of components; eV/angstrom^3
  std::map<std::string, double> force_rmse_of, force_mae_of;  ///< by symbol of the element
  std::map<std::string, Errors> heads;                        ///< of each head that the set has, where the model has several
};

/// For logs: only errors of labels that there are.
nlohmann::json describe(const Errors& errors);

/// Collects errors batch by batch. Each process adds its own configurations; after reduce() all have the sums of all.
class ErrorCollector {
 public:
  /// `elements`: atomic numbers of the species of batches. `heads`: names.
  ErrorCollector(const std::vector<int>& elements, const std::vector<std::string>& heads);

  /// `sums`: what the loss gave for the batch and its predictions.
  void add(const TrainingBatch& batch, const Predictions& predictions, int head, const ErrorSums& sums);
  void reduce(Communicator& communicator);
  Errors errors() const;

 private:
  struct ForceSums {
    double components = 0, square = 0, absolute = 0;
  };
  struct HeadSums {
    ErrorSums sums;
    std::vector<ForceSums> elements;  // [species]
  };
  Errors errors(const HeadSums& sums) const;

  std::vector<int> elements_;
  std::vector<std::string> names_;
  std::vector<HeadSums> heads_;
};

}  // namespace adatom::training
