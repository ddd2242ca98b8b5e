// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "adatom/export.hpp"
#include "adatom/structure.hpp"

namespace adatom {

/// Full neighbour list, CSR by receiver, for any cell: triclinic, smaller than the cutoff, periodic along any of its vectors or none.
///
/// Every pair (i, j, h) with |r_j - r_i + S h| < cutoff + skin is listed once for i and once, with -h, for j; an atom is its own neighbour
/// through a periodic image (h != 0), never with h = 0. Work and memory are O(N) (cell lists). The list of a receiver is sorted by (sender, h),
/// so it depends on nothing but the structure.
class ADATOM_EXPORT NeighborList {
 public:
  /// `cutoff` and `skin` in angstrom. With skin = 0 the list is exact.
  explicit NeighborList(double cutoff, double skin = 0.0);

  /// Rebuilds the list if the structure left the range in which it is complete (an atom moved more than skin/2, the cell, the periodicity or the
  /// atoms changed), and updates positions and shifts otherwise. Returns whether it was rebuilt.
  /// `threads`: number of threads; 0: OMP_NUM_THREADS, else as many as there are CPUs.
  /// Throws std::invalid_argument (message names the atom or the cell vector) for NaN or infinite positions or cell, a singular cell that is
  /// periodic, and two atoms closer than 1e-3 angstrom.
  bool update(const Structure& structure, int threads = 0);

  /// Changes with every rebuild; no two lists of a process share a value. 0 before the first update.
  std::uint64_t revision() const { return revision_; }
  const std::vector<std::int64_t>& first_edge() const { return first_edge_; }
  const std::vector<int>& sender() const { return sender_; }
  const std::vector<int>& shift() const { return shift_; }                             ///< row of shifts() of each edge
  const std::vector<Vector3>& shifts() const { return shifts_; }                       ///< S h, angstrom, of the present cell
  const std::vector<std::array<int, 3>>& shift_cells() const { return shift_cells_; }  ///< h
  const std::vector<Vector3>& positions() const { return positions_; }                 ///< of the last update; unwrapped, as they were given

 private:
  /// A pair near enough to come closer than the least distance before the next rebuild.
  struct ClosePair {
    int i = 0, j = 0;
    std::array<int, 3> h{};
  };

  void build(const Structure& structure, int threads);

  double cutoff_, skin_;
  std::uint64_t revision_ = 0;
  Structure reference_;  // at the last build
  std::vector<Vector3> positions_;
  std::vector<std::int64_t> first_edge_;
  std::vector<int> sender_, shift_;
  std::vector<Vector3> shifts_;
  std::vector<std::array<int, 3>> shift_cells_;
  std::vector<ClosePair> close_pairs_;
};

}  // namespace adatom
