// SPDX-License-Identifier: MIT
// What can be wrong with sets of configurations that are each in order: an error or a warning before the first epoch.
#pragma once
#include "training/frames.hpp"

namespace adatom::training {

/// Throws std::invalid_argument where two files of a list have the same bytes.
void refuse_same_file_twice(const std::string& key, const FrameSet& set);

/// Looks at training against validation and test: elements, heads and labels that only one of them has, copies, weights that leave nothing to learn
/// from. Throws datasets::DataError for what makes a run useless; appends to data.warnings what may be meant.
void check_sets(const RunConfig& config, RunData& data);

/// Throws datasets::DataError where the cutoff, angstrom, is below every distance of the training configurations, whose edges have been counted.
void check_edges(const FrameSet& train, double cutoff);

}  // namespace adatom::training
