// SPDX-License-Identifier: MIT
#include "datasets/fingerprint.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <unordered_map>

#include "adatom/neighbor_list.hpp"
#include "datasets/random.hpp"
#include "datasets/xxhash.hpp"
#include "gnn/threads.hpp"

namespace adatom::datasets {
namespace {

constexpr double cutoff = 5.0;  // angstrom
constexpr int densities = 2, radials = 5, harmonics = 9, degrees = 3, channels = densities * radials * degrees;
static_assert(fingerprint_size == 2 * channels);

/// A number in [-1, 1) that belongs to an element.
double label(int z, std::uint64_t which) { return static_cast<double>(scatter(static_cast<std::uint64_t>(z) + (which << 32)) >> 11) * 0x1p-52 - 1; }

/// Real spherical harmonics up to l = 2, normalised so that the squares of each l sum to 1.
std::array<double, harmonics> spherical_harmonics(double x, double y, double z) {
  const double s = std::numbers::sqrt3;
  return {1, x, y, z, s * x * y, s * y * z, s * x * z, 0.5 * s * (x * x - y * y), 0.5 * (3 * z * z - 1)};
}

using Density = std::array<std::array<std::array<double, harmonics>, radials>, densities>;

void add_neighbor(Density& density, const Vector3& r_ij, double r, double element) {
  const auto y = spherical_harmonics(r_ij[0] / r, r_ij[1] / r, r_ij[2] / r);
  const double t = r / cutoff, f = 1 - t * t * t * (10 - 15 * t + 6 * t * t);  // two continuous derivatives at r_c
  // sin(k x) by recurrence: sin((k+1) x) = 2 cos(x) sin(k x) - sin((k-1) x).
  const double x = std::numbers::pi * t, two_cos = 2 * std::cos(x);
  double before = 0, now = std::sin(x);
  for (int k = 0; k < radials; ++k) {
    const double g = std::sqrt(2 / cutoff) * now / r * f;
    for (int lm = 0; lm < harmonics; ++lm) {
      density[0][k][lm] += g * y[lm];
      density[1][k][lm] += element * g * y[lm];
    }
    const double next = two_cos * now - before;
    before = now, now = next;
  }
}

std::array<double, channels> power_spectrum(const Density& density) {
  std::array<double, channels> p{};
  int channel = 0;
  for (const auto& of_density : density)
    for (const auto& c : of_density)
      for (int l = 0; l < degrees; ++l, ++channel)
        for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm) p[channel] += c[lm] * c[lm];
  return p;
}

double squared_norm(const Fingerprint& a) {
  double sum = 0;
  for (const float x : a) sum += static_cast<double>(x) * x;
  return sum;
}

/// The three values that vary most over the list.
std::array<int, 3> most_varied(const std::vector<Fingerprint>& list) {
  std::array<double, fingerprint_size> mean{}, variance{};
  for (const Fingerprint& a : list)
    for (int k = 0; k < fingerprint_size; ++k) mean[k] += a[k] / static_cast<double>(list.size());
  for (const Fingerprint& a : list)
    for (int k = 0; k < fingerprint_size; ++k) variance[k] += (a[k] - mean[k]) * (a[k] - mean[k]);
  std::array<int, fingerprint_size> order;
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + 3, order.end(), [&](int a, int b) { return variance[a] > variance[b]; });
  return {order[0], order[1], order[2]};
}

}  // namespace

std::uint64_t structure_hash(const Structure& s) {
  std::uint64_t hash = xxhash64(s.numbers.data(), s.numbers.size() * sizeof(int), s.pbc[0] + 2 * s.pbc[1] + 4 * s.pbc[2]);
  std::vector<Vector3> rows(s.cell.begin(), s.cell.end());
  rows.insert(rows.end(), s.positions.begin(), s.positions.end());
  for (Vector3& row : rows)
    for (double& x : row) x += 0.0;  // makes -0 to 0
  return xxhash64(rows.data(), rows.size() * sizeof(Vector3), hash);
}

