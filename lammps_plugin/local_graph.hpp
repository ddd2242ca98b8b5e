// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adatom/graph.hpp"
#include "node_id.hpp"

namespace LAMMPS_NS {
class Atom;
class NeighList;
}  // namespace LAMMPS_NS

namespace adatom_lammps {

/// The atoms and neighbours of one rank as the engine wants them.
///
/// Nodes are the rank's own atoms, which receive, then the atoms of other ranks that are in the neighbour list, ordered by owner. LAMMPS has a ghost
/// for each periodic image of an atom; all images share one node, so that nothing is computed, kept or sent for images. A node has the position of
/// one of its atoms: the own atom, or the first ghost of a remote atom. Edges to the other images ("shifted ghosts") carry a shift:
///
///     x_ghost = positions[node] + shifts[shift]
///
/// Atoms whose type the model does not handle (NULL in pair_coeff, under pair_style hybrid) are left out, as are those in one of the groups of
/// `left_out_mask`, and ghosts that are nobody's neighbours.
class LocalGraph {
 public:
  /// Built in two parts, since other ranks have to name their nodes in between.
  /// First the nodes of the rank's own atoms: `species_of_type[type]` is the model's index of an element, -1 for types left out.
  void set_own_atoms(const LAMMPS_NS::Atom& atom, const std::vector<int>& species_of_type, int left_out_mask);
  /// Then the rest, from a full neighbour list with its skin. `node_ids`: of every atom, ghosts included; `rank`: this one.
  void set_neighbours(const LAMMPS_NS::Atom& atom, const LAMMPS_NS::NeighList& list, const std::vector<int>& species_of_type,
                      const std::vector<NodeId>& node_ids, int rank);

  /// Positions and shifts in angstrom. Shifts change with the box, so they are formed anew from the positions of the ghosts.
  /// Returns the first atom whose position is not finite, or -1.
  int update_positions(const LAMMPS_NS::Atom& atom, double angstrom);

  /// Whether the graph was built for as many atoms as there are now.
  bool fits(const LAMMPS_NS::Atom& atom) const;
  /// The first atom whose type is another one than when the graph was built, or -1.
  int changed_type(const LAMMPS_NS::Atom& atom) const;
  /// How far an own atom is from where it was when positions were updated first, in angstrom: the largest distance.
  double moved() const { return moved_; }

  adatom::Graph view() const;
  bool has_node(int own_atom) const { return static_cast<std::size_t>(own_atom) < node_of_atom_.size() && node_of_atom_[own_atom] >= 0; }
  int n_receivers() const { return n_receivers_; }
  int n_nodes() const { return static_cast<int>(atom_of_node_.size()); }
  const std::vector<int>& atom_of_node() const { return atom_of_node_; }
  const std::vector<NodeId>& remote() const { return remote_; }  ///< [n_nodes - n_receivers] names of the remote nodes, ascending
  std::size_t bytes() const;
  std::int64_t n_edges() const { return first_edge_.back(); }

 private:
  void measure_motion();

  std::uint64_t revision_ = 0;
  int n_receivers_ = 0;
  std::vector<int> node_of_atom_, atom_of_node_, species_;
  std::vector<NodeId> remote_;
  std::vector<int> shifted_ghosts_;  // the atom of each shift from row 1 on; row 0 is zero, for all other senders
  std::vector<std::int64_t> first_edge_{0};
  std::vector<int> sender_, shift_;
  std::vector<int> types_;  // of all atoms
  std::vector<double> positions_, shifts_;
  std::vector<double> first_positions_;  // of own nodes; empty before the first update
  double moved_ = 0.0;
};

}  // namespace adatom_lammps
