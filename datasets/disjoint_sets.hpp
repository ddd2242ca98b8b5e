// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace adatom::datasets {

/// Disjoint sets of 0 .. n-1.
class DisjointSets {
 public:
  explicit DisjointSets(std::size_t n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), std::size_t{0}); }

  std::size_t root(std::size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];  // halves the path
    return i;
  }
  /// The smaller root stays, so that the result does not depend on the order of joins.
  void join(std::size_t i, std::size_t j) {
    i = root(i), j = root(j);
    if (i != j) parent_[std::max(i, j)] = std::min(i, j);
  }
  /// Members of each set with more than one, ascending, sets by their first member.
  std::vector<std::vector<std::size_t>> sets() {
    std::vector<std::vector<std::size_t>> of_root(parent_.size()), result;
    for (std::size_t i = 0; i < parent_.size(); ++i) of_root[root(i)].push_back(i);
    for (auto& members : of_root)
      if (members.size() > 1) result.push_back(std::move(members));
    return result;
  }

 private:
  std::vector<std::size_t> parent_;
};

}  // namespace adatom::datasets
