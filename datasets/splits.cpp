// SPDX-License-Identifier: MIT
#include "datasets/splits.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "datasets/atomic_energies.hpp"
#include "datasets/disjoint_sets.hpp"
#include "datasets/random.hpp"
#include "datasets/text.hpp"
#include "datasets/xxhash.hpp"

namespace adatom::datasets {
namespace {

bool by_label(GroupBy group_by) { return group_by == GroupBy::config_type || group_by == GroupBy::group; }

/// Of the ratios of the elements.
std::uint64_t composition_hash(const Structure& structure) {
  Composition ratios = composition(structure);
  int divisor = 0;
  for (const auto& [z, atoms] : ratios) divisor = std::gcd(divisor, atoms);
  std::uint64_t hash = 0;
  for (const auto& [z, atoms] : ratios) hash = scatter(hash ^ scatter(static_cast<std::uint64_t>(z) << 32 | static_cast<std::uint64_t>(atoms / divisor)));
  return hash;
}

}  // namespace

Splitter::Splitter(const SplitOptions& options) : options_(options) {
  if (options_.parts.size() < 2) throw std::invalid_argument("a split needs at least 2 parts, got " + std::to_string(options_.parts.size()));
  for (const double part : options_.parts)
    if (!(part >= 0) || !std::isfinite(part)) throw std::invalid_argument("a part of a split is " + number_text(part) + ", expected a number from 0");
  if (options_.group_by == GroupBy::block && options_.block < 1)
    throw std::invalid_argument("blocks of " + std::to_string(options_.block) + " frames, expected at least 1");
}

void Splitter::add(const Frame& frame, const FrameReference& reference) {
  Row row;
  row.reference = reference;
  row.hash = structure_hash(frame.structure);
  row.composition = composition_hash(frame.structure);
  row.isolated = is_isolated_atom(frame);
  rows_.push_back(row);
  if (by_label(options_.group_by)) {
    labels_.push_back(options_.group_by == GroupBy::group ? frame.group : frame.config_type);
    without_label_ += labels_.back().empty() && !row.isolated;
  }
  if (options_.near_duplicates) {
    double nearest = 0;
    try {
      fingerprints_.push_back(fingerprint(frame.structure, nearest));
    } catch (const std::invalid_argument& error) {
      throw DataError("frame " + std::to_string(reference.index) + " has no neighbour list, so its near-duplicates cannot be found: " + error.what());
    }
  }
}

void Splitter::find_groups(DisjointSets& sets) const {
  std::unordered_map<std::uint64_t, std::size_t> first;
  std::unordered_map<std::string, std::size_t> first_label;
  std::map<std::pair<int, std::int64_t>, std::size_t> first_block;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    sets.join(first.emplace(rows_[i].hash, i).first->second, i);
    if (rows_[i].isolated) continue;
    if (by_label(options_.group_by) && !labels_[i].empty()) sets.join(first_label.emplace(labels_[i], i).first->second, i);
    if (options_.group_by == GroupBy::block)
      sets.join(first_block.emplace(std::pair(rows_[i].reference.source, rows_[i].reference.index / options_.block), i).first->second, i);
  }
}

void Splitter::find_near(DisjointSets& sets) const {
  std::map<std::uint64_t, std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < rows_.size(); ++i)
    if (!rows_[i].isolated) alike[rows_[i].composition].push_back(i);
  for (const auto& [composition, rows] : alike) {
    std::vector<Fingerprint> list;
    list.reserve(rows.size());
    for (const std::size_t i : rows) list.push_back(fingerprints_[i]);
    for (const auto& [a, b] : near_pairs(list, options_.near_tolerance)) sets.join(rows[a], rows[b]);
  }
}

std::vector<std::int64_t> Splitter::targets(std::int64_t frames) const {
  const auto& parts = options_.parts;
  const double sum = std::accumulate(parts.begin(), parts.end(), 0.0);
  std::vector<std::int64_t> sizes;
  if (std::abs(sum - 1) < 1e-9) {
    // Rounded so that the sizes add up: each end of a part is rounded, not its length.
    double share = 0;
    std::int64_t before = 0;
    for (const double part : parts) {
      share += part;
      const auto end = static_cast<std::int64_t>(std::llround(share * static_cast<double>(frames)));
      sizes.push_back(end - before);
      before = end;
    }
    return sizes;
  }
  const auto rest = std::count(parts.begin(), parts.end(), 0.0);
  const bool whole = std::all_of(parts.begin(), parts.end(), [](double part) { return part == std::floor(part); });
  const auto given = static_cast<std::int64_t>(sum);
  if (!whole || rest > 1 || given > frames || (rest == 0 && given != frames)) {
    std::string text;
    for (const double part : parts) text += (text.empty() ? "" : ", ") + number_text(part);
    throw DataError("a split of " + std::to_string(frames) + " frames into parts of " + text +
                    ": expected shares that add up to 1, or numbers of frames that add up to all of them (0 for one part that takes the rest)");
  }
  for (const double part : parts) sizes.push_back(part == 0 ? frames - given : static_cast<std::int64_t>(part));
  return sizes;
}

std::vector<int> Splitter::finish() {
  DisjointSets sets(rows_.size());
  find_groups(sets);
  if (options_.near_duplicates) find_near(sets);

  std::map<std::size_t, std::vector<std::size_t>> members;  // by root, which is the first member
  for (std::size_t i = 0; i < rows_.size(); ++i) members[sets.root(i)].push_back(i);
  units_ = static_cast<std::int64_t>(members.size());
  std::vector<std::int64_t> lacking = targets(static_cast<std::int64_t>(rows_.size()));
  std::vector<std::int64_t> sizes(lacking.size());
  std::vector<int> part(rows_.size());
  const auto deal = [&](const std::vector<std::size_t>& unit, std::size_t p) {
    for (const std::size_t i : unit) part[i] = static_cast<int>(p);
    lacking[p] -= static_cast<std::int64_t>(unit.size()), sizes[p] += static_cast<std::int64_t>(unit.size());
  };
  std::vector<const std::vector<std::size_t>*> units;
  for (const auto& [root, unit] : members) {
    if (std::any_of(unit.begin(), unit.end(), [this](std::size_t i) { return rows_[i].isolated; }))
      deal(unit, 0);
    else
      units.push_back(&unit);
  }
  Random random(options_.seed);
  shuffle(units, random);
  std::stable_sort(units.begin(), units.end(), [](const auto* a, const auto* b) { return a->size() > b->size(); });
  for (const auto* unit : units) deal(*unit, static_cast<std::size_t>(std::max_element(lacking.begin(), lacking.end()) - lacking.begin()));

  for (std::size_t p = 0; p < sizes.size(); ++p)
    if (sizes[p] == 0)
      throw DataError("part " + std::to_string(p) + " of the split is empty: " + std::to_string(rows_.size()) + " frames in " + std::to_string(units_) +
                      " groups are too few for " + std::to_string(sizes.size()) + " parts of these sizes: ask for other sizes or group by something smaller");
  return part;
}

}  // namespace adatom::datasets
