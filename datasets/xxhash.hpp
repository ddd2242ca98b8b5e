// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>

namespace adatom::datasets {

/// XXH64 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md): a fast checksum against accidents, not against an attacker.
std::uint64_t xxhash64(const void* data, std::size_t bytes, std::uint64_t seed = 0);

}  // namespace adatom::datasets
