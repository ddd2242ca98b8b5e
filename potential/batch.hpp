// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adatom/graph.hpp"
#include "adatom/structure.hpp"

namespace adatom {

/// Several structures as one graph: their nodes, edges and shifts one after the other. No edge joins two structures.
class Batch {
 public:
  /// Exact neighbour lists of structures begin .. end-1, built in parallel. Throws as NeighborList::update, naming the structure.
  void assign(const std::vector<Structure>& structures, std::size_t begin, std::size_t end, double cutoff, int threads);

  Graph graph() const;  ///< without species and revision; valid until the next assign
  std::size_t bytes() const;

 private:
  std::vector<std::int64_t> first_edge_;
  std::vector<int> sender_, shift_;
  std::vector<Vector3> shifts_, positions_;
};

}  // namespace adatom
