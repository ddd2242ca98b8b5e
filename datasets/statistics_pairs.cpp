// SPDX-License-Identifier: MIT
// Statistics: do energies, forces and stresses of frames that are near each other belong together?
//
// Atoms that move by u while the cell is strained by e have the energy  dE = -F . u + V s : e  up to third order, with forces F, stress s and volume V
// in the middle between both frames. u is what is left of the way when the atoms have followed the cell.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "datasets/statistics.hpp"

namespace adatom::datasets {
namespace {

constexpr double longest_step = 0.1;      // angstrom, of an atom between two frames of one cell
constexpr double longest_strained = 0.3;  // the same where the cell changes: a sign shows further
constexpr double largest_strain = 0.1;
constexpr double least_work = 1e-3;          // eV per frame; below it energies of DFT are noise
constexpr double least_compared = 1e-2;      // eV per frame, where the two are compared
constexpr std::size_t most_pairs = 100'000;  // of each head
constexpr std::size_t most_kept = 256;       // last frames of different compositions

double norm(const Vector3& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

Vector3 cross(const Vector3& a, const Vector3& b) { return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; }

double dot(const Vector3& a, const Vector3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

/// Rows k with  inverse[k] . cell[j] = 1 if j = k, else 0.
Matrix3 reciprocal(const Matrix3& cell) {
  const double v = dot(cell[0], cross(cell[1], cell[2]));
  Matrix3 result;
  for (int k = 0; k < 3; ++k) {
    result[k] = cross(cell[(k + 1) % 3], cell[(k + 2) % 3]);
    for (double& x : result[k]) x /= v;
  }
  return result;
}

/// Ways of the atoms, angstrom; across the boundaries by the shorter one. Of a periodic cell what is left when the atoms follow it.
std::vector<Vector3> ways(const Structure& now, const Structure& before, const Matrix3& middle) {
  const bool crystal = now.pbc[0] && now.pbc[1] && now.pbc[2];
  std::vector<Vector3> result(now.positions.size());
  const Matrix3 of_now = crystal ? reciprocal(now.cell) : Matrix3{}, of_before = crystal ? reciprocal(before.cell) : Matrix3{};
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (!crystal) {
      for (int x = 0; x < 3; ++x) result[i][x] = now.positions[i][x] - before.positions[i][x];
      continue;
    }
    for (int k = 0; k < 3; ++k) {
      double fraction = dot(of_now[k], now.positions[i]) - dot(of_before[k], before.positions[i]);
      fraction -= std::round(fraction);
      for (int x = 0; x < 3; ++x) result[i][x] += fraction * middle[k][x];
    }
  }
  return result;
}

/// Rank of each value among all, from 0.
std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> result(values.size());
  for (std::size_t k = 0; k < order.size(); ++k) result[order[k]] = static_cast<double>(k);
  return result;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  Range of_a, of_b;
  for (const double x : a) of_a.add(x);
  for (const double x : b) of_b.add(x);
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - of_a.mean) * (b[i] - of_b.mean);
  return sum / static_cast<double>(a.size()) / (of_a.deviation() * of_b.deviation());
}

}  // namespace

void Statistics::add_pair(const Frame& frame, const Row& row) {
  if (!frame.energy || frame.forces.empty() || row.isolated) return;
  const auto key = std::pair{row.head, row.composition};
  const auto found = last_.find(key);
  if (found == last_.end()) {
    if (last_.size() < most_kept) last_.emplace(key, frame);
    return;
  }
  compare(frame, found->second, pairs_[row.head]);
  found->second = frame;
}

