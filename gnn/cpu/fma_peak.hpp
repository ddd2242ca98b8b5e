// SPDX-License-Identifier: MIT
// The multiply-add peak of the cores in use: what a loop of nothing but independent fused multiply-adds reaches.
#pragma once
#include <chrono>

#include "gnn/kernels/lane.hpp"

namespace adatom::gnn::cpu {

/// Floating-point operations per second of this thread (a multiply-add is 2), for vectors of W numbers T. Takes about `seconds`.
template <class T, int W>
double fma_peak(double seconds) {
  using Clock = std::chrono::steady_clock;
  // Twelve chains: more than latency times throughput, fewer than registers. Named, since GCC keeps an array of them in memory.
  using V = typename Vec<T, W>::native;
  const V a = Vec<T, W>(T(0.999)).v, b = Vec<T, W>(T(1e-3)).v;
  // Different starts, or the compiler would see equal chains and keep one of them.
  V x0 = a, x1 = a + T(1), x2 = a + T(2), x3 = a + T(3), x4 = a + T(4), x5 = a + T(5);
  V x6 = a + T(6), x7 = a + T(7), x8 = a + T(8), x9 = a + T(9), x10 = a + T(10), x11 = a + T(11);
  const auto start = Clock::now();
  double elapsed = 0.0, count = 0.0;
  constexpr int repeats = 20000;
  while (elapsed < seconds) {
    for (int n = 0; n < repeats; ++n) {
      x0 = x0 * a + b, x1 = x1 * a + b, x2 = x2 * a + b, x3 = x3 * a + b, x4 = x4 * a + b, x5 = x5 * a + b;
      x6 = x6 * a + b, x7 = x7 * a + b, x8 = x8 * a + b, x9 = x9 * a + b, x10 = x10 * a + b, x11 = x11 * a + b;
    }
    count += double(repeats) * 12 * W * 2;
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  // All lanes of all chains are used, or some would not be computed.
  asm volatile("" : : "v"(x0), "v"(x1), "v"(x2), "v"(x3), "v"(x4), "v"(x5), "v"(x6), "v"(x7), "v"(x8), "v"(x9), "v"(x10), "v"(x11));
  return count / elapsed;
}

}  // namespace adatom::gnn::cpu
