// SPDX-License-Identifier: MIT
// How a CUDA kernel is written here, so that the same source also runs on a machine without a GPU.
//
// A kernel is a struct of arguments with operator()(Team& team). A team is a warp, or a block, and works in *phases*:
//
//     auto sum = team.template local<S>();                      // one S per thread: a register
//     S* row = team.template shared<S>(n);                      // n S for the team
//     team.each([&](int thread) { row[thread] = ...; });        // a phase: every thread runs the body; then a barrier
//     team.each([&](int thread) { sum[thread] = row[...]; });
//
// What stands outside of phases is the same for all threads: loop bounds, pointers, branches. On a device a phase is the body, then __syncwarp or
// __syncthreads. The host executor (compiled by a C++ compiler without CUDA) runs the body for thread 0, 1, 2, ... one after the other, or backwards if
// the environment variable ADATOM_HOST_ORDER is "reverse": a kernel whose threads read in a phase what others write in the same phase gives another result
// then. Shared arrays and registers hold NaN before they are written, and every array is an allocation of its own, so that the address sanitizer sees what
// goes past its end. Sums over the threads of a warp are explicit calls; their order is fixed, so results repeat bit for bit.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "gnn/evaluator.hpp"
#include "gnn/kernels/scalar.hpp"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <mma.h>
#define ADATOM_DEVICE __device__ __forceinline__
#define ADATOM_UNROLL _Pragma("unroll")
#else
#include <memory>
#include <vector>
#define ADATOM_DEVICE inline
#define ADATOM_UNROLL
#endif

namespace adatom::gnn::cuda {

inline constexpr int warp_size = 32;

template <class T, int N>
struct Array {
  T x[N];
  ADATOM_DEVICE T& operator[](int i) { return x[i]; }
  ADATOM_DEVICE const T& operator[](int i) const { return x[i]; }
};

/// V neighbouring numbers, read and written at once, 16 bytes at a time.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) Pack {
  T x[V];
  ADATOM_DEVICE T& operator[](int i) { return x[i]; }
  ADATOM_DEVICE const T& operator[](int i) const { return x[i]; }
};
template <int V, class T>
ADATOM_DEVICE Pack<T, V> load(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}
template <int V, class T>
ADATOM_DEVICE void store(T* p, const Pack<T, V>& x) {
  *reinterpret_cast<Pack<T, V>*>(p) = x;
}

namespace detail {
ADATOM_FUNCTION constexpr int next_power_of_two(int n) { return n <= 1 ? 1 : 2 * next_power_of_two((n + 1) / 2); }

#ifdef __CUDACC__
template <class T>
ADATOM_DEVICE T shuffle_xor(T x, int mask) {
  return __shfl_xor_sync(0xffffffffu, x, mask);
}
template <class T>
ADATOM_DEVICE Dual<T> shuffle_xor(Dual<T> x, int mask) {
  return {shuffle_xor(x.v, mask), shuffle_xor(x.d, mask)};
}
#endif
}  // namespace detail

/// One T for each thread.
template <class T>
struct Local {
#ifdef __CUDACC__
  T value;
  ADATOM_DEVICE T& operator[](int) { return value; }
#else
  int first;
  std::vector<T> values;
  Local(int first_, int count) : first(first_), values(count) { std::memset(static_cast<void*>(values.data()), 0xff, count * sizeof(T)); }
  T& operator[](int thread) { return values.at(thread - first); }
#endif
};

/// The 32 threads of a warp.
class Warp {
 public:
#ifdef __CUDACC__
  ADATOM_DEVICE explicit Warp(int first) : first_(first) {}
#else
  Warp(int first, bool backwards) : first_(first), backwards_(backwards) {}
#endif
  ADATOM_DEVICE int first() const { return first_; }  ///< thread of the team that is the warp's first

  template <class T>
  ADATOM_DEVICE Local<T> local() const {
#ifdef __CUDACC__
    return {};
#else
    return {first_, warp_size};
#endif
  }

  /// body(thread of the team), without a barrier: for work on registers, and on memory that no other thread touches.
  template <class Body>
  ADATOM_DEVICE void each(Body body) const {
#ifdef __CUDACC__
    body(first_ + static_cast<int>(threadIdx.x) % warp_size);
#else
    for (int k = 0; k < warp_size; ++k) body(first_ + (backwards_ ? warp_size - 1 - k : k));
#endif
  }

