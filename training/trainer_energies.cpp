// SPDX-License-Identifier: MIT
// Where a run begins with a model: its atomic energies against the energies of the data.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "datasets/atomic_energies.hpp"
#include "training/trainer_implementation.hpp"

namespace adatom::training {

using datasets::Frame;
using nlohmann::json;

namespace {

constexpr std::size_t sample_atoms = 20000;  // of the training configurations, for the errors before the first epoch

double& atomic_energy(ModelFile& file, int head, int z) {
  const auto at = static_cast<std::size_t>(std::find(file.elements.begin(), file.elements.end(), z) - file.elements.begin());
  return file.tensors.at("atomic_energies").data.at(static_cast<std::size_t>(head) * file.elements.size() + at);
}

}  // namespace

/// Label minus prediction of the energies of configurations of data.train, eV, at their numbers; zero where there is no label.
std::vector<double> Trainer::Implementation::energy_errors(const std::vector<std::size_t>& chosen) {
  std::vector<double> errors(data.train.size(), 0.0);
  together([&] {
    for_parts_of_all(data.train, chosen, [&](const Part& part) {
      const std::vector<double>& energies = model->energies(part.batch, part.head);
      for (std::size_t k = 0; k < part.batch.size(); ++k)
        if (const auto& label = part.batch.frame(k).energy) errors[part.numbers[k]] = *label - energies[k];
    });
  });
  communicator->sum(errors.data(), errors.size());
  return errors;
}

/// Heads of the data that get other atomic energies than those of the model.
std::vector<std::string> Trainer::Implementation::heads_with_new_energies() const {
  const bool own = config.data.atomic_energies == "auto" && config.data.atomic_energy_of.empty();
  const json added = config.model.value("heads", json::object());
  std::vector<std::string> heads;
  for (const std::string& head : data.heads)
    if (config.data.atomic_energies != "model" && (!own || added.contains(head))) heads.push_back(head);
  return heads;
}

/// Whether the atomic energies of a head are fitted to its configurations.
bool Trainer::Implementation::fits_energies(const std::string& head) const {
  const DataOptions& options = config.data;
  if (!options.atomic_energy_of.empty()) return false;
  return options.atomic_energies == "least_squares" || (options.atomic_energies == "auto" && isolated_atoms(data, head).empty());
}

/// Atomic energies that are given or those of isolated atoms.
void Trainer::Implementation::take_atomic_energies(ModelFile& file) {
  for (const std::string& head : heads_with_new_energies()) {
    if (fits_energies(head)) continue;
    DataOptions options = config.data;
    if (options.atomic_energies == "auto") options.atomic_energies = "isolated";
    for (const auto& [z, energy] : atomic_energies(data, head, options))
      if (std::count(data.elements.begin(), data.elements.end(), z)) atomic_energy(file, model_head(head), z) = energy;
  }
}

/// Least squares of what the network leaves of the energies: the smallest change of the model's atomic energies. Fitted to the energies themselves they would
/// hold the binding energy, which the network gives already.
void Trainer::Implementation::fit_atomic_energies() {
  std::vector<std::string> heads = heads_with_new_energies();
  heads.erase(std::remove_if(heads.begin(), heads.end(), [&](const std::string& head) { return !fits_energies(head); }), heads.end());
  const auto fitted = [&](std::size_t k) { return data.train.info(k).energy && std::count(heads.begin(), heads.end(), data.train.head(k)); };
  std::vector<std::size_t> chosen;
  for (std::size_t k = 0; k < data.train.size(); ++k)
    if (fitted(k)) chosen.push_back(k);
  if (chosen.empty()) return;
  const std::vector<double> errors = energy_errors(chosen);
  together([&] {
    std::map<std::string, datasets::AtomicEnergyFit> fits;
    data.train.for_each([&](std::size_t k, const Frame& f) {
      if (fitted(k)) fits[data.train.head(k)].add(datasets::composition(f.structure), errors[k]);
    });
    for (const auto& [head, fit] : fits)
      for (const auto& [z, change] : fit.solve().elements) atomic_energy(original, model_head(head), z) += change.energy;
    model.reset();
    model = std::make_unique<TrainingModel>(original, data.elements, config.precision, config.device, config.threads);
  });
}

/// Errors of the energies that the model begins with, on a sample. Where they are large and other atomic energies would take most of them away, the
/// weights would be bent to an offset between two levels of theory.
void Trainer::Implementation::compare_energies() {
  constexpr double large = 0.1, most = 5.0;  // eV/atom; times what is left
  const std::vector<std::size_t> chosen = sample(data.train, sample_atoms);
  const std::vector<double> errors = energy_errors(chosen);
  struct Sums {
    datasets::AtomicEnergyFit fit;
    std::vector<std::pair<datasets::Composition, double>> configurations;  // error, eV
  };
  std::map<std::string, Sums> of_head;
  together([&] {
    Frame space;
    for (const std::size_t k : chosen) {
      if (!data.train.info(k).energy) continue;
      const Frame& f = data.train.get(k, space);
      Sums& sums = of_head[data.train.head(k)];
      sums.configurations.emplace_back(datasets::composition(f.structure), errors[k]);
      sums.fit.add(sums.configurations.back().first, errors[k]);
    }
  });
  for (auto& [head, sums] : of_head) {
    const datasets::AtomicEnergies change = sums.fit.solve();
    double mean = 0.0, square = 0.0, left = 0.0;
    for (const auto& [composition, error] : sums.configurations) {
      double atoms = 0.0;
      for (const auto& [z, count] : composition) atoms += count;
      const double rest = (error - change.energy(composition)) / atoms;
      mean -= error / atoms, square += error * error / (atoms * atoms), left += rest * rest;
    }
    const double n = static_cast<double>(sums.configurations.size());
    mean /= n, square = std::sqrt(square / n);
    left = n > change.rank ? std::sqrt(left / (n - change.rank)) : 0.0;
    begins[head] = {{"configurations", sums.configurations.size()}, {"energy_per_atom_mean_error", mean}, {"energy_per_atom_rmse", square}};
    if (!(square > large && square > most * left)) continue;
    char numbers[160];
    std::snprintf(numbers, sizeof numbers, "%.0f meV/atom (mean %+.0f), of which other atomic energies would leave %.0f", 1e3 * square, 1e3 * mean, 1e3 * left);
    data.warnings.push_back("before the first epoch the energies of " + std::filesystem::path(config.model.at("file").get<std::string>()).filename().string() +
                            " are wrong by " + numbers + (of_head.size() > 1 ? ", for the head '" + head + "'" : "") +
                            ": the data are of another level of theory than the model, whose weights will be bent to that. Set data.atomic_energies = "
                            "\"least_squares\", or give the data a head of its own (model.heads)");
  }
}

}  // namespace adatom::training
