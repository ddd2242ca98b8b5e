// SPDX-License-Identifier: MIT
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <vector>

#include "gnn/evaluator.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn {
namespace {

struct Level {
  const char* name;
  bool supported;
};

std::vector<Level> levels() {
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return {{"v4", v4}, {"v3", v3}, {"v2", true}};
}

/// Where backends lie: beside the shared library that this function is in, or, for a module of a Python package, in its folder lib.
std::filesystem::path backend_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&cpu_backend_name), &info) || !info.dli_fname) return ".";
  const std::filesystem::path folder = std::filesystem::absolute(info.dli_fname).parent_path();
  return std::filesystem::exists(folder / "lib" / "libadatom_cpu_v2.so") ? folder / "lib" : folder;
}

using MakeEvaluator = Evaluator* (*)(std::shared_ptr<const Network>, Scalar);
using FmaPeak = double (*)(bool, int);
using Multiply = void (*)(int, int, int, const double*, const double*, double*, bool);
struct Backend {
  std::string name;
  MakeEvaluator make = nullptr;
  FmaPeak fma_peak = nullptr;
  Multiply multiply = nullptr;
};

Backend load() {
  const char* wanted = std::getenv("ADATOM_CPU");
  std::string reasons;
  for (const Level& level : levels()) {
    if (wanted && std::string(wanted) != level.name) continue;
    if (!level.supported) {
      reasons += std::string("\n  ") + level.name + ": this machine does not have its instructions";
      continue;
    }
    const std::filesystem::path file = backend_folder() / ("libadatom_cpu_" + std::string(level.name) + ".so");
    void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      reasons += std::string("\n  ") + level.name + ": " + dlerror();
      continue;
    }
    void *make = dlsym(handle, "adatom_cpu_evaluator"), *peak = dlsym(handle, "adatom_cpu_fma_peak"), *multiply = dlsym(handle, "adatom_cpu_multiply"),
         *interface = dlsym(handle, "adatom_cpu_interface");
    if (make && peak && multiply && interface && std::string(reinterpret_cast<const char* (*)()>(interface)()) == ADATOM_INTERFACE_ID)
      return {std::string("cpu-") + level.name, reinterpret_cast<MakeEvaluator>(make), reinterpret_cast<FmaPeak>(peak), reinterpret_cast<Multiply>(multiply)};
    reasons += "\n  " + file.string() + " was compiled from other sources than the library that loads it";
  }
  if (wanted && reasons.empty()) reasons = std::string("\n  ADATOM_CPU is '") + wanted + "', expected v2, v3 or v4";
  throw std::runtime_error("no CPU backend can be loaded; reinstall adatom, or unset ADATOM_CPU if it is set." + reasons);
}

/// Backends stay loaded for the life of the process: evaluators hold their code.
const Backend& backend() {
  static const Backend b = load();
  return b;
}

}  // namespace

std::unique_ptr<Evaluator> make_cpu_evaluator(std::shared_ptr<const Network> network, Scalar scalar) {
  return std::unique_ptr<Evaluator>(backend().make(std::move(network), scalar));
}

double cpu_fma_peak(bool single_precision, int threads) { return backend().fma_peak(single_precision, threads); }

void cpu_multiply(int m, int k, int n, const double* a, const double* b, double* c, bool accumulate) {
  backend().multiply(m, k, n, a, b, c, accumulate);
}

std::string cpu_backend_name() { return backend().name; }

}  // namespace adatom::gnn
