// SPDX-License-Identifier: MIT
#include "adatom/uncertainty.hpp"

#include "potential/model_file.hpp"

namespace adatom {

void write_detectors(const std::filesystem::path& from, const std::filesystem::path& to, const std::string& description,
                     const std::map<std::string, DetectorTensor>& tensors) {
  ModelFile model = read_model(from);
  model.uncertainty = description;
  model.detectors.clear();
  for (const auto& [name, tensor] : tensors) model.detectors[name] = {tensor.shape, tensor.data};
  write_model(to, model);
}

std::string network_hash(const std::filesystem::path& file) { return network_hash(read_model(file)); }

}  // namespace adatom
