// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

#include "training/frames.hpp"

namespace adatom::training {

/// The batches of an epoch. Configurations come in random order, which follows from the run's seed and the number of the epoch alone, and fill
/// batches one after the other; a batch is full when one more would pass a limit of the configuration: training.batch_size (configurations),
/// batch_atoms, batch_edges. One that is larger than a limit by itself is a batch alone. Nothing here depends on the number of processes, and a run
/// that goes on after an interrupt makes the same plan.
class EpochPlan {
 public:
  /// With a limit on edges the set's have been counted.
  EpochPlan(const FrameSet& set, const RunConfig& config, int epoch);

  int steps() const { return static_cast<int>(first_.size()) - 1; }
  std::vector<std::size_t> batch(int step) const;  ///< numbers of configurations

 private:
  std::vector<std::size_t> order_, first_;  // first_: of each batch in order_, and the end
};

}  // namespace adatom::training
