// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <vector>

#include "adatom/graph.hpp"

namespace LAMMPS_NS {
class Comm;
class Pair;
}  // namespace LAMMPS_NS

namespace adatom_lammps {

/// The engine's halo, carried by the forward and reverse communication of LAMMPS.
///
/// LAMMPS calls back the pair style, which hands the call to the four functions below. LAMMPS numbers atoms, the engine numbers nodes; atoms whose
/// type the model does not handle have no node (-1): their slots in the buffers are zero and ignored.
///
/// LAMMPS sizes its buffers before it knows how wide the rows of a model are. So a row travels in pieces of at most `max_doubles`, one
/// communication each; that bounds the memory of the buffers as well. Every rank makes the same calls with the same widths, empty ranks too.
class CommHalo final : public adatom::Halo {
 public:
  /// Pair::comm_forward and Pair::comm_reverse, in doubles. 2 KiB: one piece for 128 channels of l = 0, 1 in single precision.
  static constexpr int max_doubles = 256;

  /// `comm` is the pointer itself of LAMMPS: `comm_style` replaces the object.
  CommHalo(LAMMPS_NS::Comm*& comm, LAMMPS_NS::Pair& pair, const std::vector<int>& node_of_atom)
      : comm_(comm), pair_(pair), node_of_atom_(node_of_atom) {}

  void forward(void* rows, std::size_t row_bytes) override;
  void reverse(void* rows, std::size_t row_bytes, std::size_t scalar_bytes) override;

  // What Pair::pack_forward_comm etc. do. The pack functions return the number of doubles written.
  int pack_forward(int n, const int* atoms, double* buffer) const;
  void unpack_forward(int n, int first_atom, const double* buffer);
  int pack_reverse(int n, int first_atom, double* buffer) const;
  void unpack_reverse(int n, const int* atoms, const double* buffer);

 private:
  template <class Communicate>
  void in_pieces(void* rows, std::size_t row_bytes, Communicate communicate);
  char* row(int atom) const;  // the present piece of an atom's row, null if it has no node
  void pack(int atom, double* slot) const;

  LAMMPS_NS::Comm*& comm_;
  LAMMPS_NS::Pair& pair_;
  const std::vector<int>& node_of_atom_;

  char* rows_ = nullptr;
  std::size_t row_bytes_ = 0, scalar_bytes_ = 0;
  std::size_t offset_ = 0, piece_bytes_ = 0;  // bytes [offset, offset + piece) of each row are on their way
  int piece_doubles_ = 0;
};

}  // namespace adatom_lammps
