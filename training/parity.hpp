// SPDX-License-Identifier: MIT
// Labels beside predictions, for plots.
#pragma once
#include <vector>

#include "training/communicator.hpp"
#include "training/frames.hpp"
#include "training/loss.hpp"

namespace adatom::training {

/// Rows of (label, prediction).
struct Parity {
  std::vector<double> energies;  ///< [][2] per atom, less the model's atomic energies: their sum would hide everything else; eV/atom
  std::vector<double> forces;    ///< [][2] components, eV/angstrom
  std::vector<double> numbers;   ///< atomic number of the atom of each row of `forces`
  std::vector<double> stresses;  ///< [][2] components, eV/angstrom^3
  std::size_t configurations = 0;
};

/// As many configurations, drawn at random, as have at most `most_atoms` atoms together, at least one; ascending. The same on all processes.
std::vector<std::size_t> sample(const FrameSet& set, std::size_t most_atoms);

/// Fills a Parity batch by batch: each process its own configurations; after reduce() all have all.
class ParityCollector {
 public:
  /// `chosen`: configurations of `set`. `atomic_energies`: [head of the model][species].
  ParityCollector(const FrameSet& set, const std::vector<std::size_t>& chosen, std::vector<std::vector<double>> atomic_energies, std::vector<int> elements);

  /// `numbers`: which configurations of the set the batch has.
  void add(const TrainingBatch& batch, const Predictions& predictions, int head, const std::vector<std::size_t>& numbers);
  void reduce(Communicator& communicator);
  const Parity& parity() const { return parity_; }

 private:
  struct Rows {
    std::size_t energy, force, stress;  // first row of a configuration
  };
  std::map<std::size_t, Rows> rows_;
  std::vector<std::vector<double>> atomic_energies_;
  std::vector<int> elements_;
  Parity parity_;
};

}  // namespace adatom::training
