// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "adatom/graph.hpp"
#include "node_id.hpp"

#include <mpi.h>

namespace adatom_lammps {

/// The engine's halo: rows of features travel straight from the rank that owns an atom to the ranks that need it, one message for each pair of ranks.
///
/// LAMMPS's own communication would carry a row for every ghost, that is for every periodic image, through every rank between two that talk. Here a
/// row travels once, and the rows from one owner lie one after the other, so that they are received in place.
///
///     rows of the feature array:   own nodes | remote nodes of the lowest rank | ... | remote nodes of the highest rank
class RankHalo final : public adatom::Halo {
 public:
  using Agree = std::function<void(int node, const std::string& what)>;

  /// Collective over `world`. Works in a communicator of its own, so that its messages never meet those of LAMMPS. `agree` is what Halo::agree does.
  RankHalo(MPI_Comm world, Agree agree);
  ~RankHalo() override;
  RankHalo(const RankHalo&) = delete;
  RankHalo& operator=(const RankHalo&) = delete;

  /// Collective: tells the owners which nodes this rank needs. `remote`, ascending, are those of rows first_row, first_row + 1, ...
  void connect(const std::vector<NodeId>& remote, int first_row);

  void agree(int node, const std::string& what) override { agree_(node, what); }
  // Every rank makes the same calls with the same widths, ranks without atoms too.
  void forward(void* rows, std::size_t row_bytes) override;
  void reverse(void* rows, std::size_t row_bytes, std::size_t scalar_bytes) override;

  const std::vector<int>* shared_rows() const override { return &shared_; }
  /// Where MPI says that it is CUDA-aware. The environment variable ADATOM_HALO=host makes rows go through host memory nevertheless.
  bool takes_device_memory() const override { return cuda_aware_; }
  void forward_packed(const void* packed, void* ghosts, std::size_t row_bytes) override;
  void reverse_packed(const void* ghosts, void* packed, std::size_t row_bytes) override;

  std::size_t bytes() const;

 private:
  struct Peer {
    int rank;
    int first, count;  // of owners_: rows of the feature array; of users_: entries of shared_
  };
  template <class T>
  void add_shared(void* rows, std::size_t row_bytes) const;

  Agree agree_;
  MPI_Comm comm_ = MPI_COMM_NULL;  // null if there is one rank, which has nobody to talk to
  int ranks_ = 1, first_row_ = 0;
  bool cuda_aware_ = false;
  std::vector<Peer> owners_;       // of the remote nodes of this rank, ascending
  std::vector<Peer> users_;        // ranks that need atoms of this one, ascending
  std::vector<int> shared_;        // the rows that they need
  std::vector<std::byte> buffer_;  // [shared_] those rows on their way out (forward) or in (reverse)
};

}  // namespace adatom_lammps
