// SPDX-License-Identifier: MIT
// What the evaluator needs of a device: memory, a stream, launches, graphs. The same interface on the host executor (see gnn/cuda/portable.hpp).
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "gnn/cuda/portable.hpp"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <functional>
#endif

namespace adatom::gnn::cuda {

/// The device has no room for what was asked.
struct OutOfMemory : std::runtime_error {
  explicit OutOfMemory(std::size_t bytes_) : std::runtime_error("out of device memory"), bytes(bytes_) {}
  std::size_t bytes;
};

#ifndef __CUDACC__
/// Those that the host executor can be made to return, as CUDA numbers them.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorDevicesUnavailable = 46,
  cudaErrorECCUncorrectable = 214,
  cudaErrorNvlinkUncorrectable = 220,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchTimeout = 702,
  cudaErrorHardwareStackError = 714,
  cudaErrorIllegalInstruction = 715,
  cudaErrorMisalignedAddress = 716,
  cudaErrorInvalidAddressSpace = 717,
  cudaErrorInvalidPc = 718,
  cudaErrorLaunchFailure = 719,
  cudaErrorUnknown = 999
};
const char* cudaGetErrorString(cudaError_t);
inline void cudaGetLastError() {}
/// What a call of the CUDA runtime would return: a fault from the n-th call on where ADATOM_HOST_FAULT is "n,number of the error".
cudaError_t call_runtime();
#endif

/// Throws std::runtime_error that says what to do.
inline void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report it again
  std::string advice;
  switch (status) {
    case cudaErrorMemoryAllocation: advice = "; other processes or models may hold the memory (nvidia-smi lists them): use fewer atoms or more devices"; break;
    case cudaErrorDevicesUnavailable: advice = "; another process holds the device: end it, or choose a device with CUDA_VISIBLE_DEVICES"; break;
    case cudaErrorECCUncorrectable:
      advice = "; the device's memory is faulty (nvidia-smi -q -d ECC): restart this process (from the last checkpoint), on another device if it happens again";
      break;
    // After these every call of this process fails.
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown: advice = "; the device is lost for this process: restart it (from the last checkpoint)"; break;
    default: break;
  }
  throw std::runtime_error(std::string("CUDA device: ") + cudaGetErrorString(status) + " while " + doing + advice);
}

#ifdef __CUDACC__
/// The device of this process: of several on one machine the launcher's local rank tells which.
inline int chosen_device() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "counting devices");
  for (const char* name : {"ADATOM_LOCAL_RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"})
    if (const char* rank = std::getenv(name)) return count > 0 ? std::atoi(rank) % count : 0;
  return 0;
}

namespace detail {
template <class K>
using TeamOf = std::conditional_t<K::one_warp, WarpTeam, BlockTeam>;
inline constexpr int warps_per_block = 4;  // of kernels whose teams are warps

template <class K>
__global__ void __launch_bounds__(K::most_threads) run_teams(const __grid_constant__ K kernel, std::int64_t teams, unsigned shared) {
  extern __shared__ __align__(128) unsigned char shared_memory[];
  if constexpr (K::one_warp) {
    const std::int64_t index = std::int64_t(blockIdx.x) * (blockDim.x / warp_size) + threadIdx.x / warp_size;
    if (index >= teams) return;
    TeamOf<K> team(index, shared_memory + (threadIdx.x / warp_size) * shared);
    kernel(team);
  } else {
    TeamOf<K> team(blockIdx.x, shared_memory);
    kernel(team);
  }
}

template <class K>
__global__ void __launch_bounds__(256) run_each(const __grid_constant__ K kernel, std::int64_t n) {
  const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) kernel(i);
}
}  // namespace detail

