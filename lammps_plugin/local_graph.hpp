// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adatom/graph.hpp"

namespace LAMMPS_NS {
class Atom;
class NeighList;
}  // namespace LAMMPS_NS

namespace adatom_lammps {

/// The atoms and neighbours of one rank as the engine wants them.
///
/// Nodes are the atoms whose type the model handles: first the rank's own, which receive, then its ghosts. Periodic images are ghosts, so no edge
/// has a shift. Atoms of other types (NULL in pair_coeff, under pair_style hybrid) are left out.
class LocalGraph {
 public:
  /// Takes over a full neighbour list with its skin. `species_of_type[type]` is the model's index of an element, -1 for types left out.
  void rebuild(const LAMMPS_NS::Atom& atom, const LAMMPS_NS::NeighList& list, const std::vector<int>& species_of_type);

  /// Positions of all nodes in angstrom. Returns the first atom whose position is not finite, or -1.
  int update_positions(const LAMMPS_NS::Atom& atom, double angstrom);

  /// Whether the graph was built for as many atoms as there are now.
  bool fits(const LAMMPS_NS::Atom& atom) const;

  adatom::Graph view() const;
  int n_receivers() const { return n_receivers_; }
  int n_nodes() const { return static_cast<int>(atom_of_node_.size()); }
  const std::vector<int>& node_of_atom() const { return node_of_atom_; }
  const std::vector<int>& atom_of_node() const { return atom_of_node_; }
  std::size_t bytes() const;

 private:
  std::uint64_t revision_ = 0;
  int n_receivers_ = 0;
  std::vector<int> node_of_atom_, atom_of_node_, species_;
  std::vector<std::int64_t> first_edge_{0};
  std::vector<int> sender_;
  std::vector<double> positions_;
};

}  // namespace adatom_lammps
