// SPDX-License-Identifier: MIT
// Neighbour lists on the device, in the order that DeviceGraph has: kernels. What they do to an atom on its way from the caller to a node:
//
//     key = species * bins + bin          AssignBins; atoms are then sorted by (key, number), which is the order of the nodes
//     edges of node i                     all (j, image) in range: species by species, for each the bins in reach in row-major order, in each the nodes
//     edges that node j sends             ascending
//
// Atoms of one species lie side by side, as linear maps want it, and among them neighbours in space are neighbours in memory. Slots within a bin, and of the
// edges of a sender, are given out by atomic counters and then sorted: lists repeat bit for bit.
#pragma once
#include "gnn/cuda/graph.hpp"
#include "gnn/evaluator.hpp"

namespace adatom::gnn::cuda {

/// A periodic image as one number: |h_k| <= 511.
ADATOM_FUNCTION inline int pack_image(int a, int b, int c) { return ((a + 512) << 20) | ((b + 512) << 10) | (c + 512); }
inline constexpr int most_images = 511;

struct DeviceBox {
  SearchBox box;
  int first_bin;  ///< of all structures' bins
};

/// Of all structures.
struct SearchInput {
  const DeviceBox* boxes = nullptr;   ///< [structures]
  const int* structure = nullptr;     ///< [atoms] in the caller's order
  const int* species = nullptr;       ///< [atoms] the same
  const double* positions = nullptr;  ///< [atoms][3] the same
  int bins = 0;                       ///< of all structures
  int species_count = 0;
  double range2 = 0.0;
};

/// Key and wrapped position of an atom; counts the atoms of each key.
struct AssignBins {
  SearchInput in;
  int* key = nullptr;        ///< [atoms]
  double* offset = nullptr;  ///< [atoms][3] lattice translation that wrapping takes away
  int* count = nullptr;      ///< [keys]
  int* status = nullptr;     ///< lowest atom whose position is impossible

  ADATOM_DEVICE void operator()(std::int64_t a) const {
    const DeviceBox& b = in.boxes[in.structure[a]];
    const SearchBox& box = b.box;
    const double* r = in.positions + 3 * a;
    double t[3] = {0.0, 0.0, 0.0};
    int at[3];
    bool finite = true;
    for (int k = 0; k < 3; ++k) {
      double s = box.reciprocal[3 * k] * r[0] + box.reciprocal[3 * k + 1] * r[1] + box.reciprocal[3 * k + 2] * r[2];
      if (!(s <= 1e8 && s >= -1e8)) s = 0.0, finite = false;
      const int wrap = box.periodic[k] ? static_cast<int>(floor(s)) : 0;
      for (int c = 0; c < 3; ++c) t[c] += wrap * box.vectors[3 * k + c];
      const double x = (s - wrap - box.low[k]) * box.inverse_extent[k] * box.bins[k];
      at[k] = x < 0.0 ? 0 : x > box.bins[k] - 1 ? box.bins[k] - 1 : static_cast<int>(x);
    }
    if (!finite) lower(status, static_cast<int>(a));
    for (int c = 0; c < 3; ++c) offset[3 * a + c] = t[c];
    key[a] = in.species[a] * in.bins + b.first_bin + (at[0] * box.bins[1] + at[1]) * box.bins[2] + at[2];
    add_to(count + key[a], 1);
  }
};

/// Puts k = 0 .. n-1 into the slots of key[k], in any order.
struct PlaceByKey {
  const int *key = nullptr, *first = nullptr;  ///< [n]; [keys]
  int *used = nullptr, *slots = nullptr;       ///< [keys] zero before; [n]

  ADATOM_DEVICE void operator()(std::int64_t k) const { slots[first[key[k]] + fetch_add(used + key[k], 1)] = static_cast<int>(k); }
};

/// sorted = slots, those of each key ascending. Keys have few entries: each one counts the lower ones.
struct SortByKey {
  const int *key = nullptr, *first = nullptr, *slots = nullptr;
  int* sorted = nullptr;

  ADATOM_DEVICE void operator()(std::int64_t n) const {
    const int own = slots[n], begin = first[key[own]], end = first[key[own] + 1];
    int rank = 0;
    for (int k = begin; k < end; ++k) rank += slots[k] < own;
    sorted[begin + rank] = own;
  }
};

/// What the nodes need of the sorted atoms.
struct NumberNodes {
  SearchInput in;
  const int *node = nullptr, *key = nullptr;                     ///< [nodes] atom; [atoms]
  const double* atom_offset = nullptr;                           ///< [atoms][3]
  int *species = nullptr, *structure = nullptr, *bin = nullptr;  ///< [nodes]; bin: within the structure
  double *offset = nullptr, *reference = nullptr;                ///< [nodes][3]; reference: wrapped positions

