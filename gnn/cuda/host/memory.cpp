// SPDX-License-Identifier: MIT
// Memory of the host executor (gnn/cuda/portable.hpp): NaN before it is written, every array an allocation of its own, and no more than ADATOM_HOST_MEMORY
// bytes altogether where that is set, so that running out of memory can be tested. And faults of a device (ADATOM_HOST_FAULT).
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

cudaError_t call_runtime() {
  static std::string current;  // calls are counted from when the variable is set
  static long calls = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  const char* fault = std::getenv("ADATOM_HOST_FAULT");
  if (!fault) {
    current.clear();
    return cudaSuccess;
  }
  if (current != fault) current = fault, calls = 0;
  char* end = nullptr;
  const long first = std::strtol(fault, &end, 10);
  return ++calls >= first && *end == ',' ? static_cast<cudaError_t>(std::atoi(end + 1)) : cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorDevicesUnavailable: return "CUDA-capable device(s) is/are busy or unavailable";
    case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    default: return "unknown error";
  }
}

bool runs_backwards() {
  const char* order = std::getenv("ADATOM_HOST_ORDER");
  return order && std::string(order) == "reverse";
}

std::size_t free_memory() {
  const std::lock_guard<std::mutex> lock(mutex);
  return room() - std::min(in_use, room());
}

void* allocate(std::size_t bytes) {
  check(call_runtime(), "allocating memory");
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
