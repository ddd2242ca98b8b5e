// SPDX-License-Identifier: MIT
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace adatom::gnn {

/// An irreducible representation of O(3): degree l >= 0 and parity p = +1 (e) or -1 (o).
struct Irrep {
  int l = 0;
  int p = 1;
  int dim() const { return 2 * l + 1; }
  std::string str() const;
  static Irrep parse(std::string_view text);  ///< "1o"; throws std::invalid_argument
  friend bool operator==(const Irrep&, const Irrep&) = default;
};

/// By degree, then parity (odd first), as e3nn compares irreps.
bool operator<(const Irrep& a, const Irrep& b);

struct MulIrrep {
  int mul = 0;
  Irrep ir;
  int dim() const { return mul * ir.dim(); }
};

/// A direct sum such as "128x0e+128x1o". Entries keep their order and are not merged.
class Irreps {
 public:
  Irreps() = default;
  explicit Irreps(std::vector<MulIrrep> entries) : entries_(std::move(entries)) {}
  static Irreps parse(std::string_view text);  ///< "" gives no entries; throws std::invalid_argument
  std::string str() const;

  int count(Irrep ir) const;  ///< channels of this irrep, over all entries
  int dim() const;
  int lmax() const;  ///< -1 if empty
  std::size_t size() const { return entries_.size(); }
  const MulIrrep& operator[](std::size_t i) const { return entries_[i]; }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }
  std::vector<Irrep> kinds() const;  ///< distinct irreps in order of first appearance

 private:
  std::vector<MulIrrep> entries_;
};

/// Irreps in a (x) b, |la-lb| .. la+lb, parity pa*pb, ascending l.
std::vector<Irrep> product(Irrep a, Irrep b);

}  // namespace adatom::gnn
