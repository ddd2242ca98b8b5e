// SPDX-License-Identifier: MIT
// The functions of the backend that the core sees. Compiled by nvcc into the backend, and by a C++ compiler into the host executor.
#include "gnn/cuda/backend.hpp"

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
#ifdef __CUDACC__
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  if (driver < CUDART_VERSION / 1000 * 1000)  // a driver serves every runtime of its major version
    throw std::runtime_error("the NVIDIA driver is for CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                             ", this build needs " + std::to_string(CUDART_VERSION / 1000) + ".0: update the driver");
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    throw std::runtime_error("the NVIDIA driver sees no device: check nvidia-smi, and that CUDA_VISIBLE_DEVICES does not hide it");
  cuda::check(status, "looking for devices");
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, cuda::chosen_device()), "asking what it is");
  if (properties.major < 8)
    throw std::runtime_error(std::string("the device ") + properties.name + " has compute capability " + std::to_string(properties.major) + "." +
                             std::to_string(properties.minor) + ", at least 8.0 is needed (A100, RTX 30 or newer)");
  name = std::string("cuda (") + properties.name + (count > 1 ? ", device " + std::to_string(cuda::chosen_device()) + " of " + std::to_string(count) : "") + ")";
#else
  name = "cuda (host executor)";
#endif
}
