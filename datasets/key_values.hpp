// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <vector>

/// The second line of an extxyz frame.
namespace adatom::datasets {

struct KeyValue {
  std::string key, value;
  bool bare = false;  ///< a word without `=`; true by convention
};

/// Splits `key=value key="quoted value" key={1 2 3} key=[[1, 2], [3, 4]] flag` as ASE does. Blanks may stand around `=`. Within quotes a
/// backslash takes the next character as it is. Brackets may nest; the outermost are dropped. What is no pair is a bare word, so that any free
/// comment passes. `key= word=...` is a key with an empty value, as ASE writes it, and the next pair. Throws std::invalid_argument for a quote or bracket after `=` that is never closed.
void parse_key_values(std::string_view comment, std::vector<KeyValue>& pairs);

/// The numbers of a value such as "1 2 3", "1, 2, 3", "[1, 2], [3, 4]" or "_JSON [[1, 2], [3, 4]]" (as ASE writes arrays). False if something else is in it.
bool parse_numbers(std::string_view value, std::vector<double>& numbers);

/// A value as it must be written to read back the same: quoted if it has blanks, quotes, brackets, `=`, or nothing.
std::string quote_value(std::string_view value);

}  // namespace adatom::datasets
