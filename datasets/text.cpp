// SPDX-License-Identifier: MIT
#include "datasets/text.hpp"

#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <type_traits>

#include "datasets/frame.hpp"

namespace adatom::datasets {
namespace {

constexpr std::size_t block_bytes = 1 << 20;
constexpr std::size_t longest_line = 64 << 20;
constexpr std::string_view compressed[] = {"\x1f\x8b", "BZh", "\xfd\x37zXZ", "PK\x03\x04", "\x28\xb5\x2f\xfd"};  // gzip, bzip2, xz, zip, zstd

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

template <class Number>
bool from_chars(std::string_view text, Number& value) {
  const bool plus = !text.empty() && text.front() == '+';  // std::from_chars does not take it
  if (plus) text.remove_prefix(1);
  if (plus && !text.empty() && text.front() == '-') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size()) return false;
  if constexpr (std::is_floating_point_v<Number>)
    if (error == std::errc::result_out_of_range) {  // 1e-400 is zero to double precision, 1e400 is not a number that anyone meant
      const std::size_t exponent = text.find_first_of("eE");
      value = 0;
      return exponent + 1 < text.size() && text[exponent + 1] == '-';
    }
  return error == std::errc();
}

}  // namespace

LineReader::LineReader(const std::filesystem::path& file) : file_(file), buffer_(block_bytes) {
  if (std::filesystem::is_directory(file)) throw DataError(file.string() + ": it is a folder: give a file in it");
  descriptor_ = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw DataError(file.string() + ": cannot open it: " + std::strerror(errno));
  try {
    start();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

LineReader::LineReader(const std::filesystem::path& name, ByteSource source) : file_(name), source_(std::move(source)), buffer_(block_bytes) { start(); }

LineReader::~LineReader() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void LineReader::start() {
  fill();
  const std::string_view text(buffer_.data(), last_);
  const auto begins = [text](std::string_view magic) { return text.substr(0, magic.size()) == magic; };
  if (std::any_of(std::begin(compressed), std::end(compressed), begins))
    throw DataError(file_.string() + ": it is compressed: unpack it first (gunzip, bunzip2, unxz, unzip, unzstd)");
  if (begins("\xef\xbb\xbf")) first_ = 3;
}

bool LineReader::fill() {
  if (end_of_file_) return false;
  // Only here does the text move, so the last line must not be needed any more.
  std::memmove(buffer_.data(), buffer_.data() + first_, last_ - first_);
  buffer_begin_ += first_, last_ -= first_, first_ = 0;
  if (last_ == buffer_.size()) {
    if (buffer_.size() >= longest_line)
      throw DataError(file_.string() + ": line " + std::to_string(number_ + 1) + " is longer than 64 MiB: it is no text file of configurations");
    buffer_.resize(2 * buffer_.size());
  }
  ssize_t n;
  if (source_) {
    n = static_cast<ssize_t>(source_(buffer_.data() + last_, buffer_.size() - last_));
    end_of_file_ = n == 0;
    last_ += static_cast<std::size_t>(n);
    return n > 0;
  }
  do n = ::read(descriptor_, buffer_.data() + last_, buffer_.size() - last_);
  while (n < 0 && errno == EINTR);
  if (n < 0) throw DataError(file_.string() + ": cannot read it after line " + std::to_string(number_) + ": " + std::strerror(errno));
  end_of_file_ = n == 0;
  last_ += static_cast<std::size_t>(n);
  return n > 0;
}

bool LineReader::next(std::string_view& line) {
  if (returned_) {
    returned_ = false;
    line = line_;
    return true;
  }
  const char* newline = nullptr;
  for (std::size_t searched = 0;;) {
    newline = static_cast<const char*>(std::memchr(buffer_.data() + first_ + searched, '\n', last_ - first_ - searched));
    if (newline) break;
    searched = last_ - first_;
    if (!fill()) break;
  }
  if (!newline && first_ == last_) return false;
  const char* start = buffer_.data() + first_;
  const char* stop = newline ? newline : buffer_.data() + last_;
  previous_ = begin_, begin_ = position(first_);
  first_ = static_cast<std::size_t>(stop - buffer_.data()) + (newline ? 1 : 0);
  ++number_;
  line_ = {start, static_cast<std::size_t>(stop - start)};
  if (!line_.empty() && line_.back() == '\r') line_.remove_suffix(1);
  if (std::memchr(line_.data(), '\0', line_.size()))
    throw DataError(file_.string() + ": line " + std::to_string(number_) + " has a zero byte: it is no text file of configurations");
  line = line_;
  return true;
}

std::string_view next_word(std::string_view& rest) {
  std::size_t start = 0;
  while (start < rest.size() && is_blank(rest[start])) ++start;
  std::size_t stop = start;
  while (stop < rest.size() && !is_blank(rest[stop])) ++stop;
  const std::string_view word = rest.substr(start, stop - start);
  rest.remove_prefix(stop);
  return word;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

bool parse_number(std::string_view text, double& value) {
  if (from_chars(text, value)) return true;
  // Fortran writes double precision with the exponent letter D.
  const std::size_t d = text.find_first_of("dD");
  std::array<char, 64> copy;
  if (d == std::string_view::npos || text.size() > copy.size()) return false;
  std::copy(text.begin(), text.end(), copy.begin());
  copy[d] = 'e';
  return from_chars(std::string_view(copy.data(), text.size()), value);
}

bool parse_number(std::string_view text, std::int64_t& value) { return from_chars(text, value); }

bool parse_bool(std::string_view text, bool& value) {
  for (const char* yes : {"T", "True", "TRUE", "true", ".true.", ".TRUE.", "1"})
    if (text == yes) return value = true;
  for (const char* no : {"F", "False", "FALSE", "false", ".false.", ".FALSE.", "0"})
    if (text == no) return value = false, true;
  return false;
}

void append_number(std::string& text, double value) {
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  text.append(digits.data(), end);
}

std::string number_text(double value) {
  std::string text;
  append_number(text, value);
  return text;
}

namespace {

/// Bytes of the UTF-8 character at the beginning of `text`; 0 if there is none. Overlong forms and surrogates are none.
std::size_t character_bytes(std::string_view text) {
  const auto at = [text](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char first = at(0);
  if (first < 0x80) return 1;
  const std::size_t n = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
  if (n == 0 || text.size() < n) return 0;
  for (std::size_t k = 1; k < n; ++k)
    if ((at(k) & 0xc0) != 0x80) return 0;
  const bool wrong = (first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) > 0x9f) || (first == 0xf0 && at(1) < 0x90) || (first == 0xf4 && at(1) > 0x8f);
  return wrong ? 0 : n;
}

}  // namespace

std::string to_utf8(std::string_view text) {
  if (std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) return std::string(text);  // nearly always
  bool good = true;
  for (std::size_t k = 0, n = 0; good && k < text.size(); k += n) n = character_bytes(text.substr(k)), good = n > 0;
  if (good) return std::string(text);
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) result += static_cast<char>(0xc0 | byte >> 6);
    result += static_cast<char>(byte >= 0x80 ? 0x80 | (byte & 0x3f) : byte);
  }
  return result;
}

std::string in_quotes(std::string_view text) {
  const std::string whole = to_utf8(text);
  std::size_t length = std::min<std::size_t>(whole.size(), 40);
  while (length < whole.size() && length > 0 && (static_cast<unsigned char>(whole[length]) & 0xc0) == 0x80) --length;  // no half character
  std::string result = "'";
  for (const char c : whole.substr(0, length)) result += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return result + (length < whole.size() ? "...'" : "'");
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

}  // namespace adatom::datasets
