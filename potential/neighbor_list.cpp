// SPDX-License-Identifier: MIT
#include "adatom/neighbor_list.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "gnn/threads.hpp"
#include "potential/cell_grid.hpp"
#include "potential/number_text.hpp"

namespace adatom {
namespace {

using Cell = std::array<int, 3>;

constexpr double least_distance = 1e-3;   // angstrom; no two atoms of a meaningful structure are closer
constexpr int receivers_per_block = 256;  // what a thread takes at a time
constexpr int receivers_per_thread = 64;  // below, another thread costs more than it saves

// std::array's == calls memcmp, which costs a tenth of a rebuild.
bool same(const Cell& a, const Cell& b) { return a[0] == b[0] && a[1] == b[1] && a[2] == b[2]; }

/// Numbers the distinct cells that it is asked for, in order of first appearance (open addressing).
class CellNumbers {
 public:
  int number(const Cell& h) {
    if (!cells_.empty() && same(cells_[last_], h)) return last_;
    if (2 * (cells_.size() + 1) > slots_.size()) grow();
    int& slot = find(h);
    if (slot < 0) {
      slot = static_cast<int>(cells_.size());
      cells_.push_back(h);
    }
    return last_ = slot;
  }
  const std::vector<Cell>& cells() const { return cells_; }

 private:
  int& find(const Cell& h) {
    std::uint64_t hash = static_cast<std::uint32_t>(h[0]);
    for (const int k : {1, 2}) hash = (hash * 0x9e3779b97f4a7c15u >> 20 ^ static_cast<std::uint32_t>(h[k]));
    std::size_t at = (hash * 0x9e3779b97f4a7c15u >> 32) & (slots_.size() - 1);
    while (slots_[at] >= 0 && !same(cells_[slots_[at]], h)) at = (at + 1) & (slots_.size() - 1);
    return slots_[at];
  }
  void grow() {
    slots_.assign(std::max<std::size_t>(64, 2 * slots_.size()), -1);
    for (std::size_t k = 0; k < cells_.size(); ++k) find(cells_[k]) = static_cast<int>(k);
  }

  std::vector<Cell> cells_;
  std::vector<int> slots_;  // power of two
  int last_ = 0;
};

/// Radix sort of a few hundred keys: the mispredicted branches of a comparison sort would be half the cost of a rebuild.
class KeySort {
 public:
  /// Sorts the first n keys; digits in which all keys agree cost nothing.
  void sort(std::vector<std::uint64_t>& keys, int n) {
    std::uint64_t varying = 0;
    for (int k = 1; k < n; ++k) varying |= keys[k] ^ keys[0];
    if (other_.size() < keys.size()) other_.resize(keys.size());
    for (int shift = 0; shift < 64 && varying >> shift != 0; shift += digit_bits) {
      shift += std::countr_zero(varying >> shift);
      std::array<int, (1 << digit_bits)> next{};
      for (int k = 0; k < n; ++k) ++next[keys[k] >> shift & (next.size() - 1)];
      for (int sum = 0; int& start : next) sum += std::exchange(start, sum);
      for (int k = 0; k < n; ++k) other_[next[keys[k] >> shift & (next.size() - 1)]++] = keys[k];
      keys.swap(other_);
    }
  }

 private:
  static constexpr int digit_bits = 6;
  std::vector<std::uint64_t> other_;
};

/// Finds the neighbours of one receiver at a time.
class Search {
 public:
  Search(const CellGrid& grid, double range, double near) : grid_(grid), range2_(range * range), near2_(near * near) {
    for (int k = 0; k < 3; ++k)
      for (int b = -grid.reach[k]; b < grid.bins[k] + grid.reach[k]; ++b)
        image_[k].push_back(b >= 0 ? b / grid.bins[k] : -((grid.bins[k] - 1 - b) / grid.bins[k]));
  }

  /// Sorted (sender << 32 | image) of all atoms in range of receiver i, i itself included.
  std::span<const std::uint64_t> neighbors(int i) {
    count_ = near_count_ = 0;
    const Cell& c = grid_.bin[i];
    Cell low, high;
    for (int k = 0; k < 3; ++k) {
      const bool periodic = grid_.images[k] > 0;
      low[k] = periodic ? c[k] - grid_.reach[k] : std::max(c[k] - grid_.reach[k], 0);
      high[k] = periodic ? c[k] + grid_.reach[k] : std::min(c[k] + grid_.reach[k], grid_.bins[k] - 1);
    }
    for (int a = low[0]; a <= high[0]; ++a) {
      const int image_a = image_[0][a + grid_.reach[0]], bin_a = a - image_a * grid_.bins[0];
      for (int b = low[1]; b <= high[1]; ++b) {
        const int image_b = image_[1][b + grid_.reach[1]], bin_b = b - image_b * grid_.bins[1];
        const std::size_t row = (static_cast<std::size_t>(bin_a) * grid_.bins[1] + bin_b) * grid_.bins[2];
        // Bins along the last vector are contiguous up to the border of the cell.
        for (int from = low[2]; from <= high[2];) {
          const int image_c = image_[2][from + grid_.reach[2]], origin = image_c * grid_.bins[2];
          const int to = std::min(high[2], origin + grid_.bins[2] - 1);
          scan(i, grid_.image(image_a, image_b, image_c), grid_.first[row + from - origin], grid_.first[row + to - origin + 1]);
          from = to + 1;
        }
      }
    }
    sort_.sort(keys_, count_);
    return {keys_.data(), static_cast<std::size_t>(count_)};
  }

