// SPDX-License-Identifier: MIT
#pragma once
#include <exception>
#include <string>

namespace adatom::gnn {

/// For a message: cut short where it is long.
inline std::string shortened(const std::string& text) {
  std::size_t longest = 200;
  if (text.size() <= longest) return text;
  while ((text[longest] & 0xC0) == 0x80) --longest;  // UTF-8: not within a character
  return text.substr(0, longest) + "...";
}

/// A JSON value for a message.
template <class Json>
std::string brief(const Json& value) {
  return shortened(value.dump(-1, ' ', true));  // ASCII, so that no character is cut in two
}

/// What an exception of the JSON library says, without its "[json.exception.type_error.302] ".
inline std::string reason(const std::exception& error) {
  const std::string text = error.what();
  const auto end = text.find("] ");
  return shortened(text.starts_with("[json.exception") && end != text.npos ? text.substr(end + 2) : text);  // what was read last can be all of the file
}

}  // namespace adatom::gnn
