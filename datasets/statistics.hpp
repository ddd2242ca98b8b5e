// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "datasets/fingerprint.hpp"
#include "datasets/random.hpp"
#include "datasets/report.hpp"

namespace adatom::datasets {

struct StatisticsOptions {
  bool near_duplicates = true;
  /// Relative distance of fingerprints. Atoms that move at random by 0.001 angstrom change it by 0.0002 (disordered) to 0.001 (molecules, perfect
  /// crystals), so 0.001 means: the same to a few thousandths of an angstrom.
  double near_tolerance = 1e-3;
  double outlier_z = 8.0;
  int symmetry_frames = 500;         ///< space groups of at most so many crystals, drawn at random; 0: none
  double symmetry_tolerance = 1e-2;  ///< angstrom
};

/// Examines frames one after the other. Memory per frame: about 200 bytes, and 240 more for near-duplicates; not the frames themselves.
class Statistics {
 public:
  explicit Statistics(const StatisticsOptions& options = {});

  int add_source(const std::string& name);  ///< e.g. a file; its number, from 0
  void add(const Frame& frame, const FrameReference& reference);
  Report finish();  ///< call once

 private:
  struct Row {
    FrameReference reference;
    double energy = 0.0, largest_force = 0.0, net_force = 0.0, force = 0.0, stress = 0.0;  // the last two: root mean square of components
    double stress_trace = 0.0, volume = 0.0;                                               // 0 where there is no stress
    std::uint64_t hash = 0;
    std::uint32_t composition = 0, head = 0, atoms = 0;
    bool has_energy = false, has_forces = false, has_stress = false, isolated = false;
    bool zeroed = false;  // some forces are zero, but should not be
  };
  struct Pairs {  // of a head
    std::vector<double> slopes, mismatches;
    std::vector<std::pair<double, double>> strained;  // dE + F . dx, V s : e
  };

  void add_labels(const Frame& frame, const FrameReference& reference, Row& row);
  void add_zeros(const Frame& frame, Row& row);
  void add_pair(const Frame& frame, const Row& row);
  void compare(const Frame& frame, const Frame& last, Pairs& pairs) const;
  void sample_crystal(const Frame& frame);
  void fit_energies();
  void find_outliers();
  void list_values();
  void find_duplicates();
  void find_near_duplicates();
  DuplicateSet duplicate_set(const std::vector<std::size_t>& rows) const;
  void find_absurd_forces();
  void find_zero_energies();
  void find_slopes();
  void find_pressures();
  void find_space_groups();

  StatisticsOptions options_;
  Report report_;
  std::vector<Row> rows_;
  std::vector<Fingerprint> fingerprints_;  // of each row, or none
  std::vector<std::string> heads_;
  std::map<std::string, std::uint32_t> head_numbers_;
  std::vector<Composition> compositions_;
  std::map<Composition, std::uint32_t> composition_numbers_;
  std::vector<AtomicEnergies> fits_;                               // of each head, all elements by least squares
  std::vector<Pairs> pairs_;                                       // of each head
  std::map<std::pair<std::uint32_t, std::uint32_t>, Frame> last_;  // of head and composition
  std::vector<Structure> crystals_;
  Random random_{0};
};

/// Median of the values, which are reordered; NaN of none.
double median(std::vector<double>& values);
double quantile(std::vector<double>& values, double share);

}  // namespace adatom::datasets
