// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "adatom/export.hpp"

namespace adatom {

inline constexpr int max_atomic_number = 118;

/// Symbol of an element, e.g. 8 -> "O". Throws std::invalid_argument outside 1..118.
ADATOM_EXPORT std::string element_symbol(int atomic_number);

/// Atomic number of a symbol, e.g. "O" -> 8; case matters. Throws std::invalid_argument for anything else.
ADATOM_EXPORT int atomic_number(std::string_view symbol);

/// For messages: {1, 8} -> "H (1), O (8)"; numbers that are no element appear as they are.
ADATOM_EXPORT std::string element_names(const std::vector<int>& atomic_numbers);

}  // namespace adatom