  bool any_near() const { return near_count_ > 1; }  // of the last call; the receiver itself is one

 private:
  /// Appends the atoms begin .. end-1 of the grid that are in range. No branches: the outcome of the comparison is as good as random.
  void scan(int i, int image, int begin, int end) {
    if (static_cast<int>(keys_.size()) < count_ + end - begin) keys_.resize(2 * (count_ + end - begin));
    std::uint64_t* out = keys_.data() + count_;
    const Vector3 &r = grid_.wrapped[i], &t = grid_.translations[image];
    int near_count = 0;
    for (int p = begin; p < end; ++p) {
      // (r_j - r_i) + S H changes its sign, and nothing else, when receiver and sender change places: both directions of a pair agree.
      const double dx = (grid_.x[p] - r[0]) + t[0], dy = (grid_.y[p] - r[1]) + t[1], dz = (grid_.z[p] - r[2]) + t[2];
      const double d2 = dx * dx + dy * dy + dz * dz;
      *out = static_cast<std::uint64_t>(grid_.atom[p]) << 32 | static_cast<std::uint32_t>(image);
      out += d2 < range2_;
      near_count += d2 < near2_;
    }
    near_count_ += near_count;
    count_ = static_cast<int>(out - keys_.data());
  }

  const CellGrid& grid_;
  double range2_, near2_;
  std::array<std::vector<int>, 3> image_;  // image of bin b along each vector, at b + reach
  std::vector<std::uint64_t> keys_;        // the first count_ are in use
  int count_ = 0, near_count_ = 0;
  KeySort sort_;
};

double squared_distance(const Structure& s, int i, int j, const Cell& h) {
  double d2 = 0;
  for (int a = 0; a < 3; ++a) {
    double d = s.positions[j][a] - s.positions[i][a];
    for (int k = 0; k < 3; ++k)
      if (h[k] != 0) d += h[k] * s.cell[k][a];
    d2 += d * d;
  }
  return d2;
}

template <class Pairs>
void check_distances(const Structure& structure, const Pairs& pairs) {
  for (const auto& [i, j, h] : pairs) {
    const double d2 = squared_distance(structure, i, j, h);
    if (d2 >= least_distance * least_distance) continue;
    std::ostringstream message;
    message << "atoms " << i << " and " << j << " (counted from 0)";
    if (!same(h, {0, 0, 0})) message << ", the second in the periodic image (" << h[0] << ", " << h[1] << ", " << h[2] << "),";
    message << " are " << std::sqrt(d2) << " angstrom apart, less than " << least_distance
            << ": remove duplicate atoms, and check the cell and the unit of length";
    throw std::invalid_argument(message.str());
  }
}

std::uint64_t next_revision() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

NeighborList::NeighborList(double cutoff, double skin) : cutoff_(cutoff), skin_(skin) {
  if (!(cutoff > 0) || !std::isfinite(cutoff))
    throw std::invalid_argument("cutoff of a neighbour list is " + number_text(cutoff) + " angstrom: expected a positive number");
  if (!(skin >= 0) || !std::isfinite(skin))
    throw std::invalid_argument("skin of a neighbour list is " + number_text(skin) + " angstrom: expected zero or a positive number");
}

bool NeighborList::update(const Structure& structure, int threads) {
  if (structure.numbers.size() != structure.positions.size())
    throw std::invalid_argument("structure has " + std::to_string(structure.numbers.size()) + " atomic numbers but " +
                                std::to_string(structure.positions.size()) + " positions: give one of each per atom");
  if (structure.positions.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("structure has " + std::to_string(structure.positions.size()) + " atoms, more than a list can number");
  if (threads < 0) throw std::invalid_argument("number of threads is " + std::to_string(threads) + ": expected 0 (all) or more");

  // Two atoms that each moved by up to skin/2 came closer by up to skin. Comparisons are written so that NaN leads to build(), which reports it.
  const auto stays_near = [limit = 0.25 * skin_ * skin_](const Vector3& r, const Vector3& r0) {
    const double dx = r[0] - r0[0], dy = r[1] - r0[1], dz = r[2] - r0[2];
    return dx * dx + dy * dy + dz * dz <= limit;
  };
  const bool complete = revision_ != 0 && structure.cell == reference_.cell && structure.pbc == reference_.pbc && structure.numbers == reference_.numbers &&
                        std::equal(structure.positions.begin(), structure.positions.end(), reference_.positions.begin(), stays_near);
  if (!complete) {
    build(structure, threads);
    return true;
  }
  check_distances(structure, close_pairs_);
  positions_ = structure.positions;
  return false;
}

void NeighborList::build(const Structure& structure, int threads) {
  const double range = cutoff_ + skin_, near = std::min(skin_ + least_distance, range);
  const int n = static_cast<int>(structure.positions.size());
  const Lattice lattice(structure.cell, structure.pbc);
  const CellGrid grid(lattice, structure.positions, range);

  // Each thread appends the edges of the blocks of receivers that it takes to its own buffer, with its own numbers of the cells h.
  struct Edge {
    int sender, cell;
  };
  struct Worker {
    std::optional<Search> search;
    std::vector<Edge> edges;
    CellNumbers cells;
    std::vector<ClosePair> close_pairs;
    std::vector<int> rows;  // cell number -> row of shifts_
  };
  struct Block {
    int worker = 0;
    std::size_t begin = 0;
  };
  gnn::Threads& team = gnn::threads();
  if (threads == 0) threads = team.usual();
  threads = std::clamp(n / receivers_per_thread, 1, threads);
  std::vector<Worker> workers(threads);
  std::vector<Block> blocks((n + receivers_per_block - 1) / receivers_per_block);
  std::vector<std::int64_t> first_edge(n + 1, 0);

  gnn::parallel_for(team, threads, static_cast<std::int64_t>(blocks.size()), 1, [&](std::int64_t block, std::int64_t, int thread) {
    Worker& worker = workers[thread];
    if (!worker.search) worker.search.emplace(grid, range, near);
    Search& search = *worker.search;
    blocks[block] = {thread, worker.edges.size()};
    const int begin = static_cast<int>(block) * receivers_per_block, end = std::min(n, begin + receivers_per_block);
    for (int i = begin; i < end; ++i) {
      const std::size_t before = worker.edges.size();
      const Cell& wraps_i = grid.wraps[i];
      for (const std::uint64_t key : search.neighbors(i)) {
        const int j = static_cast<int>(key >> 32);
        const Cell &image = grid.image_cells[key & 0xffffffffu], &wraps_j = grid.wraps[j];
        // The wrapped r = w + S wraps: w_j - w_i + S H = r_j - r_i + S (H + wraps_i - wraps_j). For one j, h and H have the same order.
        const Cell h = {image[0] + wraps_i[0] - wraps_j[0], image[1] + wraps_i[1] - wraps_j[1], image[2] + wraps_i[2] - wraps_j[2]};
        if (i == j && same(h, {0, 0, 0})) continue;
        worker.edges.push_back({j, worker.cells.number(h)});
        if (search.any_near() && i <= j && squared_distance(structure, i, j, h) < near * near) worker.close_pairs.push_back({i, j, h});
      }
      first_edge[i + 1] = static_cast<std::int64_t>(worker.edges.size() - before);
    }
  });

  std::vector<ClosePair> close_pairs;
  std::vector<Cell> cells;
  for (const Worker& worker : workers) {
    close_pairs.insert(close_pairs.end(), worker.close_pairs.begin(), worker.close_pairs.end());
    cells.insert(cells.end(), worker.cells.cells().begin(), worker.cells.cells().end());
  }
  std::sort(close_pairs.begin(), close_pairs.end(), [](const ClosePair& p, const ClosePair& q) { return std::tie(p.i, p.j, p.h) < std::tie(q.i, q.j, q.h); });
  check_distances(structure, close_pairs);

  // From here on the list changes; an exception (memory) must not leave one that looks complete.
  revision_ = 0;
  std::sort(cells.begin(), cells.end());
  cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
  for (Worker& worker : workers)
    for (const Cell& h : worker.cells.cells()) worker.rows.push_back(static_cast<int>(std::lower_bound(cells.begin(), cells.end(), h) - cells.begin()));
  for (int i = 0; i < n; ++i) first_edge[i + 1] += first_edge[i];
  sender_.resize(first_edge[n]);
  shift_.resize(first_edge[n]);
  gnn::parallel_for(team, threads, static_cast<std::int64_t>(blocks.size()), 1, [&](std::int64_t block, std::int64_t, int) {
    const Worker& worker = workers[blocks[block].worker];
    const Edge* edge = worker.edges.data() + blocks[block].begin;
    const std::int64_t end = first_edge[std::min<std::int64_t>(n, (block + 1) * receivers_per_block)];
    for (std::int64_t e = first_edge[block * receivers_per_block]; e < end; ++e, ++edge) {
      sender_[e] = edge->sender;
      shift_[e] = worker.rows[edge->cell];
    }
  });
  shifts_.assign(cells.size(), Vector3{});
  for (std::size_t row = 0; row < cells.size(); ++row)
    for (int k = 0; k < 3; ++k)
      if (cells[row][k] != 0)
        for (int a = 0; a < 3; ++a) shifts_[row][a] += cells[row][k] * structure.cell[k][a];
  shift_cells_ = std::move(cells);
  first_edge_ = std::move(first_edge);
  close_pairs_ = std::move(close_pairs);
  reference_ = structure;
  positions_ = structure.positions;
  revision_ = next_revision();
}

}  // namespace adatom
