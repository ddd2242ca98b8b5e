// SPDX-License-Identifier: MIT
#include "training/frames.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "adatom/elements.hpp"
#include "adatom/neighbor_list.hpp"
#include "datasets/atomic_energies.hpp"
#include "datasets/frame_source.hpp"
#include "datasets/random.hpp"
#include "datasets/xxhash.hpp"

namespace adatom::training {
namespace {

using datasets::DataError;
using datasets::Frame;

void check(const Frame& frame, const std::string& where, const LossOptions& loss) {
  const std::vector<std::string> defects = datasets::defects(frame);
  if (!defects.empty()) throw DataError(where + ": " + defects.front() + "; `adatom data check` lists all that is wrong");
  if (loss.forces > 0 && frame.forces.empty())
    throw DataError(where + ": it has no forces; give the key they have in the file as data.keys.forces, or set loss.forces = 0");
  if (loss.energy > 0 && !frame.energy)
    throw DataError(where + ": it has no energy; give the key it has in the file as data.keys.energy, or set loss.energy = 0");
  const auto& pbc = frame.structure.pbc;
  if (frame.stress && !(pbc[0] && pbc[1] && pbc[2])) throw DataError(where + ": it has a stress, but its cell is not periodic in all directions");
}

void read(const std::vector<std::string>& files, const RunConfig& config, FrameSet& to, std::map<int, double>& isolated) {
  for (const std::string& file : files) {
    const auto source = datasets::open_frames(file, config.data.keys);
    Frame frame;
    while (source->next(frame)) {
      if (datasets::is_isolated_atom(frame)) {
        if (frame.energy && frame.size() == 1) isolated.emplace(frame.structure.numbers[0], *frame.energy);
        continue;
      }
      check(frame, source->where(), config.loss);
      to.frames.push_back(frame);
      to.origins.push_back(source->where());
    }
  }
}

std::map<int, double> atomic_energies(const RunData& data, const DataOptions& options) {
  std::map<int, double> result;
  if (options.atomic_energies == "zero") {
    for (const int z : data.elements) result[z] = 0.0;
    return result;
  }
  if (options.atomic_energies == "given" || !options.atomic_energy_of.empty()) {
    for (const auto& [symbol, energy] : options.atomic_energy_of) result[atomic_number(symbol)] = energy;
  } else if (options.atomic_energies == "isolated" || (options.atomic_energies == "auto" && !data.isolated.empty())) {
    result = data.isolated;
  } else {
    datasets::AtomicEnergyFit fit;
    for (const Frame& f : data.train.frames)
      if (f.energy) fit.add(datasets::composition(f.structure), *f.energy);
    for (const auto& [z, entry] : fit.solve().elements) result[z] = entry.energy;
  }
  for (const int z : data.elements)
    if (!result.count(z))
      throw std::invalid_argument("there is no atomic energy of " + element_symbol(z) + ": add its isolated atom to the data (data.isolated_atoms), give " +
                                  "data.atomic_energy_of." + element_symbol(z) + ", or set data.atomic_energies = \"least_squares\"");
  return result;
}

}  // namespace

RunData read_data(const RunConfig& config) {
  RunData data;
  if (!config.data.isolated_atoms.empty()) {
    FrameSet rest;
    RunConfig loose = config;
    loose.loss.forces = 0;
    read({config.data.isolated_atoms}, loose, rest, data.isolated);
    if (!rest.frames.empty()) throw DataError(rest.origins.front() + ": data.isolated_atoms names a file with configurations that are not isolated atoms");
  }
  read(config.data.train, config, data.train, data.isolated);
  if (config.data.valid.empty()) {
    const std::size_t n = data.train.frames.size(), held = static_cast<std::size_t>(std::lround(config.data.valid_fraction * static_cast<double>(n)));
    std::vector<std::size_t> order = datasets::shuffled(n, config.seed);
    std::vector<bool> is_valid(n, false);
    for (std::size_t k = 0; k < held; ++k) is_valid[order[k]] = true;
    FrameSet train;
    for (std::size_t k = 0; k < n; ++k) {
      FrameSet& to = is_valid[k] ? data.valid : train;
      to.frames.push_back(std::move(data.train.frames[k]));
      to.origins.push_back(std::move(data.train.origins[k]));
    }
    data.train = std::move(train);
  } else {
    std::map<int, double> unused;
    read(config.data.valid, config, data.valid, unused);
  }
  if (data.train.frames.empty()) throw std::invalid_argument("there is no configuration to train on in data.train");
  if (data.valid.frames.empty())
    throw std::invalid_argument("there is no configuration for validation: set data.valid, or a larger data.valid_fraction (it is " +
                                std::to_string(config.data.valid_fraction) + " of " + std::to_string(data.train.frames.size()) + ")");
  std::set<int> elements;
  for (FrameSet* set : {&data.train, &data.valid}) {
    std::string text;
    for (Frame& f : set->frames) {
      elements.insert(f.structure.numbers.begin(), f.structure.numbers.end());
      if (f.head.empty()) f.head = "Default";
      if (std::find(data.heads.begin(), data.heads.end(), f.head) == data.heads.end()) data.heads.push_back(f.head);
    }
  }
  data.elements.assign(elements.begin(), elements.end());
  return data;
}

ModelData describe_data(const RunData& data, const DataOptions& options, double cutoff) {
  ModelData result;
  result.elements = data.elements;
  result.heads = data.heads;
  const std::map<int, double> energies = atomic_energies(data, options);
  std::vector<double> row;
  for (const int z : data.elements) row.push_back(energies.at(z));
  double edges = 0.0, atoms = 0.0;
  NeighborList list(cutoff);
  for (const Frame& f : data.train.frames) {
    list.update(f.structure, 1);
    edges += static_cast<double>(list.sender().size());
    atoms += static_cast<double>(f.size());
  }
  result.average_neighbors = std::max(edges / atoms, 1.0);
  for (const std::string& head : data.heads) {
    double square = 0.0, components = 0.0, excess = 0.0, configurations = 0.0;
    for (const Frame& f : data.train.frames) {
      if (f.head != head) continue;
      for (const Vector3& x : f.forces) square += x[0] * x[0] + x[1] * x[1] + x[2] * x[2];
      components += 3.0 * static_cast<double>(f.forces.size());
      if (f.energy) {
        double e = *f.energy;
        for (const int z : f.structure.numbers) e -= energies.at(z);
        excess += e / static_cast<double>(f.size());
        configurations += 1.0;
      }
    }
    const double scale = components > 0 && square > 0 ? std::sqrt(square / components) : 1.0;
    result.atomic_energies.push_back(row);
    result.scale.push_back({scale});
    result.shift.push_back({configurations > 0 ? excess / configurations : 0.0});
  }
  return result;
}

}  // namespace adatom::training
