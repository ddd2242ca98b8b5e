// SPDX-License-Identifier: MIT
#include "datasets/atomic_energies.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "adatom/elements.hpp"

namespace adatom::datasets {
namespace {

constexpr int unknowns = max_atomic_number + 1;  // column z is element z, column 0 the right-hand side
constexpr int block_rows = 512;

// Energy per atom above that of the free atoms, eV. Tungsten has -8.9, the most of all crystals; atoms without spin polarization add some.
constexpr double most_bound = -20.0, highest_bound = 0.1, widest_bound = 12.0;

}  // namespace

Composition composition(const Structure& structure) {
  std::map<int, int> atoms;
  for (const int z : structure.numbers) ++atoms[z];
  return {atoms.begin(), atoms.end()};
}

int count(const Composition& composition) {
  int sum = 0;
  for (const auto& [z, atoms] : composition) sum += atoms;
  return sum;
}

std::string suspect_atomic_energies(const std::map<int, double>& energies, const std::vector<CompositionEnergy>& compositions) {
  std::vector<std::pair<double, std::int64_t>> bound;  // energy above the atoms', eV per atom; frames
  std::int64_t frames = 0;
  for (const CompositionEnergy& c : compositions) {
    double excess = c.energy;
    const bool known = std::all_of(c.atoms.begin(), c.atoms.end(), [&](const auto& part) {
      const auto found = energies.find(part.first);
      if (found != energies.end()) excess -= part.second * found->second;
      return found != energies.end();
    });
    if (known) bound.emplace_back(excess / count(c.atoms), c.frames), frames += c.frames;
  }
  if (bound.empty()) return {};
  std::sort(bound.begin(), bound.end());
  const auto quantile = [&](double share) {
    double seen = 0;
    for (const auto& [energy, n] : bound)
      if ((seen += static_cast<double>(n)) >= share * static_cast<double>(frames)) return energy;
    return bound.back().first;
  };
  const auto text = [](double energy) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.3g", energy);
    return std::string(buffer) + " eV per atom";
  };
  // Where all are zero, energies count from something else, perhaps from a crystal.
  const bool zero = std::all_of(energies.begin(), energies.end(), [](const auto& entry) { return entry.second == 0; });
  const double middle = quantile(0.5), low = quantile(0.05), high = quantile(0.95);
  const double highest = zero ? -most_bound : highest_bound;
  if (middle > highest || middle < most_bound)
    return "the energies less the sum of the atomic energies are " + text(middle) + " (median); of bound matter " + text(most_bound) + " to 0 are expected";
  if (high - low > widest_bound)
    return "the energies less the sum of the atomic energies are " + text(low) + " to " + text(high) + ", depending on the composition; of right atomic " +
           "energies a range of less than " + text(widest_bound) + " is expected";
  return {};
}

double AtomicEnergies::energy(const Composition& composition) const {
  double sum = 0;
  for (const auto& [z, atoms] : composition) {
    const auto found = elements.find(z);
    if (found == elements.end()) throw std::invalid_argument("there is no atomic energy of " + element_names({z}) + ": give one, or frames with it");
    sum += atoms * found->second.energy;
  }
  return sum;
}

struct AtomicEnergyFit::Implementation {
  // Above: the triangle R of all frames folded so far. Below: `rows` frames that wait. R x = rhs has the solutions of all frames together.
  Eigen::MatrixXd table = Eigen::MatrixXd::Zero(unknowns + block_rows, unknowns);
  int rows = 0;
  std::bitset<unknowns> present;

  void fold() {
    if (rows == 0) return;
    const Eigen::HouseholderQR<Eigen::MatrixXd> qr(table);
    const Eigen::MatrixXd r = qr.matrixQR().topRows(unknowns).triangularView<Eigen::Upper>();
    table.setZero();
    table.topRows(unknowns) = r;
    rows = 0;
  }
};

AtomicEnergyFit::AtomicEnergyFit() : implementation_(std::make_unique<Implementation>()) {}
AtomicEnergyFit::~AtomicEnergyFit() = default;
AtomicEnergyFit::AtomicEnergyFit(AtomicEnergyFit&&) noexcept = default;
AtomicEnergyFit& AtomicEnergyFit::operator=(AtomicEnergyFit&&) noexcept = default;

void AtomicEnergyFit::add(const Composition& frame, double energy, std::int64_t frames) {
  auto& [table, rows, present] = *implementation_;
  double n = 0;
  for (const auto& [z, atoms] : frame) n += atoms;
  // Sum over frames of (y_i - a.x)^2 = frames (mean y - a.x)^2 + what does not depend on x.
  const double scale = std::sqrt(static_cast<double>(frames)) / n;
  for (const auto& [z, atoms] : frame) {
    table(unknowns + rows, z) = scale * atoms;
    present.set(z);
  }
  table(unknowns + rows, 0) = scale * energy;
  if (++rows == block_rows) implementation_->fold();
}

AtomicEnergies AtomicEnergyFit::solve(const std::map<int, double>& isolated) const {
  Implementation folded = *implementation_;
  folded.fold();
  const Eigen::MatrixXd r = folded.table.topRows(unknowns);

  AtomicEnergies result;
  Eigen::VectorXd rhs = r.col(0);
  for (const auto& [z, energy] : isolated) {
    result.elements[z] = {energy, AtomicEnergies::Origin::isolated_atom};
    rhs -= energy * r.col(z);
  }
  std::vector<int> fitted;
  for (int z = 1; z < unknowns; ++z)
    if (folded.present[z] && !isolated.count(z)) fitted.push_back(z);
  if (fitted.empty()) return result;
  Eigen::CompleteOrthogonalDecomposition<Eigen::MatrixXd> decomposition;
  decomposition.setThreshold(1e-10);
  decomposition.compute(r(Eigen::all, fitted));
  const Eigen::VectorXd x = decomposition.solve(rhs);
  for (std::size_t k = 0; k < fitted.size(); ++k) result.elements[fitted[k]] = {x[static_cast<Eigen::Index>(k)], AtomicEnergies::Origin::least_squares};
  result.fitted = static_cast<int>(fitted.size());
  result.rank = static_cast<int>(decomposition.rank());
  return result;
}

}  // namespace adatom::datasets
