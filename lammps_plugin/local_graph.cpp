// SPDX-License-Identifier: GPL-2.0-or-later
#include "local_graph.hpp"

#include <algorithm>
#include <cmath>

#include <atom.h>
#include <neigh_list.h>

namespace adatom_lammps {

void LocalGraph::set_own_atoms(const LAMMPS_NS::Atom& atom, const std::vector<int>& species_of_type, int left_out_mask) {
  types_.assign(atom.type, atom.type + atom.nlocal + atom.nghost);
  node_of_atom_.assign(static_cast<std::size_t>(atom.nlocal + atom.nghost), -1);
  atom_of_node_.clear();
  species_.clear();
  for (int i = 0; i < atom.nlocal; ++i) {
    const int species = species_of_type[atom.type[i]];
    if (species < 0 || atom.mask[i] & left_out_mask) continue;
    node_of_atom_[i] = n_nodes();
    atom_of_node_.push_back(i);
    species_.push_back(species);
  }
  n_receivers_ = n_nodes();
}

void LocalGraph::set_neighbours(const LAMMPS_NS::Atom& atom, const LAMMPS_NS::NeighList& list, const std::vector<int>& species_of_type,
                                const std::vector<NodeId>& node_ids, int rank) {
  ++revision_;
  // numneigh and firstneigh hold values only for the atoms in ilist
  std::vector<int> neighbours(n_receivers_, 0);
  std::vector<const int*> first(n_receivers_, nullptr);
  std::vector<char> is_neighbour(node_of_atom_.size(), false);
  std::int64_t total = 0;
  for (int k = 0; k < list.inum; ++k) {
    const int i = list.ilist[k], node = node_of_atom_[i];
    if (node < 0) continue;
    neighbours[node] = list.numneigh[i];
    first[node] = list.firstneigh[i];
    total += list.numneigh[i];
    for (int n = 0; n < list.numneigh[i]; ++n) is_neighbour[list.firstneigh[i][n] & NEIGHMASK] = true;  // the high bits: special bonds, history
  }

  std::vector<int> ghosts, remote_ghosts;
  for (int i = atom.nlocal; i < atom.nlocal + atom.nghost; ++i) {
    if (!is_neighbour[i] || !node_ids[i].exists() || species_of_type[atom.type[i]] < 0) continue;
    ghosts.push_back(i);
    if (node_ids[i].rank() == rank)
      node_of_atom_[i] = node_ids[i].node();
    else
      remote_ghosts.push_back(i);
  }
  // The images of an atom stand together, and the first of them gives the node its position
  std::stable_sort(remote_ghosts.begin(), remote_ghosts.end(), [&](int i, int j) { return node_ids[i] < node_ids[j]; });
  remote_.clear();
  for (const int i : remote_ghosts) {
    if (remote_.empty() || remote_.back() != node_ids[i]) {
      remote_.push_back(node_ids[i]);
      atom_of_node_.push_back(i);
      species_.push_back(species_of_type[atom.type[i]]);
    }
    node_of_atom_[i] = n_nodes() - 1;
  }

  std::vector<int> shift_of_atom(node_of_atom_.size(), 0);
  shifted_ghosts_.clear();
  for (const int i : ghosts) {
    if (atom_of_node_[node_of_atom_[i]] == i) continue;
    shifted_ghosts_.push_back(i);
    shift_of_atom[i] = static_cast<int>(shifted_ghosts_.size());
  }

  sender_.clear();
  shift_.clear();
  sender_.reserve(total);
  shift_.reserve(total);
  first_edge_.assign(1, 0);
  for (int node = 0; node < n_receivers_; ++node) {
    for (int n = 0; n < neighbours[node]; ++n) {
      const int j = first[node][n] & NEIGHMASK;
      if (node_of_atom_[j] < 0) continue;
      sender_.push_back(node_of_atom_[j]);
      shift_.push_back(shift_of_atom[j]);
    }
    first_edge_.push_back(static_cast<std::int64_t>(sender_.size()));
  }
  positions_.resize(3 * atom_of_node_.size());
  shifts_.assign(3 * (1 + shifted_ghosts_.size()), 0.0);
  first_positions_.clear();
}

int LocalGraph::update_positions(const LAMMPS_NS::Atom& atom, double angstrom) {
  const auto is_finite = [&](int i) { return std::isfinite(atom.x[i][0] + atom.x[i][1] + atom.x[i][2]); };
  for (int node = 0; node < n_nodes(); ++node) {
    const int i = atom_of_node_[node];
    if (!is_finite(i)) return i;
    for (int k = 0; k < 3; ++k) positions_[3 * static_cast<std::size_t>(node) + k] = atom.x[i][k] / angstrom;
  }
  for (std::size_t row = 0; row < shifted_ghosts_.size(); ++row) {
    const int i = shifted_ghosts_[row];
    if (!is_finite(i)) return i;
    const double* x = atom.x[atom_of_node_[node_of_atom_[i]]];
    for (int k = 0; k < 3; ++k) shifts_[3 * (row + 1) + k] = (atom.x[i][k] - x[k]) / angstrom;
  }
  measure_motion();
  return -1;
}

void LocalGraph::measure_motion() {
  const std::size_t own = 3 * static_cast<std::size_t>(n_receivers_);
  moved_ = 0.0;
  if (first_positions_.size() != own) {
    first_positions_.assign(positions_.begin(), positions_.begin() + static_cast<std::ptrdiff_t>(own));
    return;
  }
  double largest = 0.0;
  for (std::size_t k = 0; k < own; k += 3) {
    const double x = positions_[k] - first_positions_[k], y = positions_[k + 1] - first_positions_[k + 1], z = positions_[k + 2] - first_positions_[k + 2];
    largest = std::max(largest, x * x + y * y + z * z);
  }
  moved_ = std::sqrt(largest);
}

bool LocalGraph::fits(const LAMMPS_NS::Atom& atom) const { return node_of_atom_.size() == static_cast<std::size_t>(atom.nlocal + atom.nghost); }

int LocalGraph::changed_type(const LAMMPS_NS::Atom& atom) const {
  const auto [now, then] = std::mismatch(atom.type, atom.type + types_.size(), types_.begin());
  return then == types_.end() ? -1 : static_cast<int>(then - types_.begin());
}

adatom::Graph LocalGraph::view() const {
  adatom::Graph graph;
  graph.revision = revision_;
  graph.n_receivers = n_receivers_;
  graph.n_nodes = n_nodes();
  graph.species = species_.data();
  graph.first_edge = first_edge_.data();
  graph.sender = sender_.data();
  graph.shift = shift_.data();
  graph.shifts = shifts_.data();
  graph.positions = positions_.data();
  return graph;
}

std::size_t LocalGraph::bytes() const {
  return sizeof(int) * (node_of_atom_.capacity() + atom_of_node_.capacity() + types_.capacity() + species_.capacity() + shifted_ghosts_.capacity() +
                        sender_.capacity() + shift_.capacity()) +
         sizeof(NodeId) * remote_.capacity() + sizeof(std::int64_t) * first_edge_.capacity() +
         sizeof(double) * (positions_.capacity() + shifts_.capacity() + first_positions_.capacity());
}

}  // namespace adatom_lammps
