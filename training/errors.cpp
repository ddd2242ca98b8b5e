// SPDX-License-Identifier: MIT
#include "training/errors.hpp"

#include <cmath>

#include "adatom/elements.hpp"

namespace adatom::training {

using nlohmann::json;

namespace {

double root(double square, double n) { return n > 0 ? std::sqrt(square / n) : 0.0; }
double mean(double sum, double n) { return n > 0 ? sum / n : 0.0; }

}  // namespace

json describe(const Errors& e) {
  json result = {{"loss", e.loss}};
  if (e.energies > 0) {
    result["energy_rmse"] = e.energy_rmse, result["energy_mae"] = e.energy_mae;
    result["energy_per_atom_rmse"] = e.energy_per_atom_rmse, result["energy_per_atom_mae"] = e.energy_per_atom_mae;
  }
  if (e.forces > 0) {
    result["force_rmse"] = e.force_rmse, result["force_mae"] = e.force_mae;
    result["force_rmse_by_element"] = e.force_rmse_of, result["force_mae_by_element"] = e.force_mae_of;
  }
  if (e.stresses > 0) result["stress_rmse"] = e.stress_rmse, result["stress_mae"] = e.stress_mae;
  for (const auto& [name, of_head] : e.heads) result["heads"][name] = describe(of_head);
  return result;
}

ErrorCollector::ErrorCollector(const std::vector<int>& elements, const std::vector<std::string>& heads)
    : elements_(elements), names_(heads), heads_(heads.size()) {
  for (HeadSums& h : heads_) h.elements.resize(elements.size());
}

void ErrorCollector::add(const TrainingBatch& batch, const Predictions& predictions, int head, const ErrorSums& sums) {
  HeadSums& to = heads_[head];
  to.sums += sums;
  std::size_t first = 0;
  for (std::size_t k = 0; k < batch.size(); ++k) {
    const datasets::Frame& f = batch.frame(k);
    for (std::size_t i = 0; i < f.forces.size(); ++i) {
      ForceSums& of_element = to.elements[batch.graph().species[first + i]];
      for (int c = 0; c < 3; ++c) {
        const double x = predictions.forces[3 * (first + i) + c] - f.forces[i][c];
        of_element.square += x * x, of_element.absolute += std::abs(x);
      }
      of_element.components += 3.0;
    }
    first += f.size();
  }
}

void ErrorCollector::reduce(Communicator& communicator) {
  static_assert(sizeof(ErrorSums) % sizeof(double) == 0 && sizeof(ForceSums) % sizeof(double) == 0);
  for (HeadSums& h : heads_) {
    communicator.sum(reinterpret_cast<double*>(&h.sums), sizeof(ErrorSums) / sizeof(double));
    communicator.sum(reinterpret_cast<double*>(h.elements.data()), h.elements.size() * sizeof(ForceSums) / sizeof(double));
  }
}

Errors ErrorCollector::errors(const HeadSums& h) const {
  const ErrorSums& s = h.sums;
  Errors e;
  e.loss = s.loss;
  e.energies = s.energies, e.forces = s.forces, e.stresses = s.stresses;
  e.energy_rmse = root(s.energy_square, s.energies), e.energy_mae = mean(s.energy_absolute, s.energies);
  e.energy_per_atom_rmse = root(s.energy_per_atom_square, s.energies), e.energy_per_atom_mae = mean(s.energy_per_atom_absolute, s.energies);
  e.force_rmse = root(s.force_square, s.forces), e.force_mae = mean(s.force_absolute, s.forces);
  e.stress_rmse = root(s.stress_square, s.stresses), e.stress_mae = mean(s.stress_absolute, s.stresses);
  for (std::size_t z = 0; z < elements_.size(); ++z) {
    const ForceSums& f = h.elements[z];
    if (f.components == 0) continue;
    e.force_rmse_of[element_symbol(elements_[z])] = root(f.square, f.components);
    e.force_mae_of[element_symbol(elements_[z])] = mean(f.absolute, f.components);
  }
  return e;
}

Errors ErrorCollector::errors() const {
  HeadSums all;
  all.elements.resize(elements_.size());
  for (const HeadSums& h : heads_) {
    all.sums += h.sums;
    for (std::size_t z = 0; z < elements_.size(); ++z) {
      all.elements[z].components += h.elements[z].components;
      all.elements[z].square += h.elements[z].square, all.elements[z].absolute += h.elements[z].absolute;
    }
  }
  Errors result = errors(all);
  if (heads_.size() > 1)
    for (std::size_t h = 0; h < heads_.size(); ++h)
      if (const ErrorSums& s = heads_[h].sums; s.energies + s.forces + s.stresses > 0) result.heads[names_[h]] = errors(heads_[h]);
  return result;
}

}  // namespace adatom::training
