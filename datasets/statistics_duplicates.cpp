// SPDX-License-Identifier: MIT
// Statistics: which frames are the same.
#include <algorithm>
#include <numeric>

#include "datasets/disjoint_sets.hpp"
#include "datasets/statistics.hpp"

namespace adatom::datasets {

DuplicateSet Statistics::duplicate_set(const std::vector<std::size_t>& rows) const {
  DuplicateSet set;
  std::map<std::uint32_t, Range> energies;  // of each head
  for (const std::size_t i : rows) {
    const Row& row = rows_[i];
    set.frames.push_back(row.reference);
    set.several_sources = set.several_sources || row.reference.source != set.frames.front().source;
    if (row.has_energy) energies[row.head].add(row.energy / row.atoms);
  }
  for (const auto& [head, energy] : energies) set.energy_spread = std::max(set.energy_spread, energy.max - energy.min);
  return set;
}

void Statistics::find_duplicates() {
  std::unordered_map<std::uint64_t, std::size_t> first;
  DisjointSets same(rows_.size());
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const auto [found, is_new] = first.emplace(rows_[i].hash, i);
    if (!is_new) same.join(found->second, i);
  }
  for (const auto& rows : same.sets()) report_.duplicates.push_back(duplicate_set(rows));
}

void Statistics::find_near_duplicates() {
  // Repeated cells are the same structure, so only the ratios of the elements count. Isolated atoms all look alike.
  std::map<Composition, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    if (rows_[i].isolated) continue;
    Composition reduced = compositions_[rows_[i].composition];
    int divisor = 0;
    for (const auto& [z, atoms] : reduced) divisor = std::gcd(divisor, atoms);
    for (auto& [z, atoms] : reduced) atoms /= divisor;
    alike[reduced].push_back(i);
  }
  DisjointSets near(rows_.size());
  for (const auto& [composition, rows] : alike) {
    std::vector<Fingerprint> list;
    list.reserve(rows.size());
    for (const std::size_t i : rows) list.push_back(fingerprints_[i]);
    for (const auto& [a, b] : near_pairs(list, options_.near_tolerance)) near.join(rows[a], rows[b]);
  }
  for (const auto& rows : near.sets()) {
    const bool copies = std::all_of(rows.begin(), rows.end(), [&](std::size_t i) { return rows_[i].hash == rows_[rows.front()].hash; });
    if (!copies) report_.near_duplicates.push_back(duplicate_set(rows));
  }
}

}  // namespace adatom::datasets
