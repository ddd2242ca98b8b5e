// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

/// Text files: lines, words and numbers.
namespace adatom::datasets {

/// Puts at most `bytes` bytes of a text at `data` and returns their number; 0 at its end.
using ByteSource = std::function<std::size_t(char* data, std::size_t bytes)>;

/// Lines of a file, read in blocks: the memory is one block, or the longest line if that is longer.
class LineReader {
 public:
  /// Throws DataError if the file cannot be opened, is a folder, or is compressed.
  explicit LineReader(const std::filesystem::path& file);
  /// Lines of a text that comes from elsewhere, such as a compressed file; `name` is for messages.
  LineReader(const std::filesystem::path& name, ByteSource source);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// The next line without its end (\n or \r\n) and without a byte-order mark; valid until the next call. False at the end of the file.
  /// Throws DataError if reading fails, and for a line of more than 64 MiB or with a zero byte: the file is no text.
  bool next(std::string_view& line);
  void put_back() { returned_ = true; }  ///< the last line comes again

  std::int64_t number() const { return number_ - (returned_ ? 1 : 0); }        ///< of the last line, from 1
  std::uint64_t begin() const { return returned_ ? previous_ : begin_; }       ///< byte at which the last line begins
  std::uint64_t end() const { return returned_ ? begin_ : position(first_); }  ///< byte after the last line and its end

 private:
  bool fill();
  void start();
  std::uint64_t position(std::size_t in_buffer) const { return buffer_begin_ + in_buffer; }

  std::filesystem::path file_;
  ByteSource source_;  // empty: the file itself
  int descriptor_ = -1;
  std::vector<char> buffer_;
  std::size_t first_ = 0, last_ = 0;  // what is not yet handed out: buffer_[first_, last_)
  std::uint64_t buffer_begin_ = 0;    // byte of the file at buffer_[0]
  std::uint64_t begin_ = 0, previous_ = 0;
  std::int64_t number_ = 0;
  std::string_view line_;
  bool returned_ = false, end_of_file_ = false;
};

/// The next word of `rest`, which it shortens; empty if there is none. Words are separated by blanks and tabs.
std::string_view next_word(std::string_view& rest);

std::string_view trim(std::string_view text);

/// Whole-text numbers: "1.5", "+2", "-1e-3", Fortran's "1.0D-03" and ".5", "nan", "inf". False for anything else.
bool parse_number(std::string_view text, double& value);
bool parse_number(std::string_view text, std::int64_t& value);

/// T, True, TRUE, true, .true., 1 and their counterparts.
bool parse_bool(std::string_view text, bool& value);

/// Shortest text that reads back to the same bits.
std::string number_text(double value);
void append_number(std::string& text, double value);

/// A text whose bytes are not UTF-8, taken for Latin-1; any other as it is. Python's texts, JSON and the terminal take nothing but UTF-8.
std::string to_utf8(std::string_view text);

/// For messages: at most 40 bytes of a text as UTF-8, in quotes, with unprintable bytes replaced.
std::string in_quotes(std::string_view text);

/// Three digits, for messages.
std::string short_number(double value);

}  // namespace adatom::datasets
