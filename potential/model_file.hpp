// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "gnn/evaluator.hpp"

/// Model files (docs/model_file.md), which are safetensors files:
///
///     8 bytes   n, little endian
///     n bytes   JSON {"__metadata__": {"format", "format_version", "adatom", "sha256"}, NAME: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
///     the rest  tensors, little endian, row major, back to back; offsets count from here
namespace adatom {

inline constexpr int model_format_version = 3;  ///< the one that is written; readers know 1 to this

struct ModelFile {
  std::string architecture;        ///< JSON object as text
  std::vector<int> elements;       ///< atomic numbers, the order of the tensors' Z axes
  double cutoff = 0.0;             ///< angstrom
  std::vector<std::string> heads;  ///< the order of the tensors' H axes
  std::string provenance = "{}";   ///< JSON object as text
  gnn::Tensors tensors;            ///< of the network
  std::string uncertainty;         ///< JSON object as text: detectors of uncertainty (docs/uncertainty.md); empty without
  gnn::Tensors detectors;          ///< their tensors, whose names begin with "uncertainty."
};

/// Identifies the network: hex SHA-256 of its architecture, elements and weights, rounded to float32.
std::string network_hash(const ModelFile& model);

enum class TensorType { float32, float64 };

/// Throws std::runtime_error that names the file, what is wrong with it and what to do: it cannot be read, is truncated, damaged (SHA-256 of all of
/// it, until version 2 of the tensors alone), of another kind (a pickle or torch archive, a safetensors file of another program), or of a format version that is not known.
ModelFile read_model(const std::filesystem::path& file);

/// Writes to a temporary file in the same folder and renames it: `file` is either complete or as it was before.
/// Throws std::invalid_argument for contents that read_model would refuse, std::runtime_error if the file cannot be written (disk full, ...).
void write_model(const std::filesystem::path& file, const ModelFile& model, TensorType type = TensorType::float64);

}  // namespace adatom
