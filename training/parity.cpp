// SPDX-License-Identifier: MIT
#include "training/parity.hpp"

#include <algorithm>

#include "datasets/random.hpp"

namespace adatom::training {
namespace {

constexpr int components[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};  // of a stress, Voigt

void put(std::vector<double>& rows, std::size_t row, double label, double prediction) { rows[2 * row] = label, rows[2 * row + 1] = prediction; }

}  // namespace

std::vector<std::size_t> sample(const FrameSet& set, std::size_t most_atoms) {
  std::vector<std::size_t> chosen;
  std::size_t atoms = 0;
  for (const std::size_t k : datasets::shuffled(set.size(), 1)) {
    atoms += set.info(k).atoms;
    if (!chosen.empty() && atoms > most_atoms) break;
    chosen.push_back(k);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

ParityCollector::ParityCollector(const FrameSet& set, const std::vector<std::size_t>& chosen, std::vector<std::vector<double>> atomic_energies,
                                 std::vector<int> elements)
    : atomic_energies_(std::move(atomic_energies)), elements_(std::move(elements)) {
  Rows next{};
  for (const std::size_t k : chosen) {
    rows_[k] = next;
    const FrameInfo& info = set.info(k);
    next.energy += info.energy, next.force += info.forces ? 3 * info.atoms : 0, next.stress += info.stress ? 6 : 0;
  }
  parity_.configurations = chosen.size();
  parity_.energies.resize(2 * next.energy), parity_.forces.resize(2 * next.force), parity_.stresses.resize(2 * next.stress);
  parity_.numbers.resize(next.force);
}

void ParityCollector::add(const TrainingBatch& batch, const Predictions& p, int head, const std::vector<std::size_t>& numbers) {
  std::size_t first = 0;
  for (std::size_t k = 0; k < batch.size(); ++k) {
    const datasets::Frame& f = batch.frame(k);
    const Rows rows = rows_.at(numbers[k]);
    const int* species = batch.graph().species + first;
    if (f.energy) {
      double atoms = 0.0;
      for (std::size_t i = 0; i < f.size(); ++i) atoms += atomic_energies_[head][species[i]];
      const double n = static_cast<double>(f.size());
      put(parity_.energies, rows.energy, (*f.energy - atoms) / n, (p.energies[k] - atoms) / n);
    }
    for (std::size_t i = 0; i < f.forces.size(); ++i)
      for (std::size_t c = 0; c < 3; ++c) {
        put(parity_.forces, rows.force + 3 * i + c, f.forces[i][c], p.forces[3 * (first + i) + c]);
        parity_.numbers[rows.force + 3 * i + c] = elements_[species[i]];
      }
    if (f.stress)
      for (std::size_t c = 0; c < 6; ++c)
        put(parity_.stresses, rows.stress + c, (*f.stress)[c], p.strains[9 * k + 3 * components[c][0] + components[c][1]] / batch.volume(k));
    first += f.size();
  }
}

void ParityCollector::reduce(Communicator& communicator) {  // rows of other processes are zero here
  for (std::vector<double>* rows : {&parity_.energies, &parity_.forces, &parity_.numbers, &parity_.stresses})
    if (!rows->empty()) communicator.sum(rows->data(), rows->size());
}

}  // namespace adatom::training
