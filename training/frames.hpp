// SPDX-License-Identifier: MIT
// The configurations of a run, and what training needs to know of them before it begins.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "datasets/frame.hpp"
#include "training/architecture.hpp"
#include "training/config.hpp"

namespace adatom::training {

/// Configurations with labels, with where each came from for messages.
struct FrameSet {
  std::vector<datasets::Frame> frames;
  std::vector<std::string> origins;
  std::string hash;  ///< of the files, 16 hexadecimal digits
};

/// Training and validation configurations, as the options say; isolated atoms are taken out and kept apart. Throws datasets::DataError or
/// std::invalid_argument: a defect or missing forces with the file and frame, no file, an empty split, a stress in a cell without volume.
struct RunData {
  FrameSet train, valid;
  std::map<int, double> isolated;  ///< energies by atomic number, eV
  std::vector<int> elements;       ///< of all configurations, ascending
  std::vector<std::string> heads;  ///< in the order of their first configuration; "Default" where they have none
};
RunData read_data(const RunConfig& config);

/// What a new model takes from its training configurations: atomic energies, the scale (root mean square of forces) and shift (mean energy per atom beyond atomic
/// energies), the average number of neighbours within `cutoff`.
ModelData describe_data(const RunData& data, const DataOptions& options, double cutoff);

}  // namespace adatom::training
