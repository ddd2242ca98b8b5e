// SPDX-License-Identifier: MIT
#include "training/loss.hpp"

#include <cmath>
#include <stdexcept>

namespace adatom::training {
namespace {

/// rho(x) and its derivative.
struct Term {
  double value, slope;
};
Term rho(LossShape shape, double x, double delta) {
  switch (shape) {
    case LossShape::l2: return {x * x, 2.0 * x};
    case LossShape::l1: return {std::abs(x), x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0};
    default: break;
  }
  if (std::abs(x) < delta) return {0.5 * x * x, x};
  return {delta * (std::abs(x) - 0.5 * delta), x > 0 ? delta : -delta};
}

double force_delta(const LossOptions& options, const Vector3& reference) {
  if (options.shape != LossShape::universal) return options.delta;
  const double f = std::sqrt(reference[0] * reference[0] + reference[1] * reference[1] + reference[2] * reference[2]);
  return options.delta * (f < 100 ? 1.0 : f < 200 ? 0.7 : f < 300 ? 0.4 : 0.1);
}

constexpr int voigt[9] = {0, 5, 4, 5, 1, 3, 4, 3, 2};  // of row-major components

}  // namespace

LabelCounts& LabelCounts::operator+=(const LabelCounts& other) {
  energies += other.energies, force_components += other.force_components, stress_components += other.stress_components;
  return *this;
}

ErrorSums& ErrorSums::operator+=(const ErrorSums& o) {
  energies += o.energies, energy_square += o.energy_square, energy_absolute += o.energy_absolute;
  energy_per_atom_square += o.energy_per_atom_square, energy_per_atom_absolute += o.energy_per_atom_absolute;
  forces += o.forces, force_square += o.force_square, force_absolute += o.force_absolute;
  stresses += o.stresses, stress_square += o.stress_square, stress_absolute += o.stress_absolute;
  loss += o.loss;
  return *this;
}

void predict(gnn::Evaluator& evaluator, const TrainingBatch& batch, bool strains, Predictions& p) {
  const std::size_t n = batch.atoms();
  p.atom_energies.resize(n), p.forces.resize(3 * n);
  GraphResult result;
  result.energies = p.atom_energies.data();
  result.forces = p.forces.data();
  if (strains) p.atom_virials.resize(9 * n), result.atom_virials = p.atom_virials.data();
  evaluator.evaluate(batch.graph(), result, nullptr);
  p.energies.assign(batch.size(), 0.0);
  p.strains.assign(strains ? 9 * batch.size() : 0, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    const int k = batch.structure()[i];
    p.energies[k] += p.atom_energies[i];
    if (strains)
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) p.strains[9 * k + 3 * a + b] -= 0.5 * (p.atom_virials[9 * i + 3 * a + b] + p.atom_virials[9 * i + 3 * b + a]);
  }
}

bool Loss::needs_strains(const TrainingBatch& batch) const {
  for (std::size_t k = 0; options_.stress > 0.0 && k < batch.size(); ++k)
    if (batch.frame(k).stress) return true;
  return false;
}

ErrorSums Loss::operator()(const TrainingBatch& batch, const Predictions& p, const LabelCounts& counts, gnn::LossGradient* gradient) {
  ErrorSums sums;
  const std::size_t n = batch.atoms();
  energies_.assign(n, 0.0), forces_.assign(3 * n, 0.0), strains_.assign(p.strains.size(), 0.0);
  std::size_t first = 0;
  for (std::size_t k = 0; k < batch.size(); ++k) {
    const datasets::Frame& f = batch.frame(k);
    const std::size_t atoms = f.size();
    bool finite = std::isfinite(p.energies[k]);
    if (f.energy) {
      const double x = p.energies[k] - *f.energy, per_atom = x / static_cast<double>(atoms);
      const double a = options_.energy * f.weights.config * f.weights.energy / counts.energies;
      const Term t = rho(options_.shape, per_atom, options_.delta);
      sums.loss += a * t.value;
      for (std::size_t i = first; i < first + atoms; ++i) energies_[i] = a * t.slope / static_cast<double>(atoms);
      sums.energies += 1, sums.energy_square += x * x, sums.energy_absolute += std::abs(x);
      sums.energy_per_atom_square += per_atom * per_atom, sums.energy_per_atom_absolute += std::abs(per_atom);
    }
    if (!f.forces.empty()) {
      const double a = options_.forces * f.weights.config * f.weights.forces / counts.force_components;
      for (std::size_t i = 0; i < atoms; ++i) {
        const double delta = force_delta(options_, f.forces[i]);
        for (int c = 0; c < 3; ++c) {
          const std::size_t at = 3 * (first + i) + c;
          const double x = p.forces[at] - f.forces[i][c];
          finite = finite && std::isfinite(x);
          const Term t = rho(options_.shape, x, delta);
          sums.loss += a * t.value;
          forces_[at] = a * t.slope;
          sums.force_square += x * x, sums.force_absolute += std::abs(x);
        }
      }
      sums.forces += 3.0 * static_cast<double>(atoms);
    }
    if (f.stress && !p.strains.empty()) {
      const double a = options_.stress * f.weights.config * f.weights.stress / counts.stress_components, volume = batch.volume(k);
      for (int c = 0; c < 9; ++c) {
        const double x = p.strains[9 * k + c] / volume - (*f.stress)[voigt[c]];
        finite = finite && std::isfinite(x);
        const Term t = rho(options_.shape, x, options_.delta);
        sums.loss += a * t.value;
        strains_[9 * k + c] = a * t.slope / volume;
        sums.stress_square += x * x, sums.stress_absolute += std::abs(x);
      }
      sums.stresses += 9.0;
    }
    if (!finite) throw NotFinite(k);
    first += atoms;
  }
  if (gradient) *gradient = {energies_.data(), forces_.data(), strains_.empty() ? nullptr : strains_.data(), batch.structure().data()};
  return sums;
}

}  // namespace adatom::training