  ADATOM_DEVICE void operator()(std::int64_t n) const {
    const int a = node[n], s = in.structure[a];
    species[n] = in.species[a];
    structure[n] = s;
    bin[n] = key[a] - in.species[a] * in.bins - in.boxes[s].first_bin;
    for (int c = 0; c < 3; ++c) {
      offset[3 * n + c] = atom_offset[3 * std::size_t(a) + c];
      reference[3 * n + c] = in.positions[3 * std::size_t(a) + c] - offset[3 * n + c];
    }
  }
};

/// Nodes in range of a node, species by species. A warp per node. Without `sender` they are counted, with it they are listed.
struct FindEdges {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  SearchInput in;
  const int* first = nullptr;                                    ///< [keys + 1] first node
  const int *structure = nullptr, *bin = nullptr;                ///< [nodes]
  const double* x = nullptr;                                     ///< [nodes][3] wrapped
  int* runs = nullptr;                                           ///< [nodes][species] number of edges; or [nodes][species] first edge
  int *sender = nullptr, *image = nullptr, *receiver = nullptr;  ///< [edges]; receiver may be null

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int i = static_cast<int>(team.index());
    const DeviceBox& device_box = in.boxes[structure[i]];
    const SearchBox& box = device_box.box;
    const int own[3] = {bin[i] / (box.bins[2] * box.bins[1]), bin[i] / box.bins[2] % box.bins[1], bin[i] % box.bins[2]};
    int low[3], high[3];
    for (int k = 0; k < 3; ++k) {
      low[k] = own[k] - box.reach[k], high[k] = own[k] + box.reach[k];
      if (box.periodic[k]) continue;
      low[k] = low[k] < 0 ? 0 : low[k];
      high[k] = high[k] > box.bins[k] - 1 ? box.bins[k] - 1 : high[k];
    }
    auto flag = team.template local<int>();
    auto before = team.template local<int>();
    auto count = team.template local<int>();
    for (int z = 0; z < in.species_count; ++z) {
      int* const run = runs + std::size_t(i) * in.species_count + z;
      int at = sender ? *run : 0;
      team.each([&](int lane) { count[lane] = 0; });
      for (int a = low[0]; a <= high[0]; ++a) {
        const int h0 = floor_divide(a, box.bins[0]);
        for (int b = low[1]; b <= high[1]; ++b) {
          const int h1 = floor_divide(b, box.bins[1]);
          const int row = z * in.bins + device_box.first_bin + ((a - h0 * box.bins[0]) * box.bins[1] + b - h1 * box.bins[1]) * box.bins[2];
          // Bins along the last vector are contiguous up to the border of the cell.
          for (int from = low[2]; from <= high[2];) {
            const int h2 = floor_divide(from, box.bins[2]), origin = h2 * box.bins[2];
            const int to = high[2] < origin + box.bins[2] - 1 ? high[2] : origin + box.bins[2] - 1;
            const int begin = first[row + from - origin], end = first[row + to - origin + 1];
            from = to + 1;
            for (int j = begin; j < end; j += warp_size) {
              team.each([&](int lane) {
                flag[lane] = j + lane < end && in_range(i, j + lane, h0, h1, h2, box);
                count[lane] += flag[lane];
              });
              if (!sender) continue;
              team.warps([&](const Warp& warp) {
                const int found = warp.count_before(flag, before);
                warp.each([&](int lane) {
                  if (!flag[lane]) return;
                  const int e = at + before[lane];
                  sender[e] = j + lane;
                  image[e] = pack_image(h0, h1, h2);
                  if (receiver) receiver[e] = i;
                });
                at += found;
              });
            }
          }
        }
      }
      if (sender) continue;
      team.warps([&](const Warp& warp) {
        const int total = warp.sum(count);
        warp.each([&](int lane) {
          if (lane == 0) *run = total;
        });
      });
    }
  }