Fingerprint fingerprint(const Structure& structure, double& nearest) {
  NeighborList list(cutoff);
  list.update(structure, 1);
  const auto n = structure.numbers.size();
  std::array<double, channels> mean{}, deviation{};
  double shortest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < n; ++i) {
    Density density{};
    for (std::int64_t e = list.first_edge()[i]; e < list.first_edge()[i + 1]; ++e) {
      const int j = list.sender()[e];
      Vector3 r_ij = list.shifts()[list.shift()[e]];
      for (int a = 0; a < 3; ++a) r_ij[a] += list.positions()[j][a] - list.positions()[i][a];
      const double r = std::sqrt(r_ij[0] * r_ij[0] + r_ij[1] * r_ij[1] + r_ij[2] * r_ij[2]);
      shortest = std::min(shortest, r);
      add_neighbor(density, r_ij, r, label(structure.numbers[j], 1));
    }
    const auto p = power_spectrum(density);
    const double weight = 1 + 0.5 * label(structure.numbers[i], 2);
    for (int c = 0; c < channels; ++c) {  // Welford's recurrence: no cancellation
      const double change = weight * p[c] - mean[c];
      mean[c] += change / static_cast<double>(i + 1);
      deviation[c] += change * (weight * p[c] - mean[c]);
    }
  }
  nearest = shortest;
  Fingerprint result;
  for (int c = 0; c < channels; ++c) {
    result[c] = static_cast<float>(mean[c]);
    result[channels + c] = static_cast<float>(std::sqrt(deviation[c] / static_cast<double>(n)));
  }
  return result;
}

double distance(const Fingerprint& a, const Fingerprint& b) {
  double sum = 0;
  for (int k = 0; k < fingerprint_size; ++k) sum += (static_cast<double>(a[k]) - b[k]) * (static_cast<double>(a[k]) - b[k]);
  const double larger = std::max(squared_norm(a), squared_norm(b));
  return larger > 0 ? std::sqrt(sum / larger) : 0;
}

std::vector<std::pair<std::size_t, std::size_t>> near_pairs(const std::vector<Fingerprint>& list, double tolerance) {
  std::vector<std::pair<std::size_t, std::size_t>> pairs;
  if (list.size() < 2 || !(tolerance >= 0)) return pairs;
  const auto axes = most_varied(list);
  double largest = 0;
  for (const Fingerprint& a : list) largest = std::max(largest, std::sqrt(squared_norm(a)));
  const double width = std::max(tolerance, 1e-7) * std::max(largest, 1e-30);  // float keeps seven digits
  const auto cell = [&](const Fingerprint& a) {
    std::array<std::int64_t, 3> index;
    for (int k = 0; k < 3; ++k) index[k] = static_cast<std::int64_t>(std::floor(a[axes[k]] / width));
    return index;
  };
  // Two cells that share a key only cost time: their members are compared anyway.
  const auto key = [](const std::array<std::int64_t, 3>& c) { return xxhash64(c.data(), sizeof(c)); };
  std::unordered_map<std::uint64_t, std::vector<std::size_t>> grid;
  for (std::size_t j = 0; j < list.size(); ++j) {
    gnn::threads().heed();
    const auto center = cell(list[j]);
    bool copy = false;
    for (int shift = 0; shift < 27 && !copy; ++shift) {
      const auto found = grid.find(key({center[0] + shift % 3 - 1, center[1] + shift / 3 % 3 - 1, center[2] + shift / 9 - 1}));
      if (found == grid.end()) continue;
      for (const std::size_t i : found->second) {
        if (distance(list[i], list[j]) > tolerance) continue;
        pairs.emplace_back(i, j);
        copy = true;
        break;
      }
    }
    // One that is near another is represented by it, so a crowd costs no more than its first member.
    if (!copy) grid[key(center)].push_back(j);
  }
  return pairs;
}

}  // namespace adatom::datasets
