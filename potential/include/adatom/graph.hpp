// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace adatom {

/// The atoms and edges that one evaluation sees. A view: the caller owns every array.
///
/// Nodes 0 .. n_receivers-1 are the atoms whose energies are wanted. Nodes n_receivers .. n_nodes-1 (ghosts of a decomposed system) only send.
/// Edges are stored by receiver (CSR). The vector of edge e with receiver i and sender j is
///
///     r_ij = positions[j] - positions[i] + shifts[shift[e]]          (double, angstrom)
///
/// Edges longer than the model's cutoff are skipped, so a list with a skin can be used for many steps.
struct Graph {
  /// Changes whenever first_edge, sender, shift or species change. The evaluator keeps what it derives from these until then. 0: never keep.
  std::uint64_t revision = 0;
  int n_receivers = 0;
  int n_nodes = 0;
  const int* species = nullptr;              ///< [n_nodes] index into the model's elements (Potential::species)
  const std::int64_t* first_edge = nullptr;  ///< [n_receivers + 1]
  const int* sender = nullptr;               ///< [first_edge[n_receivers]]
  const int* shift = nullptr;                ///< [edges] row of `shifts`; null when no edge crosses a periodic boundary
  const double* shifts = nullptr;            ///< [][3] lattice translations S h, angstrom
  const double* positions = nullptr;         ///< [n_nodes][3], angstrom
  /// Optional: the direction of a derivative along positions, [n_nodes][3]. With it `GraphResult::force_tangents` is computed.
  const double* position_tangents = nullptr;
  /// Optional: weights a_ik of the nodes' features, [n_receivers][Evaluator::features]. With it forces and virials are those of sum_ik a_ik x_ik instead of
  /// the energy's: a product of the features' Jacobian from the left.
  const double* feature_weights = nullptr;
};

/// What one evaluation writes. The caller owns every array; null arrays are not computed (forces and virials share the reverse pass).
struct GraphResult {
  double energy = 0.0;         ///< eV, sum over receivers in a fixed order
  double* energies = nullptr;  ///< [n_receivers], eV
  double* forces = nullptr;    ///< [n_nodes][3], eV/angstrom, ghosts included: add them to their owners
  bool want_virial = false;
  double virial[9] = {};              ///< eV, W_ab = -sum over edges of r_a dE/dr_b, row major; stress = -W / volume
  double* atom_virials = nullptr;     ///< [n_nodes][9], eV: half of each edge's virial on its sender, half on its receiver; not symmetrised
  double* force_tangents = nullptr;   ///< [n_nodes][3], derivative of the forces along position_tangents: -(Hessian . v)
  double* member_energies = nullptr;  ///< [n_receivers][members], eV: what each member of the ensemble adds to the atom's energy
  double* force_std = nullptr;        ///< [n_receivers], eV/angstrom: standard deviation of a component of the force
  double* distances = nullptr;        ///< [n_receivers], of the features from the training set; 1: that of the farthest 1 % of held-out atoms
  double* whitened = nullptr;  ///< [n_receivers][ModelInfo::whitened], features of mean square 1 over the training set, divided by the scale of distances
  double* features = nullptr;  ///< [n_receivers][features], the scalar features of each node, layer after layer
  double* feature_tangents = nullptr;  ///< the same, their derivative along position_tangents
};

/// Connects the rows of ghosts with their owners in a decomposed system. Rows are raw bytes: `row_bytes` per node, `n_nodes` rows.
class Halo {
 public:
  virtual ~Halo() = default;
  /// Called once per evaluation before anything is exchanged, by every process, with what is wrong with its own atoms: "atom {node} {what}", or node = -1
  /// if all is well. If something is wrong in any process this has to throw in all of them, so that none waits for another.
  virtual void agree(int node, const std::string& what) {
    if (node >= 0) throw std::invalid_argument("atom " + std::to_string(node) + " " + what);
  }
  /// Copies each owner's row into the rows of its ghosts (after a layer).
  virtual void forward(void* rows, std::size_t row_bytes) = 0;
  /// Adds each ghost's row of `scalar_bytes`-wide floating-point numbers to its owner's row (before a layer's reverse pass).
  virtual void reverse(void* rows, std::size_t row_bytes, std::size_t scalar_bytes) = 0;

  // The same for an evaluator whose rows lie on a device, which packs and adds them itself, so that only rows that are exchanged leave the device.
  /// Rows of receivers that other processes need, in the order in which they are sent, some more than once. Null: there is only the above.
  virtual const std::vector<int>* shared_rows() const { return nullptr; }
  /// Whether the two below take memory of the device.
  virtual bool takes_device_memory() const { return false; }
  /// Sends `packed`, one row for each of shared_rows(), and receives the rows of the ghosts.
  virtual void forward_packed(const void* /*packed*/, void* /*ghosts*/, std::size_t /*row_bytes*/) { throw std::logic_error("this halo packs rows itself"); }
  /// Sends the rows of the ghosts, and receives into `packed` what has to be added to each of shared_rows().
  virtual void reverse_packed(const void* /*ghosts*/, void* /*packed*/, std::size_t /*row_bytes*/) { throw std::logic_error("this halo packs rows itself"); }
};

}  // namespace adatom
