// SPDX-License-Identifier: GPL-2.0-or-later
#include "rank_halo.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace adatom_lammps {
namespace {

enum Tag { requests = 1, features, adjoints };

/// Messages that are on their way; all have to arrive before their memory is touched again.
class Transfers {
 public:
  explicit Transfers(MPI_Comm comm) : comm_(comm) {}
  void receive(void* data, int count, MPI_Datatype type, int rank, Tag tag) { MPI_Irecv(data, count, type, rank, tag, comm_, next()); }
  void send(const void* data, int count, MPI_Datatype type, int rank, Tag tag) { MPI_Isend(data, count, type, rank, tag, comm_, next()); }
  void finish() {
    MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
    requests_.clear();
  }

 private:
  MPI_Request* next() { return &requests_.emplace_back(MPI_REQUEST_NULL); }  // MPI writes the request before the vector grows again

  MPI_Comm comm_;
  std::vector<MPI_Request> requests_;
};

/// One row as a type of MPI: counts are then rows, and a message may be larger than the 2 GiB that an int counts in bytes.
class RowType {
 public:
  explicit RowType(std::size_t bytes) {
    MPI_Type_contiguous(static_cast<int>(bytes), MPI_BYTE, &type_);
    MPI_Type_commit(&type_);
  }
  ~RowType() { MPI_Type_free(&type_); }
  RowType(const RowType&) = delete;
  RowType& operator=(const RowType&) = delete;
  operator MPI_Datatype() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

/// Open MPI, and what comes from it, has one function for the question, MPICH another; the library that runs may have neither.
bool mpi_is_cuda_aware() {
  if (void* query = dlsym(RTLD_DEFAULT, "MPIX_Query_cuda_support")) return reinterpret_cast<int (*)()>(query)() == 1;
  if (void* query = dlsym(RTLD_DEFAULT, "MPIX_GPU_query_support")) {
    int supported = 0;
    constexpr int cuda = 0;  // MPIX_GPU_SUPPORT_CUDA
    return reinterpret_cast<int (*)(int, int*)>(query)(cuda, &supported) == MPI_SUCCESS && supported;
  }
  return false;
}

}  // namespace

RankHalo::RankHalo(MPI_Comm world, Agree agree) : agree_(std::move(agree)) {
  MPI_Comm_size(world, &ranks_);
  if (ranks_ > 1) MPI_Comm_dup(world, &comm_);
  const char* way = std::getenv("ADATOM_HALO");
  cuda_aware_ = mpi_is_cuda_aware() && !(way && std::string(way) == "host");
}

RankHalo::~RankHalo() {
  int over = 0;
  MPI_Finalized(&over);  // a LAMMPS in Python may be deleted when the program ends
  if (comm_ != MPI_COMM_NULL && !over) MPI_Comm_free(&comm_);
}

void RankHalo::connect(const std::vector<NodeId>& remote, int first_row) {
  owners_.clear();
  users_.clear();
  shared_.clear();
  first_row_ = first_row;
  if (ranks_ == 1) return;

  std::vector<int> needs(ranks_, 0), gives(ranks_, 0), needed_rows;
  for (const NodeId& node : remote) {
    ++needs[node.rank()];
    needed_rows.push_back(node.node());
  }
  MPI_Alltoall(needs.data(), 1, MPI_INT, gives.data(), 1, MPI_INT, comm_);
  int row = first_row, shared = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    if (needs[rank]) owners_.push_back({rank, row, needs[rank]});
    if (gives[rank]) users_.push_back({rank, shared, gives[rank]});
    row += needs[rank];
    shared += gives[rank];
  }

  shared_.resize(shared);
  Transfers transfers(comm_);
  for (const Peer& user : users_) transfers.receive(&shared_[user.first], user.count, MPI_INT, user.rank, requests);
  for (const Peer& owner : owners_) transfers.send(&needed_rows[owner.first - first_row], owner.count, MPI_INT, owner.rank, requests);
  transfers.finish();
}

void RankHalo::forward(void* rows, std::size_t row_bytes) {
  if (owners_.empty() && users_.empty()) return;
  auto* bytes = static_cast<std::byte*>(rows);
  if (buffer_.size() < shared_.size() * row_bytes) buffer_.resize(shared_.size() * row_bytes);
  for (std::size_t k = 0; k < shared_.size(); ++k) std::memcpy(&buffer_[k * row_bytes], bytes + shared_[k] * row_bytes, row_bytes);
  forward_packed(buffer_.data(), bytes + first_row_ * row_bytes, row_bytes);
}

void RankHalo::forward_packed(const void* packed, void* ghosts, std::size_t row_bytes) {
  if (owners_.empty() && users_.empty()) return;
  const auto* from = static_cast<const std::byte*>(packed);
  auto* to = static_cast<std::byte*>(ghosts);
  const RowType type(row_bytes);
  Transfers transfers(comm_);
  for (const Peer& owner : owners_) transfers.receive(to + (owner.first - first_row_) * row_bytes, owner.count, type, owner.rank, features);
  for (const Peer& user : users_) transfers.send(from + user.first * row_bytes, user.count, type, user.rank, features);
  transfers.finish();
}

void RankHalo::reverse(void* rows, std::size_t row_bytes, std::size_t scalar_bytes) {
  if ((scalar_bytes != sizeof(float) && scalar_bytes != sizeof(double)) || row_bytes % scalar_bytes != 0)
    throw std::invalid_argument("a halo adds rows of 4-byte or 8-byte numbers, not rows of " + std::to_string(row_bytes) + " bytes with numbers of " +
                                std::to_string(scalar_bytes) + " bytes");
  if (owners_.empty() && users_.empty()) return;
  if (buffer_.size() < shared_.size() * row_bytes) buffer_.resize(shared_.size() * row_bytes);
  reverse_packed(static_cast<const std::byte*>(rows) + first_row_ * row_bytes, buffer_.data(), row_bytes);
  scalar_bytes == sizeof(float) ? add_shared<float>(rows, row_bytes) : add_shared<double>(rows, row_bytes);
}

void RankHalo::reverse_packed(const void* ghosts, void* packed, std::size_t row_bytes) {
  if (owners_.empty() && users_.empty()) return;
  const auto* from = static_cast<const std::byte*>(ghosts);
  auto* to = static_cast<std::byte*>(packed);
  const RowType type(row_bytes);
  Transfers transfers(comm_);
  for (const Peer& user : users_) transfers.receive(to + user.first * row_bytes, user.count, type, user.rank, adjoints);
  for (const Peer& owner : owners_) transfers.send(from + (owner.first - first_row_) * row_bytes, owner.count, type, owner.rank, adjoints);
  transfers.finish();
}

/// After all have arrived, by ascending ranks: the order of the sum, and so its last bits, do not depend on who was first.
template <class T>
void RankHalo::add_shared(void* rows, std::size_t row_bytes) const {
  const std::size_t size = row_bytes / sizeof(T);
  auto* sums = static_cast<T*>(rows);
  const auto* terms = reinterpret_cast<const T*>(buffer_.data());
  for (const int row : shared_) {
    T* sum = sums + row * size;
    for (std::size_t k = 0; k < size; ++k) sum[k] += terms[k];
    terms += size;
  }
}

std::size_t RankHalo::bytes() const { return buffer_.capacity() + sizeof(int) * shared_.capacity() + sizeof(Peer) * (owners_.capacity() + users_.capacity()); }

}  // namespace adatom_lammps
