// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace adatom {

/// SHA-256 (FIPS 180-4) of a stream of bytes.
class Sha256 {
 public:
  void update(const void* data, std::size_t bytes);
  std::string hex();  ///< 64 lower-case digits; ends the stream: call once

 private:
  void compress(const unsigned char* block);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> buffer_{};
  std::size_t buffered_ = 0;
  std::uint64_t total_ = 0;  // bytes
};

}  // namespace adatom
