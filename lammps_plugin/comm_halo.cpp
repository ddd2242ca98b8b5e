// SPDX-License-Identifier: GPL-2.0-or-later
#include "comm_halo.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include <comm.h>

namespace adatom_lammps {
namespace {

template <class T>
void add(char* row, const char* values, std::size_t bytes) {
  for (std::size_t i = 0; i + sizeof(T) <= bytes; i += sizeof(T)) {
    T a, b;  // memcpy: the bytes of a buffer of doubles may hold floats
    std::memcpy(&a, row + i, sizeof(T));
    std::memcpy(&b, values + i, sizeof(T));
    a += b;
    std::memcpy(row + i, &a, sizeof(T));
  }
}

}  // namespace

template <class Communicate>
void CommHalo::in_pieces(void* rows, std::size_t row_bytes, Communicate communicate) {
  rows_ = static_cast<char*>(rows);
  row_bytes_ = row_bytes;
  for (offset_ = 0; offset_ < row_bytes_; offset_ += piece_bytes_) {
    piece_bytes_ = std::min(row_bytes_ - offset_, max_doubles * sizeof(double));
    piece_doubles_ = static_cast<int>((piece_bytes_ + sizeof(double) - 1) / sizeof(double));
    communicate();
  }
}

void CommHalo::forward(void* rows, std::size_t row_bytes) {
  in_pieces(rows, row_bytes, [this] { comm_->forward_comm(&pair_, piece_doubles_); });
}

void CommHalo::reverse(void* rows, std::size_t row_bytes, std::size_t scalar_bytes) {
  if ((scalar_bytes != sizeof(float) && scalar_bytes != sizeof(double)) || row_bytes % scalar_bytes != 0)
    throw std::invalid_argument("a halo adds rows of 4-byte or 8-byte numbers, not rows of " + std::to_string(row_bytes) + " bytes with numbers of " +
                                std::to_string(scalar_bytes) + " bytes");
  scalar_bytes_ = scalar_bytes;
  in_pieces(rows, row_bytes, [this] { comm_->reverse_comm(&pair_, piece_doubles_); });
}

char* CommHalo::row(int atom) const {
  const int node = node_of_atom_[atom];
  return node < 0 ? nullptr : rows_ + node * row_bytes_ + offset_;
}

void CommHalo::pack(int atom, double* slot) const {
  std::fill_n(slot, piece_doubles_, 0.0);  // also the bytes after a row that is no multiple of eight bytes
  if (const char* source = row(atom)) std::memcpy(slot, source, piece_bytes_);
}

int CommHalo::pack_forward(int n, const int* atoms, double* buffer) const {
  for (int i = 0; i < n; ++i) pack(atoms[i], buffer + static_cast<std::size_t>(i) * piece_doubles_);
  return n * piece_doubles_;
}

void CommHalo::unpack_forward(int n, int first_atom, const double* buffer) {
  for (int i = 0; i < n; ++i)
    if (char* target = row(first_atom + i)) std::memcpy(target, buffer + static_cast<std::size_t>(i) * piece_doubles_, piece_bytes_);
}

int CommHalo::pack_reverse(int n, int first_atom, double* buffer) const {
  for (int i = 0; i < n; ++i) pack(first_atom + i, buffer + static_cast<std::size_t>(i) * piece_doubles_);
  return n * piece_doubles_;
}

void CommHalo::unpack_reverse(int n, const int* atoms, const double* buffer) {
  for (int i = 0; i < n; ++i) {
    char* target = row(atoms[i]);
    if (!target) continue;
    const char* values = reinterpret_cast<const char*>(buffer + static_cast<std::size_t>(i) * piece_doubles_);
    scalar_bytes_ == sizeof(float) ? add<float>(target, values, piece_bytes_) : add<double>(target, values, piece_bytes_);
  }
}

}  // namespace adatom_lammps
