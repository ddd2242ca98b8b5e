// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <vector>

#include "datasets/report.hpp"

namespace adatom::datasets {

enum class Severity {
  note,     ///< worth knowing
  warning,  ///< probably wrong, or will spoil what is measured; a person must decide
  error,    ///< training on it would fail or mean nothing
};

struct Finding {
  Severity severity = Severity::note;
  std::string code;     ///< short and fixed, for programs: "missing-forces"
  std::string message;  ///< what was found
  std::string advice;   ///< what to do
  std::vector<FrameReference> frames;
};

/// What is wrong with the data sets of a report, the worst first.
std::vector<Finding> check(const Report& report);

/// Of these, what is wrong with labels: units, zeros, absurd forces, energies, forces and stresses that contradict each other, cells that are not
/// periodic. Training warns of them too.
std::vector<Finding> check_labels(const Report& report);

std::string to_json(const std::vector<Finding>& findings, const Report& report, std::size_t longest_list = 1000);

}  // namespace adatom::datasets
