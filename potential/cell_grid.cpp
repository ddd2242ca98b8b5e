// SPDX-License-Identifier: MIT
#include "potential/cell_grid.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "potential/number_text.hpp"

namespace adatom {
namespace {

constexpr double least_volume_ratio = 1e-10;          // of |a . (b x c)| to |a| |b| |c|: below, the vectors count as dependent
constexpr double largest_coordinate = 1e8;            // cells (or angstrom): beyond, a double keeps fewer than eight digits of a bond length
constexpr double largest_image_count = 1e7;           // images of the cell that a search may visit
constexpr int most_images = 511;                      // along a vector, of a search on a device (gnn/cuda/search.hpp)
constexpr double bins_per_atom = 8, least_bins = 64;  // bounds the memory of a nearly empty cell

double dot(const Vector3& a, const Vector3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
double norm(const Vector3& a) { return std::sqrt(dot(a, a)); }
Vector3 cross(const Vector3& a, const Vector3& b) { return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; }
Vector3 unit(const Vector3& a) { return {a[0] / norm(a), a[1] / norm(a), a[2] / norm(a)}; }
bool finite(const Vector3& a) { return std::isfinite(a[0]) && std::isfinite(a[1]) && std::isfinite(a[2]); }

std::string text(const Vector3& a) {
  std::ostringstream out;
  out << "(" << a[0] << ", " << a[1] << ", " << a[2] << ")";
  return out.str();
}

/// A unit vector perpendicular to all of `others` (at most two).
Vector3 perpendicular(const std::vector<Vector3>& others) {
  if (others.empty()) return {1, 0, 0};
  if (others.size() == 2) return unit(cross(others[0], others[1]));
  // Any axis that is not nearly parallel will do.
  const Vector3 a = unit(others[0]);
  Vector3 axis{};
  const auto smallest = std::min_element(a.begin(), a.end(), [](double p, double q) { return std::abs(p) < std::abs(q); });
  axis[smallest - a.begin()] = 1;
  return unit(cross(a, axis));
}

}  // namespace

Lattice::Lattice(const Matrix3& cell, const std::array<bool, 3>& periodic) : pbc(periodic), vectors(cell) {
  const auto fail = [](int k, const std::string& what) { throw std::invalid_argument("cell vector " + std::to_string(k) + " " + what); };
  std::vector<Vector3> known;
  double lengths = 1;
  for (int k = 0; k < 3; ++k) {
    if (!finite(cell[k])) fail(k, text(cell[k]) + " is not finite: check the structure that was read or the step that made it");
    if (!pbc[k]) continue;
    if (!(norm(cell[k]) > 0)) fail(k, "is zero, but the structure is periodic along it: set the vector, or pbc[" + std::to_string(k) + "] to false");
    lengths *= norm(cell[k]);
    known.push_back(cell[k]);
  }
  // The volume spanned by the periodic vectors: of the cell, of a face, or a length.
  const double spanned = known.size() == 3 ? std::abs(dot(known[0], cross(known[1], known[2]))) : known.size() == 2 ? norm(cross(known[0], known[1])) : lengths;
  if (!(spanned > least_volume_ratio * lengths)) {
    std::string names;
    for (int k = 0; k < 3; ++k)
      if (pbc[k]) names += (names.empty() ? "" : ", ") + std::to_string(k) + " " + text(cell[k]);
    throw std::invalid_argument("the periodic cell vectors " + names + " are linearly dependent: a periodic cell needs a volume (in a plane, an area)");
  }
  for (int k = 0; k < 3; ++k) {
    if (pbc[k]) continue;
    vectors[k] = perpendicular(known);
    known.push_back(vectors[k]);
  }
  const double volume = dot(vectors[0], cross(vectors[1], vectors[2]));
  for (int k = 0; k < 3; ++k) {
    const Vector3 face = cross(vectors[(k + 1) % 3], vectors[(k + 2) % 3]);
    reciprocal[k] = {face[0] / volume, face[1] / volume, face[2] / volume};
    heights[k] = 1 / norm(reciprocal[k]);
  }
}

/// Fractional coordinate k of atom i. Throws std::invalid_argument for a position that is impossible.
static double fractional_coordinate(const Lattice& lattice, const Vector3& r, std::size_t i, int k) {
  if (!finite(r))
    throw std::invalid_argument("position of atom " + std::to_string(i) + " (counted from 0) is " + text(r) +
                                ", not finite: check the structure that was read or the step that made it");
  const double s = dot(lattice.reciprocal[k], r);
  if (!(std::abs(s) <= largest_coordinate))
    throw std::invalid_argument("atom " + std::to_string(i) + " (counted from 0) at " + text(r) + " lies " + number_text(s) +
                                (lattice.pbc[k] ? " cells" : " angstrom") + " from the origin, too far for double precision: wrap it into the cell");
  return s;
}

void CellGrid::wrap(const Lattice& lattice, const std::vector<Vector3>& positions, std::vector<Vector3>& fractional) {
  const auto n = positions.size();
  fractional.resize(n), wrapped.resize(n), wraps.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Vector3& r = positions[i];
    wrapped[i] = r;
    for (int k = 0; k < 3; ++k) {
      const double s = fractional_coordinate(lattice, r, i, k);
      wraps[i][k] = lattice.pbc[k] ? static_cast<int>(std::floor(s)) : 0;
      fractional[i][k] = s - wraps[i][k];
      for (int a = 0; a < 3; ++a) wrapped[i][a] -= wraps[i][k] * lattice.vectors[k][a];
    }
  }
}

BinCounts::BinCounts(const Lattice& lattice, const Vector3& extent, std::size_t atoms, double range) {
  // A hair wider than range / 2, so that rounding never calls for a third bin.
  const double width = 0.5 * range * (1 + 1e-9);
  const auto product = [](const std::array<int, 3>& v) { return double(v[0]) * v[1] * v[2]; };
  for (int k = 0; k < 3; ++k) bins[k] = static_cast<int>(std::clamp(extent[k] * lattice.heights[k] / width, 1.0, 1e6));
  while (product(bins) > bins_per_atom * double(atoms) + least_bins) {
    int& most = *std::max_element(bins.begin(), bins.end());
    most = (most + 1) / 2;
  }
  double image_count = 1;
  for (int k = 0; k < 3; ++k) {
    const double reached = std::ceil(range * bins[k] / (extent[k] * lattice.heights[k]));
    if (!lattice.pbc[k]) {
      reach[k] = static_cast<int>(std::min(reached, bins[k] - 1.0));  // also for an extent of zero
      continue;
    }
    image_count *= 2 * std::ceil(reached / bins[k]) + 1;
    if (image_count > largest_image_count)
      throw std::invalid_argument("cell vector " + std::to_string(k) + " " + text(lattice.vectors[k]) + " spans a height of " +
                                  number_text(lattice.heights[k]) + " angstrom, too small for a cutoff of " + number_text(range) +
                                  " angstrom: is the cell in angstrom?");
    reach[k] = static_cast<int>(reached);
    images[k] = (reach[k] + bins[k] - 1) / bins[k];
  }
}

CellGrid::CellGrid(const Lattice& lattice, const std::vector<Vector3>& positions, double range) {
  std::vector<Vector3> fractional;
  wrap(lattice, positions, fractional);
  Vector3 low, extent;
  find_box(
      lattice, positions.size(), [&](std::size_t i, int k) { return fractional[i][k]; }, low, extent);
  const BinCounts counts(lattice, extent, positions.size(), range);
  bins = counts.bins, reach = counts.reach, images = counts.images;

  bin.resize(positions.size());
  for (std::size_t i = 0; i < positions.size(); ++i)
    for (int k = 0; k < 3; ++k) bin[i][k] = bins[k] == 1 ? 0 : std::clamp(static_cast<int>((fractional[i][k] - low[k]) / extent[k] * bins[k]), 0, bins[k] - 1);
  sort_atoms();

  for (int a = -images[0]; a <= images[0]; ++a)
    for (int b = -images[1]; b <= images[1]; ++b)
      for (int c = -images[2]; c <= images[2]; ++c) image_cells.push_back({a, b, c});
  for (const auto& h : image_cells) {
    Vector3& t = translations.emplace_back();
    for (int k = 0; k < 3; ++k)
      for (int a = 0; a < 3; ++a) t[a] += h[k] * lattice.vectors[k][a];
  }
}

void CellGrid::sort_atoms() {
  const int n = static_cast<int>(bin.size());
  const auto linear = [this](int i) { return (static_cast<std::size_t>(bin[i][0]) * bins[1] + bin[i][1]) * bins[2] + bin[i][2]; };
  first.assign(static_cast<std::size_t>(bins[0]) * bins[1] * bins[2] + 1, 0);
  for (int i = 0; i < n; ++i) ++first[linear(i) + 1];
  for (std::size_t b = 1; b < first.size(); ++b) first[b] += first[b - 1];
  atom.resize(n), x.resize(n), y.resize(n), z.resize(n);
  std::vector<int> next(first.begin(), first.end() - 1);
  for (int i = 0; i < n; ++i) {
    const int p = next[linear(i)]++;
    atom[p] = i, x[p] = wrapped[i][0], y[p] = wrapped[i][1], z[p] = wrapped[i][2];
  }
}

gnn::SearchBox search_box(const Structure& structure, double range) {
  const Lattice lattice(structure.cell, structure.pbc);
  Vector3 low, extent;
  find_box(
      lattice, structure.positions.size(), [&](std::size_t i, int k) { return fractional_coordinate(lattice, structure.positions[i], i, k); }, low, extent);
  const BinCounts counts(lattice, extent, structure.positions.size(), range);
  gnn::SearchBox box{};
  for (int k = 0; k < 3; ++k) {
    std::copy_n(lattice.vectors[k].begin(), 3, box.vectors + 3 * k);
    std::copy_n(lattice.reciprocal[k].begin(), 3, box.reciprocal + 3 * k);
    box.low[k] = low[k], box.inverse_extent[k] = extent[k] > 0 ? 1 / extent[k] : 0.0;
    box.bins[k] = counts.bins[k], box.reach[k] = counts.reach[k];
    box.periodic[k] = structure.pbc[k];
    if (counts.images[k] > most_images)
      throw std::invalid_argument("cell vector " + std::to_string(k) + " " + text(lattice.vectors[k]) + " spans a height of " +
                                  number_text(lattice.heights[k]) + " angstrom, too small for a cutoff of " + number_text(range) +
                                  " angstrom on a device: is the cell in angstrom?");
  }
  return box;
}

}  // namespace adatom
