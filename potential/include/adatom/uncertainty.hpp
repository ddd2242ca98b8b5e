// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "adatom/export.hpp"

/// Detectors of uncertainty in model files (docs/uncertainty.md). `adatom calibrate` fits them.
namespace adatom {

struct DetectorTensor {
  std::vector<std::size_t> shape;
  std::vector<double> data;  ///< row major
};

/// Copies the model file `from` to `to` (which may be the same) with these detectors instead of those that it may have; without any if `description`, a
/// JSON object, is empty. Names of tensors begin with "uncertainty.". Throws as Potential::load, and std::invalid_argument for what cannot be written.
ADATOM_EXPORT void write_detectors(const std::filesystem::path& from, const std::filesystem::path& to, const std::string& description,
                                   const std::map<std::string, DetectorTensor>& tensors);

/// Identifies a model's network, whatever else its file says: "network" of a description of detectors has to be this.
ADATOM_EXPORT std::string network_hash(const std::filesystem::path& file);

}  // namespace adatom
