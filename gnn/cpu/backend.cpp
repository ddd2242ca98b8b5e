// SPDX-License-Identifier: MIT
// One instruction set's CPU backend. This file is compiled once for each; the core loads the shared objects by name and sees one function.
#include "gnn/cpu/evaluator.hpp"
#include "gnn/cpu/fma_peak.hpp"

namespace {

#if defined(__AVX512F__)
constexpr int bytes = 64, rows = 12;
#elif defined(__AVX2__)
constexpr int bytes = 32, rows = 6;
#else
constexpr int bytes = 16, rows = 6;
#endif

using namespace adatom::gnn;

template <class S>
Evaluator* make(std::shared_ptr<const Network> network) {
  return new cpu::CpuEvaluator<S, bytes / sizeof(Base<S>), is_dual<S> ? rows / 2 : rows>(std::move(network));
}

}  // namespace

/// Returns an evaluator that the caller deletes. Throws std::exception.
extern "C" __attribute__((visibility("default"))) Evaluator* adatom_cpu_evaluator(std::shared_ptr<const Network> network, Scalar scalar) {
  switch (scalar) {
    case Scalar::float32: return make<float>(std::move(network));
    case Scalar::float64: return make<double>(std::move(network));
    case Scalar::dual32: return make<Dual<float>>(std::move(network));
    case Scalar::dual64: return make<Dual<double>>(std::move(network));
  }
  return nullptr;
}

/// See cpu_fma_peak in gnn/evaluator.hpp.
extern "C" __attribute__((visibility("default"))) double adatom_cpu_fma_peak(bool single, int threads) {
  const int n = threads > 0 ? threads : omp_get_max_threads();
  return single ? cpu::fma_peak<float, bytes / 4>(n, 0.1) : cpu::fma_peak<double, bytes / 8>(n, 0.1);
}
