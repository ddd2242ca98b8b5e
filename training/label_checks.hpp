// SPDX-License-Identifier: MIT
// What is wrong with the labels of a run, told before its first epoch.
#pragma once
#include "training/config.hpp"
#include "training/frames.hpp"

namespace adatom::training {

/// Adds to the warnings of `data` what looks wrong with the labels of its configurations (datasets/checks.hpp). Throws std::invalid_argument
/// where isolated atoms and `atomic_energy_of` contradict each other.
void check_labels(const RunConfig& config, RunData& data);

/// Keeps the energy of an isolated atom. Throws datasets::DataError, with `where`, if another one of its head and element contradicts it.
void keep_isolated(IsolatedAtoms& isolated, const datasets::Frame& atom, const std::string& where);

}  // namespace adatom::training
