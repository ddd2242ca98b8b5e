// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace adatom::datasets {

/// XXH64 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md) of bytes that come in pieces: a fast checksum against accidents, not against an attacker.
class XxHash64 {
 public:
  explicit XxHash64(std::uint64_t seed = 0);
  void update(const void* data, std::size_t bytes);
  std::uint64_t digest() const;  ///< of all so far

 private:
  void stripe(const unsigned char* p);

  std::array<std::uint64_t, 4> lanes_;
  std::uint64_t seed_, total_ = 0;
  unsigned char rest_[32];  // bytes that do not fill a stripe yet
  std::size_t waiting_ = 0;
};

std::uint64_t xxhash64(const void* data, std::size_t bytes, std::uint64_t seed = 0);

std::string hash_text(std::uint64_t sum);  ///< "xxh64:" and 16 hex digits

/// Of the bytes of a file: "xxh64:" and 16 hex digits. Throws DataError if it cannot be read.
std::string file_hash(const std::filesystem::path& file);

}  // namespace adatom::datasets
