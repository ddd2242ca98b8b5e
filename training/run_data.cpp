// SPDX-License-Identifier: MIT
// What a run reads before it begins, and what a new model takes from it.
#include <algorithm>
#include <cmath>
#include <set>

#include "adatom/elements.hpp"
#include "datasets/atomic_energies.hpp"
#include "datasets/cache.hpp"
#include "datasets/random.hpp"
#include "training/data_checks.hpp"
#include "training/frames.hpp"
#include "training/label_checks.hpp"

namespace adatom::training {
namespace {

using datasets::DataError;
using datasets::Frame;

void require_some(const std::string& what, const std::vector<std::string>& files, const FrameSet& set) {
  if (set.size() > 0) return;
  std::string names;
  for (const std::string& file : files) names += (names.empty() ? "" : ", ") + file;
  throw std::invalid_argument("there is no configuration in " + what + " (" + names + "), isolated atoms left out");
}

void hold_out(const RunConfig& config, RunData& data) {
  const std::size_t n = data.train.size(), held = static_cast<std::size_t>(std::lround(config.data.valid_fraction * static_cast<double>(n)));
  if (held == 0 || held == n)
    throw std::invalid_argument("there is no configuration for " + std::string(held == 0 ? "validation" : "training") + ": data.valid_fraction is " +
                                std::to_string(config.data.valid_fraction) + ", of " + std::to_string(n) +
                                " configurations; set it to something else, or set data.valid");
  // The only configuration of a head with an element stays in training: what nothing is learned of cannot be validated.
  std::map<std::pair<std::string, int>, std::size_t> left;
  const auto elements = [](const Frame& f) { return std::set<int>(f.structure.numbers.begin(), f.structure.numbers.end()); };
  data.train.for_each([&](std::size_t k, const Frame& f) {
    for (const int z : elements(f)) ++left[{data.train.head(k), z}];
  });
  std::vector<bool> chosen(n, false);
  std::size_t count = 0;
  Frame space;
  for (const std::size_t k : datasets::shuffled(n, config.seed)) {
    if (count == held) break;
    const std::string& head = data.train.head(k);
    const std::set<int> numbers = elements(data.train.get(k, space));
    if (std::any_of(numbers.begin(), numbers.end(), [&](int z) { return left[{head, z}] < 2; })) continue;
    for (const int z : numbers) --left[{head, z}];
    chosen[k] = true, ++count;
  }
  if (count == 0)
    throw std::invalid_argument("no configuration of data.train can be held out for validation: each is the only one with some element; set data.valid");
  data.valid = data.train.split(chosen);
}

void suggest_caches(const FrameSet& set, std::vector<std::string>& warnings) {
  constexpr double much = 2e9;
  for (const auto& file : set.files()) {
    double bytes = 0;
    for (const Frame& f : file->frames) bytes += static_cast<double>(sizeof f + f.size() * (2 * sizeof(Vector3) + sizeof(int)));
    if (bytes > much)
      warnings.push_back(file->path + ": " + std::to_string(static_cast<int>(bytes / 1e9)) +
                         " GB of configurations are held in memory, in every process; `adatom data " +
                         "convert` makes a training cache of it, which is read batch by batch");
  }
}

void require_labels(const RunConfig& config, RunData& data) {
  std::size_t stresses = 0;
  for (std::size_t k = 0; k < data.train.size(); ++k) stresses += data.train.info(k).stress;
  if (config.loss.stress == 0 && stresses > 0)
    data.warnings.push_back(std::to_string(stresses) + " of " + std::to_string(data.train.size()) +
                            " configurations of data.train have a stress, which loss.stress = 0 ignores: pressures and cells will be "
                            "less exact than they could be. Set loss.stress, for instance to loss.forces, to learn from it");
  if (config.loss.stress > 0 && stresses == 0)
    throw DataError("loss.stress is " + std::to_string(config.loss.stress) +
                    ", but no configuration of data.train has a stress: give the key it has in the files as "
                    "data.keys.stress (or data.keys.virial), or set loss.stress = 0");
}

void refuse_unused_keys(const DataOptions& options) {
  std::vector<std::string> files;
  for (const auto* some : {&options.train, &options.valid, &options.test}) files.insert(files.end(), some->begin(), some->end());
  if (!options.isolated_atoms.empty()) files.push_back(options.isolated_atoms);
  if (options.keys.named.empty() || !std::all_of(files.begin(), files.end(), datasets::is_cache)) return;
  throw std::invalid_argument("data.keys." + *options.keys.named.begin() +
                              " means nothing to training caches, which keep labels under their meaning: give it to " +
                              "`adatom data convert`, where caches are made");
}

}  // namespace

RunData read_data(const RunConfig& config) {
  RunData data;
  refuse_unused_keys(config.data);
  if (!config.data.isolated_atoms.empty()) {
    FrameSet rest;
    RunConfig loose = config;
    loose.loss.forces = loose.loss.stress = 0;
    datasets::LabelKeys& keys = loose.data.keys;  // energies are all that is asked of this file
    keys.forces = keys.stress = keys.virial = "";
    keys.config_type = datasets::LabelKeys().config_type, keys.weight = datasets::LabelKeys().weight;
    rest.add(config.data.isolated_atoms, loose, &data.isolated);
    if (rest.size() > 0) throw DataError(rest.origin(0) + ": data.isolated_atoms names a file with configurations that are not isolated atoms");
    data.provenance["isolated_atoms"] = rest.provenance();
    data.warnings = rest.warnings();
    data.ions = rest.ions();
  }
  for (const std::string& file : config.data.train) data.train.add(file, config, &data.isolated);
  require_some("data.train", config.data.train, data.train);
  data.ions.insert(data.train.ions().begin(), data.train.ions().end());
  refuse_same_file_twice("data.train", data.train);
  for (const std::string& file : config.data.valid) data.valid.add(file, config, nullptr);
  refuse_same_file_twice("data.valid", data.valid);
  if (config.data.valid.empty())
    hold_out(config, data);
  else
    require_some("data.valid", config.data.valid, data.valid);
  for (const FrameSet* set : {&data.train, &data.valid}) data.warnings.insert(data.warnings.end(), set->warnings().begin(), set->warnings().end());
  require_labels(config, data);
  std::set<int> elements;
  for (const FrameSet* set : {&data.train, &data.valid}) {
    for (std::size_t h = 0; h < set->heads().size(); ++h) {
      elements.insert(set->elements(h).begin(), set->elements(h).end());
      if (std::find(data.heads.begin(), data.heads.end(), set->heads()[h]) == data.heads.end()) data.heads.push_back(set->heads()[h]);
    }
  }
  data.elements.assign(elements.begin(), elements.end());
  for (const std::string& file : config.data.test) {
    data.tests.emplace_back();
    data.tests.back().add(file, config, nullptr);
    require_some("data.test", {file}, data.tests.back());
    const FrameSet& set = data.tests.back();
    data.warnings.insert(data.warnings.end(), set.warnings().begin(), set.warnings().end());
    for (std::size_t h = 0; h < set.heads().size(); ++h) {
      for (const int z : set.elements(h))
        if (!elements.count(z)) throw DataError(file + ": it has " + element_symbol(z) + ", which no configuration of data.train or data.valid has");
      if (std::find(data.heads.begin(), data.heads.end(), set.heads()[h]) == data.heads.end())
        throw DataError(file + ": it has configurations of head '" + set.heads()[h] + "', which data.train and data.valid do not have");
    }
  }
  check_sets(config, data);
  data.provenance["train"] = data.train.provenance();
  data.provenance["valid"] = data.valid.provenance();
  check_labels(config, data);
  suggest_caches(data.train, data.warnings);
  return data;
}

std::map<int, double> isolated_atoms(const RunData& data, const std::string& head) {
  std::map<int, double> result;
  const bool unnamed = head == "Default" || data.heads.size() == 1;  // atoms that name no head are of the level of theory of frames that name none
  for (const std::string& name : {head, std::string()})
    if (const auto found = data.isolated.find(name); found != data.isolated.end() && (!name.empty() || unnamed))
      result.insert(found->second.begin(), found->second.end());
  return result;
}

namespace {

bool has(const FrameSet& set, const std::string& head, int z) {
  for (std::size_t h = 0; h < set.heads().size(); ++h)
    if (set.heads()[h] == head && std::binary_search(set.elements(h).begin(), set.elements(h).end(), z)) return true;
  return false;
}

/// What the options give for a head; not all elements need be there.
std::map<int, double> find_energies(const RunData& data, const std::string& head, const DataOptions& options) {
  std::map<int, double> result;
  if (options.atomic_energies == "zero") {
    for (const int z : data.elements) result[z] = 0.0;
    return result;
  }
  if (options.atomic_energies == "given" || !options.atomic_energy_of.empty()) {
    for (const auto& [symbol, energy] : options.atomic_energy_of) result[atomic_number(symbol)] = energy;
    return result;
  }
  if (options.atomic_energies != "least_squares") result = isolated_atoms(data, head);
  if (options.atomic_energies == "isolated" || (options.atomic_energies == "auto" && !result.empty())) return result;
  datasets::AtomicEnergyFit fit;
  data.train.for_each([&](std::size_t k, const Frame& f) {
    if (f.energy && data.train.head(k) == head) fit.add(datasets::composition(f.structure), *f.energy);
  });
  for (const auto& [z, entry] : fit.solve().elements) result[z] = entry.energy;
  return result;
}

}  // namespace

std::map<int, double> atomic_energies(const RunData& data, const std::string& head, const DataOptions& options) {
  std::map<int, double> result = find_energies(data, head, options);
  for (const int z : data.elements) {
    const bool trained = has(data.train, head, z);
    if (result.count(z) || !(trained || has(data.valid, head, z))) continue;
    const std::string symbol = element_symbol(z);
    throw std::invalid_argument("there is no atomic energy of " + symbol + (data.heads.size() > 1 ? " for the head '" + head + "'" : "") +
                                (trained ? "" : ", of which it has no configuration in data.train") +
                                (data.ions.count(z) ? ", since the isolated atom of " + data.ions.at(z) + " is an ion, of another energy" : "") +
                                ": add its isolated atom to the data (data.isolated_atoms), give data.atomic_energy_of." + symbol +
                                (trained ? ", or set data.atomic_energies = \"least_squares\"" : ", or add configurations"));
  }
  return result;
}

std::vector<std::vector<double>> atomic_energies(const RunData& data, const DataOptions& options) {
  std::vector<std::map<int, double>> heads;
  std::map<int, double> any;
  for (const std::string& head : data.heads) {
    heads.push_back(atomic_energies(data, head, options));
    any.insert(heads.back().begin(), heads.back().end());
  }
  std::vector<std::vector<double>> rows;
  for (std::size_t h = 0; h < heads.size(); ++h) {
    rows.emplace_back();
    for (const int z : data.elements) rows.back().push_back(heads[h].count(z) ? heads[h].at(z) : any[z]);
  }
  return rows;
}

ModelData describe_data(const RunData& data, const DataOptions& options) {
  ModelData result;
  result.elements = data.elements;
  result.heads = data.heads;
  result.atomic_energies = atomic_energies(data, options);
  double edges = 0.0, atoms = 0.0;
  struct Sums {
    double square = 0.0, components = 0.0, excess = 0.0, configurations = 0.0;
  };
  std::map<std::string, Sums> of_head;
  std::map<std::string, std::map<int, double>> energies;  // the same by head and atomic number
  for (std::size_t h = 0; h < data.heads.size(); ++h)
    for (std::size_t z = 0; z < data.elements.size(); ++z) energies[data.heads[h]][data.elements[z]] = result.atomic_energies[h][z];
  data.train.for_each([&](std::size_t k, const Frame& f) {
    edges += data.train.info(k).edges;
    atoms += static_cast<double>(f.size());
    Sums& sums = of_head[data.train.head(k)];
    const std::map<int, double>& of_atoms = energies.at(data.train.head(k));
    for (const Vector3& x : f.forces) sums.square += x[0] * x[0] + x[1] * x[1] + x[2] * x[2];
    sums.components += 3.0 * static_cast<double>(f.forces.size());
    if (f.energy) {
      double e = *f.energy;
      for (const int z : f.structure.numbers) e -= of_atoms.at(z);
      sums.excess += e / static_cast<double>(f.size());
      sums.configurations += 1.0;
    }
  });
  result.average_neighbors = std::max(edges / atoms, 1.0);
  for (const std::string& head : data.heads) {
    const Sums& sums = of_head[head];
    const double scale = sums.components > 0 && sums.square > 0 ? std::sqrt(sums.square / sums.components) : 1.0;
    result.scale.push_back({scale});
    result.shift.push_back({sums.configurations > 0 ? sums.excess / sums.configurations : 0.0});
  }
  return result;
}

}  // namespace adatom::training
