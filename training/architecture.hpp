// SPDX-License-Identifier: MIT
// New models: from a few options to the architecture and the tensors of a model file (docs/model_file.md), before any training.
//
// The architecture is the one that an importer writes for a model that mace-torch (ScaleShiftMACE) or sevenn builds with the same options: the same
// irreps, the same paths in the same order, the same tensors. Initial weights have the distributions that these packages draw them from.
// docs/training_models.md describes the options.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "potential/model_file.hpp"

namespace adatom::training {

/// What the training data decide about a new model.
struct ModelData {
  std::vector<int> elements;  ///< atomic numbers; their order is kept
  std::vector<std::string> heads = {"Default"};
  std::vector<std::vector<double>> atomic_energies;  ///< [head][element] eV
  std::vector<std::vector<double>> scale;            ///< [head][element], or [head][1] for all elements: eV
  std::vector<std::vector<double>> shift;            ///< the same
  double average_neighbors = 1.0;                    ///< edges per atom within the cutoff, averaged over the data
};

/// A new model. `options` is an object with the key `family`, "mace" or "nequip", and the options of that family; those that are absent have
/// defaults. The same options, data and seed give the same model on every machine.
///
/// Throws std::invalid_argument, naming the key, its value and what is allowed, for keys that are unknown, of the wrong type, out of range, or that
/// contradict each other, and for data of the wrong shape.
ModelFile new_model(const nlohmann::json& options, const ModelData& data, std::uint64_t seed);

/// `options` with every default filled in; what a model's provenance records. Throws as new_model.
nlohmann::ordered_json resolved_options(const nlohmann::json& options);

}  // namespace adatom::training
