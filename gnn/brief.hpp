// SPDX-License-Identifier: MIT
#pragma once
#include <exception>
#include <string>

namespace adatom::gnn {

/// A JSON value for a message: its text, cut short where it is long.
template <class Json>
std::string brief(const Json& value) {
  constexpr std::size_t longest = 200;
  std::string text = value.dump(-1, ' ', true);  // ASCII, so that no character is cut in two
  if (text.size() > longest) text.replace(longest, text.npos, "...");
  return text;
}

/// What an exception of the JSON library says, without its "[json.exception.type_error.302] ".
inline std::string reason(const std::exception& error) {
  const std::string text = error.what();
  const auto end = text.find("] ");
  const std::string said = text.starts_with("[json.exception") && end != text.npos ? text.substr(end + 2) : text;
  constexpr std::size_t longest = 200;  // what was read last can be all of the file
  return said.size() > longest ? said.substr(0, longest) + "..." : said;
}

}  // namespace adatom::gnn