/// A stream of the current device; everything is enqueued, synchronize() waits.
class Stream {
 public:
  Stream() : device_(chosen_device()) {
    use();
    check(cudaDeviceGetAttribute(&most_shared_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_), "asking for its shared memory");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  }
  ~Stream() {
    drop_graph();
    cudaStreamDestroy(stream_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// To be called first by a thread that was not the last to work with the stream.
  void use() { check(cudaSetDevice(device_), "choosing it"); }

  /// Host memory: of allocate_host(), or kept until synchronize().
  void upload(void* to, const void* from, std::size_t bytes) {
    if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "copying to it");
  }
  void download(void* to, const void* from, std::size_t bytes) {
    if (bytes) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "copying from it");
  }
  void clear(void* p, std::size_t bytes) {
    if (bytes) check(cudaMemsetAsync(p, 0, bytes, stream_), "clearing memory");
  }
  void synchronize() { check(cudaStreamSynchronize(stream_), "waiting for kernels"); }

  /// kernel(team) for teams 0 .. count-1, each of `threads` threads (of kernels whose teams are warps: 32) with `shared` bytes.
  template <class K>
  void teams(const K& kernel, std::int64_t count, std::size_t shared = 0, int threads = warp_size) {
    if (count <= 0) return;
    int per_block = K::one_warp ? detail::warps_per_block : 1;
    while (per_block > 1 && shared * per_block > most_shared()) per_block /= 2;
    const std::size_t bytes = shared * per_block;
    if (bytes > most_shared()) throw std::runtime_error("model: a layer needs more shared memory than this CUDA device has");
    static std::size_t allowed = 48 * 1024;  // of this kernel
    if (bytes > allowed) {
      check(cudaFuncSetAttribute(detail::run_teams<K>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), "setting shared memory");
      allowed = bytes;
    }
    const std::int64_t blocks = (count + per_block - 1) / per_block;
    detail::run_teams<K><<<static_cast<unsigned>(blocks), threads * per_block, bytes, stream_>>>(kernel, count, static_cast<unsigned>(shared));
    check(cudaGetLastError(), "starting a kernel");
    ++launches_;
  }

  /// kernel(i) for i = 0 .. n-1.
  template <class K>
  void each(const K& kernel, std::int64_t n) {
    if (n <= 0) return;
    detail::run_each<K><<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream_>>>(kernel, n);
    check(cudaGetLastError(), "starting a kernel");
    ++launches_;
  }

  /// Enqueues what `record` enqueues; from the second time on with the same key as one graph. `record` must not wait.
  template <class Record>
  void replay(std::uint64_t key, Record record) {
    if (graph_ && key == graph_key_) {
      check(cudaGraphLaunch(graph_, stream_), "starting a graph");
      return;
    }
    if (key != seen_key_) {  // once without: a graph that is used once costs more than it saves
      seen_key_ = key;
      record();
      return;
    }
    drop_graph();
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording a graph");
    cudaGraph_t graph = nullptr;
    try {
      record();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "recording a graph");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "making a graph");
    graph_key_ = key;
    check(cudaGraphLaunch(graph_, stream_), "starting a graph");
  }

  std::size_t most_shared() const { return static_cast<std::size_t>(most_shared_); }  ///< bytes of a block
  long launches() const { return launches_; }

 private:
  void drop_graph() {
    if (graph_) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
  }
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
  std::uint64_t graph_key_ = 0, seen_key_ = 0;
  int most_shared_ = 0;
  long launches_ = 0;
};

inline void* allocate(std::size_t bytes) {
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(bytes);
  }
  check(status, "allocating memory");
  return p;
}
inline void release(void* p) { cudaFree(p); }
inline std::size_t free_memory() {
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for its memory");
  return free;
}
/// Host memory that the device reads and writes by itself.
inline void* allocate_host(std::size_t bytes) {
  void* p = nullptr;
  check(cudaMallocHost(&p, bytes), "pinning host memory");
  return p;
}
inline void release_host(void* p) { cudaFreeHost(p); }

#else  // ------------------------------------------------------------------------------------------------ host executor

bool runs_backwards();        ///< ADATOM_HOST_ORDER=reverse
void* allocate(std::size_t);  ///< filled with NaN
void release(void* p);
std::size_t free_memory();
inline void* allocate_host(std::size_t bytes) { return allocate(bytes); }
inline void release_host(void* p) { release(p); }

template <bool OneWarp>
void Team<OneWarp>::overrun() {
  throw std::logic_error("a kernel takes more shared memory than its launch says");
}

