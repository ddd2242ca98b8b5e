// SPDX-License-Identifier: GPL-2.0-or-later
#include "local_graph.hpp"

#include <cmath>

#include <atom.h>
#include <neigh_list.h>

namespace adatom_lammps {

void LocalGraph::rebuild(const LAMMPS_NS::Atom& atom, const LAMMPS_NS::NeighList& list, const std::vector<int>& species_of_type) {
  ++revision_;
  const int n_atoms = atom.nlocal + atom.nghost;
  node_of_atom_.assign(n_atoms, -1);
  atom_of_node_.clear();
  species_.clear();
  n_receivers_ = 0;
  for (int i = 0; i < n_atoms; ++i) {
    const int species = species_of_type[atom.type[i]];
    if (species < 0) continue;
    node_of_atom_[i] = n_nodes();
    atom_of_node_.push_back(i);
    species_.push_back(species);
    if (i < atom.nlocal) ++n_receivers_;
  }
  positions_.resize(3 * atom_of_node_.size());

  // numneigh and firstneigh hold values only for the atoms in ilist
  std::vector<int> neighbours(n_receivers_, 0);
  std::vector<const int*> first(n_receivers_, nullptr);
  for (int k = 0; k < list.inum; ++k) {
    const int i = list.ilist[k], node = node_of_atom_[i];
    if (node < 0) continue;
    neighbours[node] = list.numneigh[i];
    first[node] = list.firstneigh[i];
  }
  std::int64_t total = 0;
  for (const int n : neighbours) total += n;
  sender_.clear();
  sender_.reserve(total);
  first_edge_.assign(1, 0);
  for (int node = 0; node < n_receivers_; ++node) {
    for (int k = 0; k < neighbours[node]; ++k) {
      const int sender = node_of_atom_[first[node][k] & NEIGHMASK];  // the high bits tell special bonds and history apart
      if (sender >= 0) sender_.push_back(sender);
    }
    first_edge_.push_back(static_cast<std::int64_t>(sender_.size()));
  }
}

int LocalGraph::update_positions(const LAMMPS_NS::Atom& atom, double angstrom) {
  for (int node = 0; node < n_nodes(); ++node) {
    const double* x = atom.x[atom_of_node_[node]];
    if (!std::isfinite(x[0] + x[1] + x[2])) return atom_of_node_[node];
    for (int k = 0; k < 3; ++k) positions_[3 * static_cast<std::size_t>(node) + k] = x[k] / angstrom;
  }
  return -1;
}

bool LocalGraph::fits(const LAMMPS_NS::Atom& atom) const { return node_of_atom_.size() == static_cast<std::size_t>(atom.nlocal + atom.nghost); }

adatom::Graph LocalGraph::view() const {
  adatom::Graph graph;
  graph.revision = revision_;
  graph.n_receivers = n_receivers_;
  graph.n_nodes = n_nodes();
  graph.species = species_.data();
  graph.first_edge = first_edge_.data();
  graph.sender = sender_.data();
  graph.positions = positions_.data();
  return graph;
}

std::size_t LocalGraph::bytes() const {
  return sizeof(int) * (node_of_atom_.capacity() + atom_of_node_.capacity() + species_.capacity() + sender_.capacity()) +
         sizeof(std::int64_t) * first_edge_.capacity() + sizeof(double) * positions_.capacity();
}

}  // namespace adatom_lammps
