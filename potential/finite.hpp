// SPDX-License-Identifier: MIT
#pragma once
#include "adatom/potential.hpp"

namespace adatom {

/// Widths of the rows that an evaluator writes.
struct ResultWidths {
  std::size_t features = 0, members = 0, whitened = 0;
};

/// Throws NotFinite if a number of the result is not finite, with the shortest edge of the graph as a reason. One pass over the result's arrays. Detectors of
/// uncertainty give infinity, but never NaN, for elements that were not in the training set.
void check_finite(const GraphResult& result, const ResultWidths& widths, const Graph& graph);

/// What is not finite.
struct Suspect {
  int atom;              ///< -1: a sum over atoms
  const char* quantity;  ///< null: all is finite
};
Suspect find_not_finite(const GraphResult& result, const ResultWidths& widths, std::size_t receivers, std::size_t nodes);

ShortestEdge shortest_edge(const Graph& graph);

}  // namespace adatom
