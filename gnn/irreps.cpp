// SPDX-License-Identifier: MIT
#include "gnn/irreps.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <stdexcept>

namespace adatom::gnn {
namespace {

constexpr int max_degree = 99;
constexpr int max_multiplicity = 1'000'000;  // with max_degree, the dimension of an entry fits an int

std::string_view trim(std::string_view text) {
  constexpr std::string_view blanks = " \t\n\r";
  const auto first = text.find_first_not_of(blanks);
  return first == text.npos ? std::string_view{} : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

/// A decimal number 0..max, digits only; -1 for anything else.
int parse_number(std::string_view digits, int max) {
  int value = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value);
  return error == std::errc{} && stop == end && value >= 0 && value <= max && digits[0] != '-' ? value : -1;
}

}  // namespace

std::string Irrep::str() const { return std::to_string(l) + (p > 0 ? 'e' : 'o'); }

Irrep Irrep::parse(std::string_view text) {
  const auto word = trim(text);
  const char parity = word.empty() ? '\0' : word.back();
  const int l = word.empty() ? -1 : parse_number(word.substr(0, word.size() - 1), max_degree);
  if (l < 0 || (parity != 'e' && parity != 'o')) {
    throw std::invalid_argument("irrep \"" + std::string(text) + "\": expected a degree 0.." + std::to_string(max_degree) +
                                " followed by the parity e (even) or o (odd), such as 1o");
  }
  return {l, parity == 'e' ? 1 : -1};
}

bool operator<(const Irrep& a, const Irrep& b) { return a.l != b.l ? a.l < b.l : a.p < b.p; }

Irreps Irreps::parse(std::string_view text) {
  std::vector<MulIrrep> entries;
  if (trim(text).empty()) return Irreps{};
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find('+', begin), text.size());
    const auto word = trim(text.substr(begin, end - begin));
    const auto times = word.find('x');
    const int mul = times == word.npos ? 1 : parse_number(trim(word.substr(0, times)), max_multiplicity);
    if (word.empty() || mul < 0) {
      throw std::invalid_argument("irreps \"" + std::string(text) + "\": \"" + std::string(word) +
                                  "\" is not an entry of the form 128x1o with a multiplicity 0.." + std::to_string(max_multiplicity));
    }
    entries.push_back({mul, Irrep::parse(times == word.npos ? word : word.substr(times + 1))});
    begin = end + 1;
  }
  return Irreps(std::move(entries));
}

std::string Irreps::str() const {
  std::string text;
  for (const auto& [mul, ir] : entries_) {
    if (!text.empty()) text += '+';
    text += std::to_string(mul) + 'x' + ir.str();
  }
  return text;
}

int Irreps::count(Irrep ir) const {
  int channels = 0;
  for (const auto& entry : entries_) channels += entry.ir == ir ? entry.mul : 0;
  return channels;
}

int Irreps::dim() const {
  int sum = 0;
  for (const auto& entry : entries_) sum += entry.dim();
  return sum;
}

int Irreps::lmax() const {
  int l = -1;
  for (const auto& entry : entries_) l = std::max(l, entry.ir.l);
  return l;
}

std::vector<Irrep> Irreps::kinds() const {
  std::vector<Irrep> distinct;
  for (const auto& entry : entries_) {
    if (std::find(distinct.begin(), distinct.end(), entry.ir) == distinct.end()) distinct.push_back(entry.ir);
  }
  return distinct;
}

std::vector<Irrep> product(Irrep a, Irrep b) {
  std::vector<Irrep> irreps;
  for (int l = std::abs(a.l - b.l); l <= a.l + b.l; ++l) irreps.push_back({l, a.p * b.p});
  return irreps;
}

}  // namespace adatom::gnn
