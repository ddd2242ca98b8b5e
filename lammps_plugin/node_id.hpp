// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <compare>
#include <cstdint>

namespace adatom_lammps {

/// Names a node of any rank by its owner and its number there: ghosts with equal names are images of one atom. One number, so that it fits into one
/// double of LAMMPS's buffers; ordered by rank, then by node. Valid until the owner's graph is built anew. Needs no tags and no atom map.
class NodeId {
 public:
  NodeId() = default;  ///< of an atom that has no node
  NodeId(int rank, int node) : key_(std::int64_t{rank} << 32 | node) {}
  explicit NodeId(std::int64_t key) : key_(key) {}

  bool exists() const { return key_ >= 0; }
  int rank() const { return static_cast<int>(key_ >> 32); }
  int node() const { return static_cast<int>(key_ & 0xffffffff); }
  std::int64_t key() const { return key_; }
  auto operator<=>(const NodeId&) const = default;

 private:
  std::int64_t key_ = -1;
};

}  // namespace adatom_lammps