  /// out[n] = sum over the warp's threads of x[n]. Halves are exchanged until each thread has one of the sums left: about N + 5 shuffles instead of 5 N.
  template <class S, int N>
  ADATOM_DEVICE void sum_to(Local<Array<S, N>>& x, S* out) const {
    constexpr int P = detail::next_power_of_two(N);
    static_assert(P <= warp_size);
#ifdef __CUDACC__
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    S y[P];
#pragma unroll
    for (int i = 0; i < P; ++i) y[i] = i < N ? x.value[i < N ? i : 0] : S(0);
    int index = 0;
#pragma unroll
    for (int n = P / 2, bit = 1; n >= 1; n /= 2, bit *= 2) {
      const bool upper = lane & bit;
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const S give = upper ? y[i] : y[i + n], keep = upper ? y[i + n] : y[i];
        y[i] = keep + detail::shuffle_xor(give, bit);
      }
      if (upper) index += n;
    }
#pragma unroll
    for (int bit = P; bit < warp_size; bit *= 2) y[0] = y[0] + detail::shuffle_xor(y[0], bit);
    if (lane < P && index < N) out[index] = y[0];
#else
    for (int n = 0; n < N; ++n) {
      S total = x[first_][n];
      for (int k = 1; k < warp_size; ++k) total = total + x[first_ + k][n];
      out[n] = total;
    }
#endif
  }

  /// The sum over the warp's threads.
  template <class S>
  ADATOM_DEVICE S sum(Local<S>& x) const {
#ifdef __CUDACC__
    S total = x.value;
#pragma unroll
    for (int bit = 1; bit < warp_size; bit *= 2) total = total + detail::shuffle_xor(total, bit);
    return total;
#else
    S total = x[first_];
    for (int k = 1; k < warp_size; ++k) total = total + x[first_ + k];
    return total;
#endif
  }

  /// Of each thread, how many threads of the warp before it have a flag that is not 0; returns how many there are in all.
  ADATOM_DEVICE int count_before(Local<int>& flag, Local<int>& before) const {
#ifdef __CUDACC__
    const unsigned mask = __ballot_sync(0xffffffffu, flag.value != 0), lane = threadIdx.x % warp_size;
    before.value = __popc(mask & ((1u << lane) - 1));
    return __popc(mask);
#else
    int count = 0;
    for (int k = 0; k < warp_size; ++k) before[first_ + k] = count, count += flag[first_ + k] != 0;
    return count;
#endif
  }

 private:
  int first_;
#ifndef __CUDACC__
  bool backwards_;
#endif
};

/// Threads that work together. `OneWarp`: 32 of them, several teams to a block; otherwise the team is a block, a multiple of 32.
template <bool OneWarp>
class Team {
 public:
#ifdef __CUDACC__
  ADATOM_DEVICE Team(std::int64_t index, unsigned char* memory) : index_(index), memory_(memory) {}
  ADATOM_DEVICE int size() const { return OneWarp ? warp_size : static_cast<int>(blockDim.x); }
  ADATOM_DEVICE void barrier() const {
    if constexpr (OneWarp)
      __syncwarp();
    else
      __syncthreads();
  }
  template <class T>
  ADATOM_DEVICE Local<T> local() const {
    return {};
  }
#else
  Team(std::int64_t index, int size, std::size_t room, bool backwards) : index_(index), size_(size), room_(room), backwards_(backwards) {}
  int size() const { return size_; }
  template <class T>
  Local<T> local() const {
    return {0, size_};
  }
#endif
  ADATOM_DEVICE std::int64_t index() const { return index_; }  ///< of the team in the launch

  /// Room for n T that all threads see. The launch says how much there is altogether (see shared_bytes).
  template <class T>
  ADATOM_DEVICE T* shared(int n) {
    const std::size_t bytes = (n * sizeof(T) + 15) / 16 * 16;
#ifdef __CUDACC__
    T* const p = reinterpret_cast<T*>(memory_);
    memory_ += bytes;
    return p;
#else
    used_ += bytes;
    if (used_ > room_) overrun();
    blocks_.emplace_back(new (std::align_val_t(16)) unsigned char[n * sizeof(T)]);
    std::memset(blocks_.back().get(), 0xff, n * sizeof(T));
    return reinterpret_cast<T*>(blocks_.back().get());
#endif
  }

  /// A phase: body(thread) for every thread, then a barrier.
  template <class Body>
  ADATOM_DEVICE void each(Body body) const {
#ifdef __CUDACC__
    body(OneWarp ? static_cast<int>(threadIdx.x) % warp_size : static_cast<int>(threadIdx.x));
    barrier();
#else
    for (int k = 0; k < size_; ++k) body(backwards_ ? size_ - 1 - k : k);
#endif
  }

  /// A phase: body(warp) for every warp, then a barrier.
  template <class Body>
  ADATOM_DEVICE void warps(Body body) const {
#ifdef __CUDACC__
    body(Warp(OneWarp ? 0 : static_cast<int>(threadIdx.x) / warp_size * warp_size));
    barrier();
#else
    for (int k = 0; k < size_; k += warp_size) body(Warp(backwards_ ? size_ - warp_size - k : k, backwards_));
#endif
  }

