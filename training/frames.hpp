// SPDX-License-Identifier: MIT
// The configurations of a run. Those of extxyz files are held in memory; those of training caches stay on the disk and
// are read when a batch needs them, so that a data set may be larger than memory: 56 bytes per configuration are held. All statistics go through the
// configurations one by one.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "datasets/cache.hpp"
#include "datasets/frame.hpp"
#include "training/architecture.hpp"
#include "training/config.hpp"

namespace adatom::training {

/// A file of configurations.
struct FrameFile {
  std::string path, hash;                        ///< hash: of its bytes, "xxh64:" and 16 hexadecimal digits
  std::unique_ptr<datasets::CacheReader> cache;  ///< null for files in memory
  std::vector<datasets::Frame> frames;           ///< in memory
  std::vector<std::string> origins;              ///< of these, for messages
};

/// What is known of a configuration without reading it.
struct FrameInfo {
  std::uint32_t file = 0, index = 0;  ///< which file of the set; which of its frames (in memory: of those that were kept)
  std::uint32_t atoms = 0, edges = 0;
  std::uint16_t head = 0;  ///< of FrameSet::heads()
  bool energy = false, forces = false, stress = false;
};

/// Energies of isolated atoms, eV, by head ("" where they name none) and atomic number.
using IsolatedAtoms = std::map<std::string, std::map<int, double>>;

/// Configurations with labels.
class FrameSet {
 public:
  std::size_t size() const { return infos_.size(); }
  const FrameInfo& info(std::size_t k) const { return infos_[k]; }
  const std::string& head(std::size_t k) const { return heads_[infos_[k].head]; }
  const std::vector<std::string>& heads() const { return heads_; }  ///< in the order of their first configuration; "Default" where they have none
  const std::vector<int>& elements(std::size_t head) const { return elements_[head]; }  ///< of a head: atomic numbers, ascending
  const std::vector<std::shared_ptr<FrameFile>>& files() const { return files_; }

  /// Configuration k. One that is not in memory is read into `space`. By several threads at once, each with its own space.
  const datasets::Frame& get(std::size_t k, datasets::Frame& space) const;
  std::string origin(std::size_t k) const;  ///< for messages: "train.extxyz: frame 3 (line 57)"
  void for_each(const std::function<void(std::size_t k, const datasets::Frame& frame)>& body) const;

  /// Counts the edges of all configurations. Throws datasets::DataError, with the configuration, where two atoms are on one spot.
  void count_edges(double cutoff, int threads);

  /// Adds the configurations of a file; isolated atoms go to `isolated` instead (which may be null: then they are left out). Throws
  /// datasets::DataError, with file and frame: a label that the loss needs is missing, values that are not finite. The stress of a cell that is not
  /// periodic, or of weight 0, is left out.
  void add(const std::string& path, const RunConfig& config, IsolatedAtoms* isolated);
  const std::vector<std::string>& warnings() const { return warnings_; }  ///< of the files that were added
  const std::map<int, std::string>& ions() const { return ions_; }        ///< where isolated atoms with a charge are, by atomic number: they are left out

  /// [{"file", "configurations", "hash"}, ...]: name, number of configurations of this set, hash of the bytes.
  nlohmann::json provenance() const;

  /// Moves the configurations k with chosen[k] to another set. Both keep the list of heads; of one that a set has no configurations of it has no elements.
  FrameSet split(const std::vector<bool>& chosen);

 private:
  void add_frame(const datasets::Frame& frame, const std::string& where);
  void note_elements(std::size_t head, const std::vector<int>& numbers);
  void find_elements();
  void read(datasets::FrameSource& source, FrameFile& file, const std::function<bool(const datasets::Frame&, const std::string&)>& take);

  std::vector<FrameInfo> infos_;
  std::vector<std::string> heads_;
  std::vector<std::vector<int>> elements_;  // of each head
  std::vector<std::shared_ptr<FrameFile>> files_;
  std::vector<std::string> warnings_;
  std::map<int, std::string> ions_;
};

/// Training, validation and test configurations, as the options say. Reading it throws datasets::DataError or std::invalid_argument: as
/// FrameSet::add, no file, an empty split.
struct RunData {
  FrameSet train, valid;
  std::vector<FrameSet> tests;  ///< of each file
  IsolatedAtoms isolated;
  std::map<int, std::string> ions;    ///< FrameSet::ions
  std::vector<int> elements;          ///< of the configurations of `train` and `valid`, ascending
  std::vector<std::string> heads;     ///< the same
  nlohmann::json provenance;          ///< {"train": [{"file", "configurations", "hash"}, ...], "valid": ..., "isolated_atoms": ...}
  std::vector<std::string> warnings;  ///< what looks wrong but may be right
};
RunData read_data(const RunConfig& config);

/// Energies of the isolated atoms of a head, eV, by atomic number. Atoms that name no head are of the head Default, or of the only head of the data.
std::map<int, double> isolated_atoms(const RunData& data, const std::string& head);

/// Atomic energies of a head as the options say, eV, by atomic number. Throws std::invalid_argument, naming the element, if one of its configurations'
/// elements is missing.
std::map<int, double> atomic_energies(const RunData& data, const std::string& head, const DataOptions& options);

/// The same of all heads, [head][element] of `data`, eV. Where a head has no configuration with an element the value of another head
/// stands. Throws std::invalid_argument, naming the element, if one is missing.
std::vector<std::vector<double>> atomic_energies(const RunData& data, const DataOptions& options);

/// What a new model takes from its training configurations, whose edges have been counted: atomic energies, the scale (root mean square of forces)
/// and shift (mean energy per atom beyond atomic energies) of each head, the average number of neighbours.
ModelData describe_data(const RunData& data, const DataOptions& options);

}  // namespace adatom::training