/// Everything is done at once, except for what is recorded, which is kept with its arguments as CUDA does.
class Stream {
 public:
  Stream() { check(call_runtime(), "making a stream"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void use() { check(call_runtime(), "choosing it"); }
  void upload(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, "copying to it"); }
  void download(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, "copying from it"); }
  void clear(void* p, std::size_t bytes) {
    if (!bytes) return;
    check(call_runtime(), "clearing memory");
    enqueue([p, bytes] { std::memset(p, 0, bytes); });
  }
  void synchronize() {
    if (recording_) throw std::logic_error("a step that is recorded waits");
    check(call_runtime(), "waiting for kernels");
  }

  template <class K>
  void teams(const K& kernel, std::int64_t count, std::size_t shared = 0, int threads = warp_size) {
    if (count <= 0) return;
    if (shared > most_shared()) throw std::runtime_error("model: a layer needs more shared memory than a CUDA device has");
    if (threads > K::most_threads || threads % warp_size != 0 || (K::one_warp && threads != warp_size))
      throw std::logic_error("a launch of an impossible size");
    check(call_runtime(), "starting a kernel");
    enqueue([kernel, count, shared, threads] {
      const bool backwards = runs_backwards();
      for (std::int64_t k = 0; k < count; ++k) {
        Team<K::one_warp> team(backwards ? count - 1 - k : k, threads, shared, backwards);
        kernel(team);
      }
    });
    ++launches_;
  }
  template <class K>
  void each(const K& kernel, std::int64_t n) {
    if (n <= 0) return;
    check(call_runtime(), "starting a kernel");
    enqueue([kernel, n] {
      const bool backwards = runs_backwards();
      for (std::int64_t k = 0; k < n; ++k) kernel(backwards ? n - 1 - k : k);
    });
    ++launches_;
  }

  /// As on a device: from the second time on with the same key what was recorded then is done again, whatever `record` would enqueue now.
  template <class Record>
  void replay(std::uint64_t key, Record record) {
    if (key != seen_key_) {
      seen_key_ = key;
      graph_.clear();
      record();
      return;
    }
    if (graph_.empty()) {
      recording_ = true;
      try {
        record();
      } catch (...) {
        recording_ = false;
        graph_.clear();
        throw;
      }
      recording_ = false;
    }
    check(call_runtime(), "starting a graph");
    for (const auto& task : graph_) task();
  }

  std::size_t most_shared() const { return 227 * 1024; }  // as compute capability 9.0
  long launches() const { return launches_; }

 private:
  template <class Task>
  void enqueue(const Task& task) {
    if (recording_)
      graph_.emplace_back(task);
    else
      task();
  }
  void copy(void* to, const void* from, std::size_t bytes, const char* doing) {
    if (!bytes) return;
    check(call_runtime(), doing);
    enqueue([to, from, bytes] { std::memcpy(to, from, bytes); });
  }
  std::vector<std::function<void()>> graph_;
  bool recording_ = false;
  std::uint64_t seen_key_ = 0;
  long launches_ = 0;
};
#endif

/// Arrays that the host fills: those of a model, or of a list of tasks. They travel in few large pieces. Filled again with arrays of the same sizes, they lie
/// where they lay before.
class Store {
 public:
  Store() = default;
  ~Store() { drop(); }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Forgets what was added. The stream must have been waited for.
  void begin() {
    next_ = 0;
    moved_ = false;
#ifdef __CUDACC__
    for (Piece& p : pieces_) p.used = 0;
    piece_ = 0;
#endif
  }

