// SPDX-License-Identifier: MIT
#include "training/architecture.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "adatom/elements.hpp"
#include "training/blueprint.hpp"
#include "training/parameters.hpp"
#include "training/random_normals.hpp"

namespace adatom::training {

using nlohmann::json;

namespace {

/// [head][element], where one value per head stands for all elements.
std::vector<double> per_head_and_element(const std::vector<std::vector<double>>& rows, const ModelData& data, const std::string& what, bool may_be_one) {
  const std::size_t heads = data.heads.size(), elements = data.elements.size();
  if (rows.size() != heads)
    throw std::invalid_argument(what + " has " + std::to_string(rows.size()) + " rows, expected one for each of " + std::to_string(heads) + " heads");
  std::vector<double> values;
  for (std::size_t h = 0; h < heads; ++h) {
    if (rows[h].size() != elements && !(may_be_one && rows[h].size() == 1))
      throw std::invalid_argument(what + " of head '" + data.heads[h] + "' has " + std::to_string(rows[h].size()) + " values, expected " +
                                  (may_be_one ? "one, or " : "") + "one for each of " + std::to_string(elements) + " elements");
    for (std::size_t z = 0; z < elements; ++z) {
      const double value = rows[h][rows[h].size() == 1 ? 0 : z];
      if (!std::isfinite(value))
        throw std::invalid_argument(what + " of head '" + data.heads[h] + "' and " + element_symbol(data.elements[z]) + " is " + std::to_string(value));
      values.push_back(value);
    }
  }
  return values;
}

void check(const ModelData& data) {
  if (data.elements.empty()) throw std::invalid_argument("a new model needs at least one element");
  for (const int z : data.elements) {
    if (z < 1 || z > max_atomic_number) throw std::invalid_argument("atomic number " + std::to_string(z) + " of a new model: expected 1 to 118");
    if (std::count(data.elements.begin(), data.elements.end(), z) > 1)
      throw std::invalid_argument("the elements of a new model have " + element_symbol(z) + " twice");
  }
  if (data.heads.empty()) throw std::invalid_argument("a new model needs at least one head, e.g. 'Default'");
  if (!(data.average_neighbors > 0) || !std::isfinite(data.average_neighbors))
    throw std::invalid_argument("the average number of neighbours is " + std::to_string(data.average_neighbors) +
                                ", expected a positive number: is the cutoff shorter than all distances in the data?");
}

Blueprint make_blueprint(Options& options, const ModelData& data) {
  const std::string family = options.choice("family", "mace", {"mace", "nequip"});
  return family == "mace" ? mace_blueprint(options, data) : nequip_blueprint(options, data);
}

/// Before any of it is allocated: does a model of this size fit the machine?
void check_memory(const Blueprint& blueprint) {
  constexpr double copies = 12.0;  // of each number while it is trained: model, parameters, average, gradient, moments, ...
  double numbers = 0.0;
  for (const auto& [name, plan] : blueprint.tensors) {
    double size = 1.0;
    for (const std::size_t n : plan.shape) size *= static_cast<double>(n);
    numbers += size;
  }
  const double needed = copies * sizeof(double) * numbers,
               there = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  if (there <= 0 || needed <= there) return;
  char text[160];
  std::snprintf(text, sizeof text, "%.3g numbers, whose training needs about %.3g GB of memory; this machine has %.3g GB", numbers, needed / 1e9, there / 1e9);
  throw std::invalid_argument("the model would have " + std::string(text) + ": choose fewer channels or narrower hidden layers in [model]");
}

}  // namespace

ModelFile new_model(const json& config, const ModelData& data, std::uint64_t seed) {
  check(data);
  Options options(config, "model");
  const Blueprint blueprint = make_blueprint(options, data);
  check_memory(blueprint);

  ModelFile model;
  model.architecture = blueprint.architecture.dump();
  model.elements = data.elements;
  model.heads = data.heads;
  model.cutoff = blueprint.architecture.at("r_max").get<double>();
  const std::vector<std::size_t> shape{data.heads.size(), data.elements.size()};
  model.tensors["atomic_energies"] = {shape, per_head_and_element(data.atomic_energies, data, "atomic_energies", false)};
  model.tensors["scale"] = {shape, per_head_and_element(data.scale, data, "scale", true)};
  model.tensors["shift"] = {shape, per_head_and_element(data.shift, data, "shift", true)};
  for (const auto& [name, plan] : blueprint.tensors) {
    std::size_t size = 1;
    for (const std::size_t n : plan.shape) size *= n;
    model.tensors[name] = {plan.shape, plan.values.empty() ? std::vector<double>(size) : plan.values};
  }
  for (const auto& [name, role] : tensor_roles(model)) {
    const auto plan = blueprint.tensors.find(name);
    if (!role.trainable || plan == blueprint.tensors.end() || plan->second.deviation == 0.0) continue;
    RandomNormals normals(seed, name);
    const double size = role.scale * plan->second.deviation;
    for (double& x : model.tensors[name].data) x = size * normals.next();
  }
  return model;
}

nlohmann::ordered_json resolved_options(const json& config) {
  Options options(config, "model");
  ModelData smallest;
  smallest.elements = {1};
  smallest.heads = {"0", "1"};  // some options are for models of several
  make_blueprint(options, smallest);
  return options.resolved();
}

}  // namespace adatom::training
