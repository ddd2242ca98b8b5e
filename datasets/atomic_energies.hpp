// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "datasets/frame.hpp"

namespace adatom::datasets {

using Composition = std::vector<std::pair<int, int>>;  ///< (atomic number, atoms), ascending

Composition composition(const Structure& structure);
int count(const Composition& composition);  ///< atoms

/// Energy of each element that a potential adds to what its network gives, eV.
struct AtomicEnergies {
  enum class Origin { isolated_atom, least_squares };
  struct Entry {
    double energy = 0.0;  ///< eV
    Origin origin = Origin::least_squares;
  };
  std::map<int, Entry> elements;  ///< by atomic number
  int fitted = 0;                 ///< elements by least squares
  int rank = 0;                   ///< of that problem; less than `fitted`: only some combinations are determined, and the solution is the shortest

  /// Sum over the atoms. Throws std::invalid_argument, naming the element, if one is missing.
  double energy(const Composition& composition) const;
};

/// Energies of the frames of one composition.
struct CompositionEnergy {
  Composition atoms;
  std::int64_t frames = 0;
  double energy = 0.0;  ///< median, eV
};

/// Whether atomic energies can be those of the elements of labelled data: bound matter has an energy below its atoms', by no more than some 10 eV per
/// atom, whatever its composition. Empty if so, else one sentence with the numbers. Compositions with elements that have no energy here are left out.
std::string suspect_atomic_energies(const std::map<int, double>& energies, const std::vector<CompositionEnergy>& compositions);

/// Isolated atoms of one element that differ by more are of different states, levels of theory or units, eV.
inline constexpr double isolated_contradiction = 0.05;

/// Least squares for atomic energies, E_frame / n = sum over elements of (n_z / n) e_z: per atom, so that large and small frames count the same.
/// Frames are folded into a triangular matrix as they come (QR, in blocks), so memory does not grow with their number and, unlike with normal
/// equations, no digits are lost. Of all solutions of a problem that does not determine each element (water alone: one equation, two elements) the
/// one with the smallest norm is taken (complete orthogonal decomposition).
class AtomicEnergyFit {
 public:
  AtomicEnergyFit();
  ~AtomicEnergyFit();
  AtomicEnergyFit(AtomicEnergyFit&&) noexcept;
  AtomicEnergyFit& operator=(AtomicEnergyFit&&) noexcept;

  /// `energy`: of one frame, or the mean of `frames` frames that have this composition, which gives the same solution. eV.
  void add(const Composition& composition, double energy, std::int64_t frames = 1);

  /// `isolated`: energies by atomic number that are known; the fit gives the other elements of the frames that were added.
  AtomicEnergies solve(const std::map<int, double>& isolated = {}) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace adatom::datasets