  /// The array's place on the device, which it reaches with upload(); null if it is empty.
  template <class T>
  T* add(const std::vector<T>& from) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<T*>(place(from.data(), from.size() * sizeof(T)));
  }

  void upload(Stream& stream) {
#ifdef __CUDACC__
    for (const Piece& p : pieces_) stream.upload(p.device, p.host, p.used);
#else
    (void)stream;  // lies there already
#endif
  }

  /// Whether an array lies elsewhere than before the last begin().
  bool moved() const { return moved_ || next_ != places_.size(); }

 private:
  void* place(const void* from, std::size_t bytes) {
    if (!bytes) return nullptr;
#ifdef __CUDACC__
    while (piece_ < pieces_.size() && pieces_[piece_].used + bytes > pieces_[piece_].size) ++piece_;
    if (piece_ == pieces_.size()) {
      Piece fresh;
      fresh.size = std::max(bytes, smallest_piece);
      fresh.device = static_cast<unsigned char*>(allocate(fresh.size));
      try {
        fresh.host = static_cast<unsigned char*>(allocate_host(fresh.size));
      } catch (...) {
        release(fresh.device);
        throw;
      }
      pieces_.push_back(fresh);
    }
    Piece& piece = pieces_[piece_];
    void* const p = piece.device + piece.used;
    std::memcpy(piece.host + piece.used, from, bytes);
    piece.used += (bytes + 255) / 256 * 256;
    if (piece.used > piece.size) piece.used = piece.size;
#else
    if (next_ < places_.size() && sizes_[next_] != bytes) {
      release(places_[next_]);
      places_[next_] = nullptr;
    }
    void* const p = next_ < places_.size() && places_[next_] ? places_[next_] : allocate(bytes);
    std::memcpy(p, from, bytes);
    if (next_ == sizes_.size()) sizes_.push_back(bytes);
    sizes_[next_] = bytes;
#endif
    if (next_ == places_.size()) places_.push_back(nullptr);
    moved_ |= places_[next_] != p;
    places_[next_++] = p;
    return p;
  }
  void drop() {
#ifdef __CUDACC__
    for (Piece& p : pieces_) release(p.device), release_host(p.host);
#else
    for (void* p : places_) release(p);
#endif
  }

#ifdef __CUDACC__
  struct Piece {
    unsigned char *device = nullptr, *host = nullptr;
    std::size_t size = 0, used = 0;
  };
  static constexpr std::size_t smallest_piece = std::size_t(1) << 20;
  std::vector<Piece> pieces_;
  std::size_t piece_ = 0;
#else
  std::vector<std::size_t> sizes_;
#endif
  std::vector<void*> places_;
  std::size_t next_ = 0;
  bool moved_ = false;
};

/// An array of a Store.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(Store& store, const std::vector<T>& from) : data_(store.add(from)), size_(from.size()) {}
  T* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Many arrays in one allocation: they are announced, then given their places. Grows only.
class Arena {
 public:
  /// `host`: memory of the host that the device reaches.
  explicit Arena(bool host = false) : host_(host) {}
  ~Arena() { drop(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  template <class T>
  void add(T*& pointer, std::size_t count) {
    pointer = nullptr;
    requests_.push_back({&pointer, count * sizeof(T)});
  }
  std::size_t wanted() const {
    std::size_t total = 0;
    for (const Request& r : requests_) total += rounded(r.bytes);
    return total;
  }
  void forget() { requests_.clear(); }

  /// Gives all arrays that were announced since the last time their places; what they held is lost. Throws OutOfMemory; nothing is kept then.
  void commit() {
#ifdef __CUDACC__
    const std::size_t total = wanted();
    if (total > bytes_) {
      drop();
      blocks_.push_back(host_ ? allocate_host(total) : allocate(total));
      bytes_ = total;
    }
    std::size_t at = 0;
    for (const Request& r : requests_) {
      if (r.bytes) set(r, static_cast<unsigned char*>(blocks_.front()) + at);
      at += rounded(r.bytes);
    }
#else
    drop();
    for (const Request& r : requests_) {
      if (!r.bytes) continue;
      blocks_.push_back(allocate(r.bytes));
      set(r, blocks_.back());
    }
    bytes_ = wanted();
#endif
    forget();
  }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Request {
    void* pointer;  ///< to a pointer, of whatever type
    std::size_t bytes;
  };
  static void set(const Request& r, void* p) { std::memcpy(r.pointer, &p, sizeof p); }
  static std::size_t rounded(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
  void drop() {
    for (void* p : blocks_) host_ ? release_host(p) : release(p);
    blocks_.clear();
    bytes_ = 0;
  }
  bool host_;
  std::vector<Request> requests_;
  std::vector<void*> blocks_;
  std::size_t bytes_ = 0;
};

}  // namespace adatom::gnn::cuda
