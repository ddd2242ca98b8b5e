// SPDX-License-Identifier: MIT
#include "datasets/key_values.hpp"

#include <stdexcept>

#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

char closing(char open) {
  switch (open) {
    case '"':
    case '\'': return open;
    case '{': return '}';
    case '[': return ']';
    default: return 0;
  }
}

/// Reads a delimited text that starts at `at` and moves behind it. False, with `at` unchanged, if it is never closed.
bool read_delimited(std::string_view text, std::size_t& at, std::string& value) {
  const char open = text[at], close = closing(open);
  const bool quotes = open == close;
  int depth = 1;
  value.clear();
  for (std::size_t i = at + 1; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && quotes && i + 1 < text.size()) {
      value += text[++i];
      continue;
    }
    if (c == close && --depth == 0) {
      at = i + 1;
      return true;
    }
    if (c == open && !quotes) ++depth;
    value += c;
  }
  return false;
}

std::string read_plain(std::string_view text, std::size_t& at, bool stops_at_equals) {
  const std::size_t start = at;
  while (at < text.size() && !is_blank(text[at]) && !(stops_at_equals && text[at] == '=')) ++at;
  return std::string(text.substr(start, at - start));
}

/// Whether the word at `at` is itself the key of a pair: `word=` or `word =`, but not `word==`, which may be the end of a text in base 64.
bool is_key(std::string_view text, std::size_t at) {
  const std::size_t start = at;
  if (closing(text[at])) {
    std::string word;
    if (!read_delimited(text, at, word)) return false;
  } else {
    while (at < text.size() && !is_blank(text[at]) && text[at] != '=') ++at;
  }
  if (at > start && text.substr(at, 2) == "==") return false;
  const std::size_t end = at;
  while (at < text.size() && is_blank(text[at])) ++at;
  return end > start && at < text.size() && text[at] == '=';
}

}  // namespace

void parse_key_values(std::string_view comment, std::vector<KeyValue>& pairs) {
  pairs.clear();
  std::size_t at = 0;
  const auto skip_blanks = [&] {
    while (at < comment.size() && is_blank(comment[at])) ++at;
  };
  for (skip_blanks(); at < comment.size(); skip_blanks()) {
    KeyValue& pair = pairs.emplace_back();
    if (!closing(comment[at]) || !read_delimited(comment, at, pair.key)) pair.key = read_plain(comment, at, at < comment.size() && comment[at] != '=');
    const std::size_t after_key = at;
    skip_blanks();
    if (at >= comment.size() || comment[at] != '=') {
      at = after_key;
      pair.bare = true;
      pair.value.assign(1, 'T');
      continue;
    }
    const std::size_t after_equals = ++at;
    skip_blanks();
    if (at >= comment.size() || (at > after_equals && is_key(comment, at))) continue;
    if (!closing(comment[at]))
      pair.value = read_plain(comment, at, false);
    else if (!read_delimited(comment, at, pair.value))
      throw std::invalid_argument("the value of the key " + in_quotes(pair.key) + " begins with " + comment[at] + " but has no closing " +
                                  closing(comment[at]));
  }
}

bool parse_numbers(std::string_view value, std::vector<double>& numbers) {
  numbers.clear();
  constexpr std::string_view json = "_JSON ";
  if (value.substr(0, json.size()) == json) value.remove_prefix(json.size());
  const auto separates = [](char c) { return is_blank(c) || c == ',' || c == '[' || c == ']' || c == '{' || c == '}' || c == '(' || c == ')'; };
  for (std::size_t at = 0; at < value.size();) {
    if (separates(value[at])) {
      ++at;
      continue;
    }
    std::size_t stop = at;
    while (stop < value.size() && !separates(value[stop])) ++stop;
    double number;
    if (!parse_number(value.substr(at, stop - at), number)) return false;
    numbers.push_back(number);
    at = stop;
  }
  return true;
}

std::string quote_value(std::string_view value) {
  if (!value.empty() && value.find_first_of(" \t\"'{}[]=\\,") == std::string_view::npos) return std::string(value);
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c == '\n' || c == '\r' ? ' ' : c;
  }
  return text + "\"";
}

}  // namespace adatom::datasets