 private:
  ADATOM_DEVICE static int floor_divide(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
  ADATOM_DEVICE bool in_range(int i, int j, int h0, int h1, int h2, const SearchBox& box) const {
    if (i == j && h0 == 0 && h1 == 0 && h2 == 0) return false;
    double r2 = 0.0;
    for (int c = 0; c < 3; ++c) {
      // (x_j - x_i) + S h changes its sign, and nothing else, when sender and receiver change places: both edges of a pair are found, or none. Which products
      // are fused is said, not left to the compiler, which may choose otherwise where edges are counted than where they are listed.
      const double shift = ::fma(double(h2), box.vectors[6 + c], ::fma(double(h1), box.vectors[3 + c], h0 * box.vectors[c]));
      const double d = (x[3 * std::size_t(j) + c] - x[3 * std::size_t(i) + c]) + shift;
      r2 = ::fma(d, d, r2);
    }
    return r2 < in.range2;
  }
};

/// first_edge and first_run of the nodes, from the first edge of each (node, species).
struct NumberEdges {
  const int* run_edge = nullptr;  ///< [nodes * species + 1]
  int species = 0;
  int *first_edge = nullptr, *first_run = nullptr;  ///< [nodes + 1]

  ADATOM_DEVICE void operator()(std::int64_t i) const {
    first_edge[i] = run_edge[i * species];
    first_run[i] = static_cast<int>(i) * species;
  }
};

struct CountKeys {
  const int* key = nullptr;
  int* count = nullptr;

  ADATOM_DEVICE void operator()(std::int64_t k) const { add_to(count + key[k], 1); }
};

/// Exclusive sums of up to block_size numbers each; the sums of the blocks go to `totals`. In place.
struct ScanBlock {
  static constexpr bool one_warp = false;
  static constexpr int threads = 256, most_threads = threads, per_thread = 8, block_size = threads * per_thread;
  int* values = nullptr;
  std::int64_t count = 0;
  int* totals = nullptr;  ///< [blocks]

  static std::size_t shared() { return 2 * shared_bytes<int>(threads); }

  ADATOM_DEVICE void operator()(BlockTeam& team) const {
    int* sums = team.template shared<int>(threads);
    int* other = team.template shared<int>(threads);
    const std::int64_t first = team.index() * block_size;
    team.each([&](int t) {
      int sum = 0;
      for (int k = 0; k < per_thread; ++k) {
        const std::int64_t at = first + t * per_thread + k;
        if (at < count) sum += values[at];
      }
      sums[t] = sum;
    });
    for (int step = 1; step < threads; step *= 2) {
      team.each([&](int t) { other[t] = sums[t] + (t >= step ? sums[t - step] : 0); });
      int* const swap = sums;
      sums = other, other = swap;
    }
    team.each([&](int t) {
      int sum = t > 0 ? sums[t - 1] : 0;
      for (int k = 0; k < per_thread; ++k) {
        const std::int64_t at = first + t * per_thread + k;
        if (at >= count) break;
        const int own = values[at];
        values[at] = sum;
        sum += own;
      }
      if (t == threads - 1) totals[team.index()] = sums[t];
    });
  }
};

/// Adds the sums of the blocks before it to each number.
struct AddBlockSums {
  int* values = nullptr;
  const int* totals = nullptr;  ///< exclusive sums

  ADATOM_DEVICE void operator()(std::int64_t k) const { values[k] += totals[k / ScanBlock::block_size]; }
};

/// Positions in the order of the nodes, less what wrapping took away when the list was made; whether an atom has moved so far that a list may lack edges.
struct GatherPositions {
  const int* node = nullptr;                             ///< [nodes] in the caller's order
  const double* positions = nullptr;                     ///< [nodes][3] in the caller's order
  const double *offset = nullptr, *reference = nullptr;  ///< [nodes][3]; null for a list of the caller
  double limit2 = 0.0;                                   ///< square of the distance that atoms may move
  double* x = nullptr;                                   ///< [nodes][3]
  int* moved = nullptr;                                  ///< lowest atom that moved further

  ADATOM_DEVICE void operator()(std::int64_t n) const {
    const double* from = positions + 3 * std::size_t(node[n]);
    double d2 = 0.0;
    for (int c = 0; c < 3; ++c) {
      const double r = offset ? from[c] - offset[3 * n + c] : from[c];
      x[3 * n + c] = r;
      if (reference) d2 += (r - reference[3 * n + c]) * (r - reference[3 * n + c]);
    }
    if (reference && !(d2 <= limit2)) lower(moved, node[n]);  // also NaN, which making the list reports
  }
};

}  // namespace adatom::gnn::cuda
