// SPDX-License-Identifier: MIT
// The functions of a backend that the core sees. This folder is compiled once for each instruction set; the core loads the shared object that fits.
#include "gnn/cpu/backend.hpp"

#include <algorithm>
#include <numeric>
#include <thread>
#include <vector>

#include "gnn/cpu/fma_peak.hpp"
#include "gnn/cpu/multiply.hpp"
#include "gnn/cpu/width.hpp"

using namespace adatom::gnn;

/// The sources that this backend was compiled from; the core refuses any but its own.
extern "C" __attribute__((visibility("default"))) const char* adatom_cpu_interface() { return ADATOM_INTERFACE_ID; }

/// Returns an evaluator that the caller deletes. Throws std::exception.
extern "C" __attribute__((visibility("default"))) Evaluator* adatom_cpu_evaluator(std::shared_ptr<const Network> network, Scalar scalar, Threads& team) {
  switch (scalar) {
    case Scalar::float32: return cpu::make_float32(std::move(network), team);
    case Scalar::float64: return cpu::make_float64(std::move(network), team);
    case Scalar::dual32: return cpu::make_dual32(std::move(network), team);
    case Scalar::dual64: return cpu::make_dual64(std::move(network), team);
  }
  return nullptr;
}

/// The multiply-add peak of the machine with this instruction set, floating-point operations per second of `threads` threads; measured, takes 0.1 s.
extern "C" __attribute__((visibility("default"))) double adatom_cpu_fma_peak(bool single, int threads) {
  std::vector<double> rates(std::max(threads, 1));
  std::vector<std::thread> workers;
  for (double& rate : rates)
    workers.emplace_back(
        [&rate, single] { rate = single ? cpu::fma_peak<float, cpu::vector_bytes / 4>(0.1) : cpu::fma_peak<double, cpu::vector_bytes / 8>(0.1); });
  for (std::thread& worker : workers) worker.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

/// See cpu_multiply in gnn/evaluator.hpp.
extern "C" __attribute__((visibility("default"))) void adatom_cpu_multiply(int m, int k, int n, const double* a, const double* b, double* c, bool accumulate) {
  cpu::multiply<cpu::vector_bytes / 8, cpu::linear_rows>(m, k, n, a, b, c, accumulate);
}
