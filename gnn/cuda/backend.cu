// SPDX-License-Identifier: MIT
// The functions of the backend that the core sees. Compiled by nvcc into the backend, and by a C++ compiler into the host executor.
#include "gnn/cuda/backend.hpp"

#include <cstdlib>
#include <sstream>

#include "gnn/cuda/device.hpp"
#include "gnn/cuda/runtime.hpp"

using namespace adatom::gnn;

/// The sources that this backend was compiled from; the core refuses any but its own.
extern "C" __attribute__((visibility("default"))) const char* adatom_cuda_interface() { return ADATOM_INTERFACE_ID; }

/// Returns an evaluator that the caller deletes. Throws std::exception.
extern "C" __attribute__((visibility("default"))) Evaluator* adatom_cuda_evaluator(std::shared_ptr<const Network> network, Scalar scalar, Matmul matmul) {
  switch (scalar) {
    case Scalar::float32: return cuda::make_float32(std::move(network), matmul);
    case Scalar::float64: return cuda::make_float64(std::move(network), matmul);
    case Scalar::dual32: return cuda::make_dual32(std::move(network), matmul);
    case Scalar::dual64: return cuda::make_dual64(std::move(network), matmul);
  }
  return nullptr;
}

/// The name of the device. Throws std::runtime_error that says why there is none to work with.
extern "C" __attribute__((visibility("default"))) void adatom_cuda_device(std::string& name) {
  cuda::DeviceFacts facts;
#ifdef __CUDACC__
  facts.runtime = CUDART_VERSION;
  cudaDriverGetVersion(&facts.driver);
  cuda::check_driver(facts);
  const cudaError_t status = cudaGetDeviceCount(&facts.count);
  if (status == cudaErrorNoDevice)
    facts.count = 0;
  else
    cuda::check(status, "looking for devices");
  if (facts.count > 0) {
    cudaDeviceProp properties{};
    facts.chosen = cuda::chosen_device();
    cuda::check(cudaGetDeviceProperties(&properties, facts.chosen), "asking what it is");
    facts.major = properties.major, facts.minor = properties.minor, facts.name = properties.name;
  }
#else
  facts = {13000, 13000, 1, 0, 9, 0, "host executor"};
  if (const char* text = std::getenv("ADATOM_HOST_DEVICE")) {  // driver, devices, compute capability: for tests of what is refused
    char comma;
    std::istringstream(text) >> facts.driver >> comma >> facts.count >> comma >> facts.major >> comma >> facts.minor;
  }
#endif
  name = cuda::check_device(facts);
}
