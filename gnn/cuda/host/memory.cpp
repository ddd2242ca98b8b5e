// SPDX-License-Identifier: MIT
// Memory of the host executor (gnn/cuda/portable.hpp): NaN before it is written, every array an allocation of its own, and no more than ADATOM_HOST_MEMORY
// bytes altogether where that is set, so that running out of memory can be tested.
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

#include "gnn/cuda/runtime.hpp"

namespace adatom::gnn::cuda {
namespace {

constexpr std::align_val_t alignment{256};  // as cudaMalloc's
std::mutex mutex;
std::map<void*, std::size_t> sizes;
std::size_t in_use = 0;

std::size_t room() {
  const char* limit = std::getenv("ADATOM_HOST_MEMORY");
  return limit ? std::strtoull(limit, nullptr, 10) : ~std::size_t(0);
}

}  // namespace

bool runs_backwards() {
  const char* order = std::getenv("ADATOM_HOST_ORDER");
  return order && std::string(order) == "reverse";
}

std::size_t free_memory() {
  const std::lock_guard<std::mutex> lock(mutex);
  return room() - std::min(in_use, room());
}

void* allocate(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (bytes > room() - std::min(in_use, room())) throw OutOfMemory(bytes);
  void* p = operator new(bytes, alignment);
  std::memset(p, 0xff, bytes);
  sizes[p] = bytes;
  in_use += bytes;
  return p;
}

void release(void* p) {
  if (!p) return;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = sizes.find(p);
  in_use -= found->second;
  sizes.erase(found);
  operator delete(p, alignment);
}

}  // namespace adatom::gnn::cuda
