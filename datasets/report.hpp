// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "datasets/atomic_energies.hpp"
#include "datasets/frame.hpp"

/// What Statistics finds in data sets. Units as in frame.hpp.
namespace adatom::datasets {

/// A frame by the number of its source (file) and its place there, from 0.
struct FrameReference {
  int source = 0;
  std::int64_t index = 0;
};

/// Of a stream of numbers. Mean and deviation by Welford's recurrence: no cancellation.
struct Range {
  std::int64_t count = 0;
  double min = std::numeric_limits<double>::infinity(), max = -std::numeric_limits<double>::infinity();
  double mean = 0.0, square = 0.0;  ///< mean of the numbers and of their squares
  double spread = 0.0;              ///< sum of the squared differences from the mean
  void add(double value);
  double deviation() const;  ///< standard deviation
  double rms() const;
};

struct ElementSummary {
  std::int64_t frames = 0, atoms = 0;
  Range force;  ///< components
};

/// A frame that stands out from its head's others: a robust z-score, 0.6745 (x - median) / MAD, where MAD is the median of |x - median|.
struct Outlier {
  FrameReference frame;
  double value = 0.0, z = 0.0;
};

/// A sign that numbers are in another unit, with the reason in words.
struct UnitSuspicion {
  std::string quantity, unit, reason;
};

/// Do energies and forces belong together? Between neighbouring frames of a trajectory dE = -(F1 + F2)/2 . dx up to third order in dx.
struct EnergyForceSlope {
  std::int64_t pairs = 0;                   ///< of frames with the same atoms and cell, less than 0.1 angstrom apart
  double median = 0.0, q1 = 0.0, q3 = 0.0;  ///< of dE / (-F . dx): 1 if they do; median and quartiles
  std::int64_t compared = 0;                ///< pairs whose energies or work differ by more than noise (0.01 eV)
  double mismatch = 0.0;                    ///< of these, the median of |dE + F . dx| / max(|dE|, |F . dx|): near 0 if they do
};

/// Do energies and stresses belong together? Where the cell is strained by e, dE + F . dx = V s : e (statistics_pairs.cpp).
struct StressSlope {
  std::int64_t pairs = 0;         ///< of frames with the same atoms and cells that differ by less than 10 %
  double median = 0.0;            ///< of (dE + F . dx) / (V s : e): 1 if they do
  double weighted = 0.0;          ///< the same of the sums over all pairs
  std::int64_t frames = 0;        ///< of the most frequent composition whose volume varies by more than 2 %
  double volume_correlation = 0;  ///< of these, Spearman's of volume and stress: positive, a crystal that is stretched wants to shrink
};

/// Labels of exactly zero that symmetry does not explain, in frames whose weights let them count.
struct ZeroLabels {
  std::vector<FrameReference> energy, forces, stress;  ///< energy and all components of all forces or of the stress
  std::vector<FrameReference> atoms;                   ///< frames where some atoms' forces are zero, others are not
  std::int64_t count = 0, of = 0;                      ///< atoms whose forces are zero in `atoms`, and all atoms of these frames
};

struct IsolatedAtom {
  FrameReference frame;
  int element = 0;
  double energy = 0.0;
};

/// Frames of one level of theory.
struct HeadSummary {
  std::int64_t frames = 0, atoms = 0;
  std::int64_t with_energy = 0, with_forces = 0, with_stress = 0, with_charges = 0;
  std::map<int, ElementSummary> elements;
  Range frame_size, energy_per_atom, force, largest_force, net_force, stress;  ///< `force`, `stress`: components; `largest_force`, `net_force`: norms
  double median_net_force = 0.0;
  double residual_width = 0.0;                  ///< as `residual`, robust: 1.4826 MAD, which outliers do not change
  double median_force = 0.0;                    ///< of the frames' root mean squares of force components
  double median_stress = 0.0;                   ///< of the frames' root mean squares of stress components
  double per_atom_residual = 0.0;               ///< standard deviation from a fit that takes the labels for energies per atom
  std::vector<CompositionEnergy> compositions;  ///< with energies, without isolated atoms
  AtomicEnergies atomic_energies;               ///< isolated atoms where there are any, least squares for the others
  std::vector<IsolatedAtom> isolated_atoms;
  Range residual;  ///< energy per atom after the least-squares fit of the composition, without isolated atoms
  std::vector<Outlier> energy_outliers, force_outliers;
  std::vector<Outlier> absurd_forces;  ///< far larger than any model can learn, or with a net force far above the others'; value: largest or net force
  ZeroLabels zeros;
  EnergyForceSlope slope;
  StressSlope stress_slope;
  std::vector<UnitSuspicion> units;
};

struct DuplicateSet {
  std::vector<FrameReference> frames;
  double energy_spread = 0.0;    ///< largest minus smallest energy per atom of those with one head, eV
  bool several_sources = false;  ///< e.g. in the training and in the test file
};

struct Defect {
  FrameReference frame;
  std::string what;
};

struct Source {
  std::string name;
  std::int64_t frames = 0;
};

/// Of one frame without defects; NaN where a label is missing.
struct FrameValues {
  FrameReference frame;
  int atoms = 0;
  double residual = 0.0;  ///< energy per atom after the least-squares fit of the composition
  double largest_force = 0.0;
};

struct Report {
  std::vector<Source> sources;
  std::int64_t frames = 0, atoms = 0;
  std::map<std::string, HeadSummary> heads;
  std::map<std::string, std::int64_t> config_types, groups;                    ///< frames of each; "" where there is none
  std::map<int, std::int64_t> periodicity;                                     ///< frames with 0, 1, 2, 3 periodic directions
  std::vector<Defect> defective;                                               ///< left out of everything else
  std::vector<FrameReference> without_energy, without_forces, without_stress;  ///< the last: periodic frames only; forces: not of isolated atoms
  std::int64_t isolated_without_energy = 0;                                    ///< isolated atoms of the first list
  std::vector<FrameReference> stress_not_periodic;                             ///< a stress in a cell that is not periodic along all vectors
  std::vector<FrameReference> filled_not_periodic;                             ///< a cell that atoms fill like a crystal's, and pbc = F
  Range nearest_distance;                                                      ///< angstrom; of each frame the shortest below 5
  FrameReference nearest_frame;
  std::vector<DuplicateSet> duplicates, near_duplicates;  ///< bit by bit; by fingerprint, without those of the first list alone
  double near_tolerance = 0.0;                            ///< 0: not looked for
  std::map<std::string, std::int64_t> space_groups;       ///< of the frames that were looked at; "" where there is none
  std::int64_t space_groups_of = 0, crystals = 0;         ///< frames looked at, and all that are periodic along three vectors
  std::vector<FrameValues> values;                        ///< for plots; not in the JSON
};

/// "train.extxyz: frame 12"
std::string text(const FrameReference& frame, const Report& report);

/// The report as JSON. Lists of frames are cut after `longest_list`; their full length is there too.
std::string to_json(const Report& report, std::size_t longest_list = 1000);

}  // namespace adatom::datasets
