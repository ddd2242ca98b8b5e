// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "datasets/fingerprint.hpp"
#include "datasets/report.hpp"

namespace adatom::datasets {

/// What stays on one side of a split.
enum class GroupBy {
  frame,        ///< each frame alone
  config_type,  ///< frames with the same config_type
  group,        ///< frames with the same group, e.g. the name of a trajectory; those without one stand alone
  block,        ///< runs of `block` frames in the order of a file: neighbours of a trajectory without a name
};

struct SplitOptions {
  /// One number per part, e.g. {0.8, 0.1, 0.1}: shares that add up to 1. Or numbers of frames, where one may be 0 in the sense of "the rest".
  std::vector<double> parts = {0.9, 0.1};
  std::uint64_t seed = 0;
  GroupBy group_by = GroupBy::frame;
  std::int64_t block = 100;
  bool near_duplicates = false;  ///< keep also near-duplicates together, see `fingerprint`
  double near_tolerance = 1e-3;
};

/// Divides frames into parts, the same on every machine for the same frames, options and seed. Groups are never cut; copies of a structure are always
/// on one side, and join their groups. Isolated atoms go to the first part: they are needed for training and say nothing in a test.
/// Units are dealt out from the largest to the smallest, those of equal size in random order, each to the part that lacks most frames;
/// so parts of single frames have exactly the size asked for, and parts of groups are as near to it as the groups allow.
class Splitter {
 public:
  explicit Splitter(const SplitOptions& options);
  void add(const Frame& frame, const FrameReference& reference);

  /// The part of each frame, in the order in which they were added. Throws DataError if a part would be empty.
  std::vector<int> finish();

  std::int64_t without_label() const { return without_label_; }  ///< frames that have no label to group by
  std::int64_t units() const { return units_; }                  ///< that were dealt out, after finish()

 private:
  struct Row {
    FrameReference reference;
    std::uint64_t hash = 0, composition = 0;
    bool isolated = false;
  };
  void find_groups(class DisjointSets& sets) const;
  void find_near(class DisjointSets& sets) const;
  std::vector<std::int64_t> targets(std::int64_t frames) const;

  SplitOptions options_;
  std::vector<Row> rows_;
  std::vector<std::string> labels_;  // of each row, where frames are grouped by one
  std::vector<Fingerprint> fingerprints_;
  std::int64_t without_label_ = 0, units_ = 0;
};

}  // namespace adatom::datasets