 private:
  std::int64_t index_;
#ifdef __CUDACC__
  unsigned char* memory_;
#else
  struct Delete {
    void operator()(unsigned char* p) const { operator delete[](p, std::align_val_t(16)); }
  };
  [[noreturn]] static void overrun();
  int size_;
  std::size_t room_, used_ = 0;
  bool backwards_;
  std::vector<std::unique_ptr<unsigned char[], Delete>> blocks_;
#endif
};
/// One T for each warp of a block.
template <class T>
struct PerWarp {
#ifdef __CUDACC__
  T value;
  ADATOM_DEVICE explicit PerWarp(int) {}
  ADATOM_DEVICE T& operator[](const Warp&) { return value; }
#else
  std::vector<T> values;
  explicit PerWarp(int threads) : values(threads / warp_size) {}
  T& operator[](const Warp& warp) { return values.at(warp.first() / warp_size); }
#endif
};

/// Inputs of tensor cores. A float is rounded to 11 bits (tf32: to nearest, ties away from zero) or to 8 (bf16: ties to even).
template <Matmul M>
struct TensorInput;
template <>
struct TensorInput<Matmul::tf32> {
  using type = float;
  static constexpr int depth = 8;
  ADATOM_DEVICE static float round(float x) {
#ifdef __CUDACC__
    return nvcuda::wmma::__float_to_tf32(x);
#else
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof x);
    bits = (bits + 0x1000u) & ~0x1fffu;
    std::memcpy(&x, &bits, sizeof x);
    return x;
#endif
  }
};
template <>
struct TensorInput<Matmul::bf16> {
#ifdef __CUDACC__
  using type = __nv_bfloat16;
  ADATOM_DEVICE static type round(float x) { return __float2bfloat16_rn(x); }
#else
  struct type {
    std::uint16_t bits;
    operator float() const {
      const std::uint32_t wide = std::uint32_t(bits) << 16;
      float x;
      std::memcpy(&x, &wide, sizeof x);
      return x;
    }
  };
  static type round(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof x);
    return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
  }
#endif
  static constexpr int depth = 16;
};

/// C [32][32] += A [32][depth] B [depth][32] of a warp on tensor cores, sums in single precision.
template <Matmul M>
class TensorTile {
 public:
  using In = typename TensorInput<M>::type;
  static constexpr int size = 32, depth = TensorInput<M>::depth;

  ADATOM_DEVICE void clear() {
#ifdef __CUDACC__
#pragma unroll
    for (int k = 0; k < 4; ++k) nvcuda::wmma::fill_fragment(c_[k], 0.0f);
#else
    for (float& x : c_) x = 0.0f;
#endif
  }
  /// Rows of A are a_row apart, those of B b_row.
  ADATOM_DEVICE void multiply(const In* a, int a_row, const In* b, int b_row) {
#ifdef __CUDACC__
    using namespace nvcuda::wmma;
    using Kind = std::conditional_t<M == Matmul::tf32, precision::tf32, __nv_bfloat16>;
    fragment<matrix_a, 16, 16, depth, Kind, row_major> x[2];
    fragment<matrix_b, 16, 16, depth, Kind, row_major> y[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) load_matrix_sync(x[k], a + 16 * k * a_row, a_row), load_matrix_sync(y[k], b + 16 * k, b_row);
#pragma unroll
    for (int k = 0; k < 4; ++k) mma_sync(c_[k], x[k / 2], y[k % 2], c_[k]);
#else
    for (int r = 0; r < size; ++r)
      for (int k = 0; k < depth; ++k)
        for (int c = 0; c < size; ++c) c_[r * size + c] += float(a[r * a_row + k]) * float(b[k * b_row + c]);
#endif
  }
  ADATOM_DEVICE void store(float* to, int row) const {
#ifdef __CUDACC__
#pragma unroll
    for (int k = 0; k < 4; ++k) nvcuda::wmma::store_matrix_sync(to + 16 * (k / 2) * row + 16 * (k % 2), c_[k], row, nvcuda::wmma::mem_row_major);
#else
    for (int r = 0; r < size; ++r)
      for (int c = 0; c < size; ++c) to[r * row + c] = c_[r * size + c];
#endif
  }

 private:
#ifdef __CUDACC__
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, depth, float> c_[4];
#else
  float c_[size * size];
#endif
};

using WarpTeam = Team<true>;
using BlockTeam = Team<false>;

/// *p = min(*p, x), by any number of threads: of integers the order does not matter.
ADATOM_DEVICE void lower(int* p, int x) {
#ifdef __CUDACC__
  atomicMin(p, x);
#else
  if (x < *p) *p = x;
#endif
}

/// *p += x, likewise.
ADATOM_DEVICE void add_to(int* p, int x) {
#ifdef __CUDACC__
  atomicAdd(p, x);
#else
  *p += x;
#endif
}

/// The same, and returns what was there. What different threads get depends on their order.
ADATOM_DEVICE int fetch_add(int* p, int x) {
#ifdef __CUDACC__
  return atomicAdd(p, x);
#else
  const int old = *p;
  *p += x;
  return old;
#endif
}

/// Bytes that shared<T>(n) takes.
template <class T>
constexpr std::size_t shared_bytes(std::size_t n) {
  return (n * sizeof(T) + 15) / 16 * 16;
}

}  // namespace adatom::gnn::cuda
