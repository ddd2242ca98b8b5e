// SPDX-License-Identifier: MIT
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <vector>

#include "gnn/evaluator.hpp"
#include "gnn/network.hpp"
#include "gnn/threads.hpp"

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

/// An environment variable; "" if it is not set.
std::string environment(const char* name) {
  const char* x = std::getenv(name);
  return x ? x : "";
}

/// Where backends lie: beside the shared library that this function is in, or, for a module of a Python package, in its folder lib.
std::filesystem::path backend_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<const void*>(&cpu_backend_name), &info) || !info.dli_fname) return ".";
  const std::filesystem::path folder = std::filesystem::absolute(info.dli_fname).parent_path();
  return std::filesystem::exists(folder / "lib" / "libadatom_cpu_v2.so") ? folder / "lib" : folder;
}

using MakeEvaluator = Evaluator* (*)(std::shared_ptr<const Network>, Scalar, Threads&);
using Multiply = void (*)(int, int, int, const double*, const double*, double*, bool);
struct Backend {
  std::string name;
  MakeEvaluator make = nullptr;
  Multiply multiply = nullptr;
};

Backend load() {
  const std::string wanted = environment("ADATOM_CPU");
  std::string reasons;
  for (const Level& level : levels()) {
    if (!wanted.empty() && wanted != level.name) continue;
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
    void *make = dlsym(handle, "adatom_cpu_evaluator"), *multiply = dlsym(handle, "adatom_cpu_multiply"), *interface = dlsym(handle, "adatom_cpu_interface");
    if (make && multiply && interface && std::string(reinterpret_cast<const char* (*)()>(interface)()) == ADATOM_INTERFACE_ID)
      return {std::string("cpu-") + level.name, reinterpret_cast<MakeEvaluator>(make), reinterpret_cast<Multiply>(multiply)};
    reasons += "\n  " + file.string() + " was compiled from other sources than the library that loads it";
  }
  if (!wanted.empty() && reasons.empty()) reasons = "\n  ADATOM_CPU is '" + wanted + "', expected v2, v3 or v4";
  throw std::runtime_error("no CPU backend can be loaded; reinstall adatom, or unset ADATOM_CPU if it is set." + reasons);
}

/// Backends stay loaded for the life of the process: evaluators hold their code.
const Backend& backend() {
  static const Backend b = load();
  return b;
}

struct CudaBackend {
  Evaluator* (*make)(std::shared_ptr<const Network>, Scalar, Matmul) = nullptr;
  void (*device)(std::string&) = nullptr;
};

[[noreturn]] void fail_cuda(const std::string& why) { throw std::runtime_error("device cuda cannot be used: " + why); }

/// ADATOM_CUDA=host loads the host executor instead, which tests use: the same kernels, run by the CPU.
CudaBackend load_cuda() {
  const bool host = environment("ADATOM_CUDA") == "host";
  const std::filesystem::path file = backend_folder() / (host ? "libadatom_cuda_host.so" : "libadatom_cuda.so");
  if (!std::filesystem::exists(file))
    fail_cuda("this build of Adatom has no CUDA backend (" + file.string() + " is not there): install one that has, or build Adatom where nvcc is on the PATH");
  if (!host && !dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL))
    fail_cuda("there is no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded): use device cpu, or install the driver");
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail_cuda(dlerror());
  void *make = dlsym(handle, "adatom_cuda_evaluator"), *device = dlsym(handle, "adatom_cuda_device"), *interface = dlsym(handle, "adatom_cuda_interface");
  if (!make || !device || !interface || std::string(reinterpret_cast<const char* (*)()>(interface)()) != ADATOM_INTERFACE_ID)
    fail_cuda(file.string() + " was compiled from other sources than the library that loads it: reinstall adatom");
  return {reinterpret_cast<decltype(CudaBackend::make)>(make), reinterpret_cast<void (*)(std::string&)>(device)};
}

const CudaBackend& cuda_backend() {
  static const CudaBackend b = load_cuda();
  return b;
}

}  // namespace

std::unique_ptr<Evaluator> make_cpu_evaluator(std::shared_ptr<const Network> network, Scalar scalar) {
  return std::unique_ptr<Evaluator>(backend().make(std::move(network), scalar, threads()));
}

void cpu_multiply(int m, int k, int n, const double* a, const double* b, double* c, bool accumulate) { backend().multiply(m, k, n, a, b, c, accumulate); }

std::string cpu_backend_name() { return backend().name; }

std::string cuda_backend_name() {
  std::string name;
  const CudaBackend& cuda = cuda_backend();
  try {
    cuda.device(name);
  } catch (const std::runtime_error& error) {
    fail_cuda(error.what());
  }
  return name;
}

std::unique_ptr<Evaluator> make_cuda_evaluator(std::shared_ptr<const Network> network, Scalar scalar, Matmul matmul) {
  cuda_backend_name();  // throws if there is no device
  return std::unique_ptr<Evaluator>(cuda_backend().make(std::move(network), scalar, matmul));
}

}  // namespace adatom::gnn