void Statistics::compare(const Frame& frame, const Frame& last, Pairs& pairs) const {
  const Structure &now = frame.structure, &before = last.structure;
  if (now.numbers != before.numbers || now.pbc != before.pbc) return;
  const bool crystal = now.pbc[0] && now.pbc[1] && now.pbc[2], same_cell = now.cell == before.cell;
  if (!same_cell && !(crystal && frame.stress && last.stress)) return;
  if ((same_cell ? pairs.slopes.size() : pairs.strained.size()) >= most_pairs) return;
  Matrix3 middle, change;
  for (int k = 0; k < 3; ++k)
    for (int x = 0; x < 3; ++x) middle[k][x] = 0.5 * (now.cell[k][x] + before.cell[k][x]), change[k][x] = now.cell[k][x] - before.cell[k][x];
  double work = 0, longest = 0;
  const std::vector<Vector3> steps = ways(now, before, middle);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    for (int x = 0; x < 3; ++x) work -= 0.5 * (frame.forces[i][x] + last.forces[i][x]) * steps[i][x];
    longest = std::max(longest, norm(steps[i]));
  }
  const double rise = *frame.energy - *last.energy;
  if (same_cell) {
    if (!(longest < longest_step)) return;
    if (std::abs(work) > least_work) pairs.slopes.push_back(rise / work);
    const double larger = std::max(std::abs(rise), std::abs(work));
    if (larger > least_compared) pairs.mismatches.push_back(std::abs(rise - work) / larger);
    return;
  }
  // Rows of the cell change by  change = cell e, so that  e = sum_k reciprocal_k (x) change_k.
  const Matrix3 inverse = reciprocal(middle);
  constexpr int voigt[3][3] = {{0, 5, 4}, {5, 1, 3}, {4, 3, 2}};
  double of_stress = 0, largest = 0;
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y) {
      double strain = 0;
      for (int k = 0; k < 3; ++k) strain += inverse[k][x] * change[k][y];
      largest = std::max(largest, std::abs(strain));
      of_stress += 0.5 * ((*frame.stress)[voigt[x][y]] + (*last.stress)[voigt[x][y]]) * strain;
    }
  of_stress *= volume(middle);
  if (longest < longest_strained && largest < largest_strain && std::abs(of_stress) > least_compared) pairs.strained.emplace_back(rise - work, of_stress);
}

void Statistics::find_slopes() {
  for (std::size_t h = 0; h < heads_.size(); ++h) {
    HeadSummary& head = report_.heads[heads_[h]];
    auto& [slopes, mismatches, strained] = pairs_[h];
    if (!slopes.empty()) {
      head.slope.pairs = static_cast<std::int64_t>(slopes.size());
      head.slope.median = median(slopes), head.slope.q1 = quantile(slopes, 0.25), head.slope.q3 = quantile(slopes, 0.75);
    }
    head.slope.compared = static_cast<std::int64_t>(mismatches.size());
    if (!mismatches.empty()) head.slope.mismatch = median(mismatches);
    if (!strained.empty()) {
      std::vector<double> ratios;
      double sum = 0, weights = 0;
      for (const auto& [rise, of_stress] : strained) {
        ratios.push_back(rise / of_stress);
        sum += of_stress > 0 ? rise : -rise, weights += std::abs(of_stress);
      }
      head.stress_slope.pairs = static_cast<std::int64_t>(strained.size());
      head.stress_slope.median = median(ratios), head.stress_slope.weighted = sum / weights;
    }
  }
  find_pressures();
}

/// Of the composition with the most frames: how the trace of the stress goes with the volume.
void Statistics::find_pressures() {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::pair<std::vector<double>, std::vector<double>>> of_composition;
  for (const Row& row : rows_)
    if (row.stress_trace != 0 && row.volume > 0) {
      auto& [volumes, traces] = of_composition[{row.head, row.composition}];
      volumes.push_back(row.volume), traces.push_back(row.stress_trace);
    }
  for (const auto& [key, lists] : of_composition) {
    const auto& [volumes, traces] = lists;
    StressSlope& slope = report_.heads[heads_[key.first]].stress_slope;
    const auto [least, most] = std::minmax_element(volumes.begin(), volumes.end());
    if (volumes.size() < 3 || *most < 1.02 * *least || static_cast<std::int64_t>(volumes.size()) <= slope.frames) continue;
    slope.frames = static_cast<std::int64_t>(volumes.size());
    slope.volume_correlation = correlation(ranks(volumes), ranks(traces));
  }
}

}  // namespace adatom::datasets
