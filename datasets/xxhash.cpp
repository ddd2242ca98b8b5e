// SPDX-License-Identifier: MIT
#include "datasets/xxhash.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "datasets/frame.hpp"

namespace adatom::datasets {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

// The specification's five primes.
constexpr std::uint64_t prime1 = 0x9E3779B185EBCA87, prime2 = 0xC2B2AE3D27D4EB4F, prime3 = 0x165667B19E3779F9, prime4 = 0x85EBCA77C2B2AE63,
                        prime5 = 0x27D4EB2F165667C5;

template <class Word>
std::uint64_t load(const unsigned char* p) {
  Word word;
  std::memcpy(&word, p, sizeof(Word));
  return word;
}

std::uint64_t accumulate(std::uint64_t lane, std::uint64_t word) { return std::rotl(lane + word * prime2, 31) * prime1; }

std::uint64_t merge(std::uint64_t hash, std::uint64_t lane) { return (hash ^ accumulate(0, lane)) * prime1 + prime4; }

}  // namespace

XxHash64::XxHash64(std::uint64_t seed) : lanes_{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}, seed_(seed) {}

void XxHash64::stripe(const unsigned char* p) {
  for (int k = 0; k < 4; ++k) lanes_[k] = accumulate(lanes_[k], load<std::uint64_t>(p + 8 * k));
}

void XxHash64::update(const void* data, std::size_t bytes) {
  auto* p = static_cast<const unsigned char*>(data);
  auto* const end = p + bytes;
  total_ += bytes;
  if (waiting_ > 0) {
    const std::size_t n = std::min(bytes, sizeof(rest_) - waiting_);
    std::memcpy(rest_ + waiting_, p, n);
    p += n, waiting_ += n;
    if (waiting_ < sizeof(rest_)) return;
    stripe(rest_);
    waiting_ = 0;
  }
  for (; end - p >= 32; p += 32) stripe(p);
  waiting_ = static_cast<std::size_t>(end - p);
  if (waiting_ > 0) std::memcpy(rest_, p, waiting_);
}

std::uint64_t XxHash64::digest() const {
  std::uint64_t hash = seed_ + prime5;
  if (total_ >= 32) {
    const auto& [a, b, c, d] = lanes_;
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  }
  hash += total_;
  const unsigned char *p = rest_, *const end = rest_ + waiting_;
  for (; end - p >= 8; p += 8) hash = std::rotl(hash ^ accumulate(0, load<std::uint64_t>(p)), 27) * prime1 + prime4;
  if (end - p >= 4) hash = std::rotl(hash ^ load<std::uint32_t>(p) * prime1, 23) * prime2 + prime3, p += 4;
  for (; p < end; ++p) hash = std::rotl(hash ^ *p * prime5, 11) * prime1;
  hash = (hash ^ hash >> 33) * prime2;
  hash = (hash ^ hash >> 29) * prime3;
  return hash ^ hash >> 32;
}

std::uint64_t xxhash64(const void* data, std::size_t bytes, std::uint64_t seed) {
  XxHash64 hash(seed);
  hash.update(data, bytes);
  return hash.digest();
}

std::string file_hash(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  XxHash64 hash;
  std::vector<char> block(1 << 20);
  while (in) {
    in.read(block.data(), static_cast<std::streamsize>(block.size()));
    hash.update(block.data(), static_cast<std::size_t>(in.gcount()));
  }
  if (!in.eof()) throw DataError("cannot read '" + file.string() + "': " + std::strerror(errno));
  return hash_text(hash.digest());
}

std::string hash_text(std::uint64_t sum) {
  std::string text = "xxh64:";
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[sum >> shift & 15];
  return text;
}

}  // namespace adatom::datasets
