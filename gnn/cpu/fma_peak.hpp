// SPDX-License-Identifier: MIT
// The multiply-add peak of the cores in use: what a loop of nothing but independent fused multiply-adds reaches.
#pragma once
#include <omp.h>

#include <chrono>

#include "gnn/kernels/lane.hpp"

namespace adatom::gnn::cpu {

/// Floating-point operations per second of `threads` threads together (a multiply-add is 2), for vectors of W numbers T. Takes about `seconds`.
template <class T, int W>
double fma_peak(int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  double total = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    constexpr int sums = 12;  // more than latency times throughput, fewer than registers
    typename Vec<T, W>::native x[sums], a = Vec<T, W>(T(0.999)).v, b = Vec<T, W>(T(1e-3)).v;
    for (int i = 0; i < sums; ++i) x[i] = Vec<T, W>(T(i)).v;
    const auto start = Clock::now();
    double elapsed = 0.0, count = 0.0;
    while (elapsed < seconds) {
      for (int n = 0; n < 20000; ++n) {
#pragma GCC unroll 12
        for (int i = 0; i < sums; ++i) x[i] = x[i] * a + b;
        // Keeps the compiler from shortening the loop; costs no instruction.
        asm volatile("" : "+v"(x[0]), "+v"(x[1]), "+v"(x[2]), "+v"(x[3]), "+v"(x[4]), "+v"(x[5]));
        asm volatile("" : "+v"(x[6]), "+v"(x[7]), "+v"(x[8]), "+v"(x[9]), "+v"(x[10]), "+v"(x[11]));
      }
      count += 20000.0 * sums * W * 2;
      elapsed = std::chrono::duration<double>(Clock::now() - start).count();
    }
    total += count / elapsed;
  }
  return total;
}

}  // namespace adatom::gnn::cpu
