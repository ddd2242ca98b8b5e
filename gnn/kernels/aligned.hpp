// SPDX-License-Identifier: MIT
// Arrays that begin on a cache line.
#pragma once
#include <cstddef>
#include <new>
#include <vector>

namespace adatom::gnn {

/// malloc places a large array 16 bytes after the start of a page. Then every second vector of 32 bytes lies in two cache lines, and a force call takes
/// 15 to 20 % longer. Rows have a multiple of 16 scalars, so it is enough that the array begins on a line.
template <class T>
struct CacheAligned {
  using value_type = T;
  static constexpr std::align_val_t line{64};  // bytes

  CacheAligned() = default;
  template <class U>
  CacheAligned(const CacheAligned<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, std::size_t n) { ::operator delete(p, n * sizeof(T), line); }
  bool operator==(const CacheAligned&) const = default;
};

template <class T>
using AlignedVector = std::vector<T, CacheAligned<T>>;

}  // namespace adatom::gnn
