// SPDX-License-Identifier: MIT
#include "datasets/xxhash.hpp"

#include <bit>
#include <cstring>

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

std::uint64_t xxhash64(const void* data, std::size_t bytes, std::uint64_t seed) {
  auto* p = static_cast<const unsigned char*>(data);
  auto* const end = p + bytes;
  std::uint64_t hash = seed + prime5;
  if (bytes >= 32) {
    std::uint64_t a = seed + prime1 + prime2, b = seed + prime2, c = seed, d = seed - prime1;
    for (; end - p >= 32; p += 32) {
      a = accumulate(a, load<std::uint64_t>(p));
      b = accumulate(b, load<std::uint64_t>(p + 8));
      c = accumulate(c, load<std::uint64_t>(p + 16));
      d = accumulate(d, load<std::uint64_t>(p + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  }
  hash += bytes;
  for (; end - p >= 8; p += 8) hash = std::rotl(hash ^ accumulate(0, load<std::uint64_t>(p)), 27) * prime1 + prime4;
  if (end - p >= 4) hash = std::rotl(hash ^ load<std::uint32_t>(p) * prime1, 23) * prime2 + prime3, p += 4;
  for (; p < end; ++p) hash = std::rotl(hash ^ *p * prime5, 11) * prime1;
  hash = (hash ^ hash >> 33) * prime2;
  hash = (hash ^ hash >> 29) * prime3;
  return hash ^ hash >> 32;
}

}  // namespace adatom::datasets
