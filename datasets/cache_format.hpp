// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <bit>
#include <cstdint>

/// The bytes of a training cache, docs/training_cache.md. Everything is little endian and starts at multiples of 8.
///
///     Head       16 bytes
///     records    one per frame: Record, then double positions[n][3], forces[n][3] and charges[n] if there are any, uint8 numbers[n], zeros to 8
///     index      one IndexEntry per frame
///     metadata   JSON, blanks to 8
///     Foot       72 bytes, the last of the file
///
/// The foot comes last so that the file is written in one go, without knowing the number of frames before.
namespace adatom::datasets::cache_format {

static_assert(std::endian::native == std::endian::little, "numbers are read and written as they lie in memory");

inline constexpr std::array<char, 8> magic = {'A', 'd', 'a', 't', 'o', 'm', 'D', 'S'};
inline constexpr std::array<char, 8> end_magic = {'S', 'D', 'm', 'o', 't', 'a', 'd', 'A'};
inline constexpr std::uint32_t version = 1;

struct Head {
  std::array<char, 8> magic = cache_format::magic;
  std::uint32_t version = cache_format::version;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Head) == 16);

struct Record {
  std::array<double, 9> cell{};
  double energy = 0;
  std::array<double, 6> stress{};
  std::array<double, 4> weights{};  // config, energy, forces, stress
  std::uint32_t group = 0;          // number in the metadata's list "groups"
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Record) == 168);

/// Bits of IndexEntry::flags. Bits 0 to 2: periodic along each vector.
enum Flag : std::uint16_t { has_energy = 8, has_forces = 16, has_stress = 32, has_charges = 64 };
inline constexpr std::uint16_t known_flags = 127;

struct IndexEntry {
  std::uint64_t offset = 0;    // of the record, from the start of the file
  std::uint64_t checksum = 0;  // XXH64 of the record
  std::uint32_t atoms = 0;
  std::uint32_t config_type = 0;  // number in the metadata's list "config_types"
  std::uint16_t head = 0;         // number in the metadata's list "heads"
  std::uint16_t flags = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(IndexEntry) == 32);

struct Foot {
  std::uint64_t frames = 0;
  std::uint64_t index_offset = 0;
  std::uint64_t metadata_offset = 0, metadata_bytes = 0;
  std::uint64_t file_bytes = 0;
  std::uint64_t index_checksum = 0, metadata_checksum = 0;
  std::uint64_t foot_checksum = 0;  // of the bytes of the foot before it
  std::array<char, 8> end_magic = cache_format::end_magic;
};
static_assert(sizeof(Foot) == 72);

constexpr std::uint64_t padded(std::uint64_t bytes) { return (bytes + 7) / 8 * 8; }

constexpr std::uint64_t record_bytes(std::uint64_t atoms, std::uint16_t flags) {
  return sizeof(Record) + atoms * (24 + (flags & has_forces ? 24 : 0) + (flags & has_charges ? 8 : 0)) + padded(atoms);
}

}  // namespace adatom::datasets::cache_format
