// SPDX-License-Identifier: MIT
#include "datasets/atomic_energies.hpp"

#include <Eigen/Dense>
#include <bitset>
#include <cmath>
#include <stdexcept>

#include "adatom/elements.hpp"

namespace adatom::datasets {
namespace {

constexpr int unknowns = max_atomic_number + 1;  // column z is element z, column 0 the right-hand side
constexpr int block_rows = 512;

}  // namespace

Composition composition(const Structure& structure) {
  std::map<int, int> atoms;
  for (const int z : structure.numbers) ++atoms[z];
  return {atoms.begin(), atoms.end()};
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
