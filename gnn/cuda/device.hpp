// SPDX-License-Identifier: MIT
#pragma once
#include <stdexcept>
#include <string>

namespace adatom::gnn::cuda {

/// What decides whether a device can be used. Versions as the CUDA runtime gives them: 1000 major + 10 minor.
struct DeviceFacts {
  int driver = 0, runtime = 0;
  int count = 0, chosen = 0;  ///< devices that can be seen; the one of this process
  int major = 0, minor = 0;   ///< compute capability
  std::string name;
};

/// Throws std::runtime_error for a driver that is too old. The rest can be asked for only if it does not.
inline void check_driver(const DeviceFacts& facts) {
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  if (facts.driver < facts.runtime / 1000 * 1000)  // a driver serves every runtime of its major version
    throw std::runtime_error("the NVIDIA driver is for CUDA " + version(facts.driver) + ", this build needs " + version(facts.runtime / 1000 * 1000) +
                             ": update the driver");
}

/// The device's name for people. Throws std::runtime_error that says why there is none to work with.
inline std::string check_device(const DeviceFacts& facts) {
  check_driver(facts);
  if (facts.count == 0) throw std::runtime_error("the NVIDIA driver sees no device: check nvidia-smi, and that CUDA_VISIBLE_DEVICES does not hide it");
  if (facts.major < 8)
    throw std::runtime_error("the device " + facts.name + " has compute capability " + std::to_string(facts.major) + "." + std::to_string(facts.minor) +
                             ", at least 8.0 is needed (A100, RTX 30 or newer): use another one (CUDA_VISIBLE_DEVICES), or device cpu");
  return "cuda (" + facts.name + (facts.count > 1 ? ", device " + std::to_string(facts.chosen) + " of " + std::to_string(facts.count) : "") + ")";
}

}  // namespace adatom::gnn::cuda
