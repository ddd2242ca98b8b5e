// SPDX-License-Identifier: MIT
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "adatom/neighbor_list.hpp"
#include "potential/cell_grid.hpp"
#include "structures.hpp"

using namespace adatom;
using adatom::test::random_structure;

namespace {

using Cell = std::array<int, 3>;

struct Pair {
  int i, j;
  Cell h;
  auto operator<=>(const Pair&) const = default;
};

Vector3 vector_of(const Structure& s, const Pair& p) {
  Vector3 r;
  for (int a = 0; a < 3; ++a) {
    r[a] = s.positions[p.j][a] - s.positions[p.i][a];
    for (int k = 0; k < 3; ++k)
      if (p.h[k] != 0) r[a] += p.h[k] * s.cell[k][a];
  }
  return r;
}
double length(const Vector3& r) { return std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]); }

/// By definition: every pair and every image within `images` cells.
std::vector<Pair> brute_force(const Structure& s, double range, int images) {
  std::vector<Pair> pairs;
  const Cell m = {s.pbc[0] ? images : 0, s.pbc[1] ? images : 0, s.pbc[2] ? images : 0};
  const int n = static_cast<int>(s.positions.size());
  bool clear = true, complete = true;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j)
      for (int a = -m[0]; a <= m[0]; ++a)
        for (int b = -m[1]; b <= m[1]; ++b)
          for (int c = -m[2]; c <= m[2]; ++c) {
            const Pair p = {i, j, {a, b, c}};
            if (i == j && p.h == Cell{}) continue;
            const double d = length(vector_of(s, p));
            clear = clear && std::abs(d - range) > 1e-10;
            if (d < range) {
              for (int k = 0; k < 3; ++k) complete = complete && (m[k] == 0 || std::abs(p.h[k]) < m[k]);
              pairs.push_back(p);
            }
          }
  REQUIRE(clear);     // else rounding decides
  REQUIRE(complete);  // else `images` is too small
  return pairs;
}

std::vector<Pair> pairs_of(const NeighborList& list) {
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i + 1 < list.first_edge().size(); ++i)
    for (auto e = list.first_edge()[i]; e < list.first_edge()[i + 1]; ++e)
      pairs.push_back({static_cast<int>(i), list.sender()[e], list.shift_cells()[list.shift()[e]]});
  return pairs;
}

void check_consistent(const NeighborList& list, const Structure& s) {
  const auto pairs = pairs_of(list);
  REQUIRE(list.first_edge().size() == s.positions.size() + 1);
  CHECK(list.first_edge().front() == 0);
  CHECK(list.first_edge().back() == static_cast<std::int64_t>(list.sender().size()));
  CHECK(list.positions() == s.positions);
  CHECK(std::is_sorted(pairs.begin(), pairs.end()));
  CHECK(std::adjacent_find(pairs.begin(), pairs.end()) == pairs.end());
  std::vector<Pair> reversed;
  for (const auto& [i, j, h] : pairs) reversed.push_back({j, i, {-h[0], -h[1], -h[2]}});
  std::sort(reversed.begin(), reversed.end());
  CHECK(reversed == pairs);
  // Rows of shifts: distinct, in order, all in use, and S h.
  REQUIRE(list.shifts().size() == list.shift_cells().size());
  std::vector<Cell> used;
  for (const auto& p : pairs) used.push_back(p.h);
  std::sort(used.begin(), used.end());
  used.erase(std::unique(used.begin(), used.end()), used.end());
  CHECK(list.shift_cells() == used);
  for (std::size_t row = 0; row < used.size(); ++row)
    for (int a = 0; a < 3; ++a)
      CHECK(list.shifts()[row][a] == Approx(used[row][0] * s.cell[0][a] + used[row][1] * s.cell[1][a] + used[row][2] * s.cell[2][a]).margin(1e-12));
}

const std::array<bool, 3> all_pbc[] = {{true, true, true},   {true, true, false},  {true, false, true},  {false, true, true},
                                       {true, false, false}, {false, true, false}, {false, false, true}, {false, false, false}};

}  // namespace

TEST_CASE("neighbour list: brute force on random triclinic cells, every periodicity") {
  unsigned seed = 1;
  std::size_t pairs = 0;
  for (const auto& pbc : all_pbc)
    for (const double edge : {1.5, 4.0, 9.0}) {
      // Atoms lie up to two cells outside, so that the images of a pair are up to six cells apart, and the range adds up to four or so.
      const Structure s = random_structure(edge < 2 ? 3 : 12, edge, pbc, seed++);
      CAPTURE(pbc[0], pbc[1], pbc[2], edge);
      NeighborList list(3.1);
      CHECK(list.update(s));
      const auto expected = brute_force(s, 3.1, edge < 2 ? 16 : 8);
      pairs += expected.size();
      CHECK(pairs_of(list) == expected);
      check_consistent(list, s);
    }
  CHECK(pairs > 1000);
}

TEST_CASE("neighbour list: many bins against brute force") {
  for (const auto& pbc : {all_pbc[0], all_pbc[1], all_pbc[7]}) {
    const Structure s = random_structure(200, 9.0, pbc, 77, 0.5);
    NeighborList list(1.9);
    list.update(s);
    CHECK(pairs_of(list) == brute_force(s, 1.9, 5));
    check_consistent(list, s);
  }
}

TEST_CASE("neighbour list: one atom, cutoff three times the cell") {
  // Simple cubic lattice of constant 1: lattice points in a ball of radius 3.01, counted by their squared norms 1..9 (OEIS A005875).
  Structure s{{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}}, {true, true, true}, {6}, {{0.3, -7.2, 5.9}}};
  NeighborList list(3.01);
  list.update(s);
  CHECK(list.sender().size() == 6 + 12 + 8 + 6 + 24 + 24 + 0 + 12 + 30);
  check_consistent(list, s);
  // The same lattice in a strongly skewed cell.
  s.cell = {{{1, 0, 0}, {7, 1, 0}, {-3, 11, 1}}};
  list.update(s);
  CHECK(list.sender().size() == 122);
  check_consistent(list, s);
  // A square net and a chain.
  s.pbc = {true, true, false};
  list.update(s);
  CHECK(list.sender().size() == 4 + 4 + 4 + 8 + 4 + 4);
  s.pbc = {true, false, false};
  list.update(s);
  CHECK(list.sender().size() == 6);
}

TEST_CASE("neighbour list: zero cell vectors where not periodic") {
  for (int periodic = 0; periodic < 3; ++periodic)
    for (const bool plane : {false, true}) {
      std::array<bool, 3> pbc{};
      pbc[periodic] = true;
      if (plane) pbc[(periodic + 1) % 3] = true;
      Structure s = random_structure(10, 4.0, pbc, 5 + periodic);
      for (int k = 0; k < 3; ++k)
        if (!pbc[k]) s.cell[k] = {};
      NeighborList list(3.3);
      list.update(s);
      CHECK(pairs_of(list) == brute_force(s, 3.3, 9));
      check_consistent(list, s);
    }
  Structure molecule{{}, {}, {8, 1, 1}, {{0, 0, 0.1}, {0, 0.76, -0.48}, {0, -0.76, -0.48}}};
  NeighborList list(5.0);
  list.update(molecule);
  CHECK(list.sender() == std::vector<int>{1, 2, 0, 2, 0, 1});
  CHECK(list.shift_cells() == std::vector<Cell>{{0, 0, 0}});
  // The vectors of directions that are not periodic have no influence, even if they are parallel.
  molecule.cell = {{{9, 0, 0}, {9, 0, 0}, {0, 0, 0}}};
  CHECK(list.update(molecule));
  CHECK(list.sender() == std::vector<int>{1, 2, 0, 2, 0, 1});
}

TEST_CASE("neighbour list: empty and isolated") {
  NeighborList list(4.0, 0.5);
  CHECK(list.revision() == 0);
  CHECK(list.update(Structure{}));
  CHECK(list.revision() != 0);
  CHECK(list.first_edge() == std::vector<std::int64_t>{0});
  CHECK_FALSE(list.update(Structure{}));
  Structure s{{}, {}, {1, 1, 1}, {{0, 0, 0}, {0, 0, 100}, {1e6, -1e6, 1e6}}};
  CHECK(list.update(s));
  CHECK(list.first_edge() == std::vector<std::int64_t>{0, 0, 0, 0});
  CHECK(list.shifts().empty());
}

TEST_CASE("neighbour list: atoms far outside the cell") {
  Structure s = random_structure(8, 5.0, {true, true, true}, 21);
  NeighborList list(4.0);
  list.update(s);
  const auto inside = pairs_of(list);
  const Cell moved = {1234567, -7654321, 31};
  for (int a = 0; a < 3; ++a)
    for (int k = 0; k < 3; ++k) s.positions[3][a] += moved[k] * s.cell[k][a];
  list.update(s);
  auto outside = pairs_of(list);
  // r_3 moved by S m: h of an edge to it becomes h - m, of an edge from it h + m.
  for (auto& [i, j, h] : outside)
    for (int k = 0; k < 3; ++k) h[k] += moved[k] * ((j == 3) - (i == 3));
  CHECK(outside == inside);
}

TEST_CASE("neighbour list: canonical for any number of threads") {
  const Structure s = random_structure(400, 12.0, {true, true, false}, 3, 0.5);
  NeighborList one(3.0);
  one.update(s, 1);
  for (const int threads : {0, 2, 3, 8}) {
    NeighborList many(3.0);
    many.update(s, threads);
    CHECK(many.first_edge() == one.first_edge());
    CHECK(many.sender() == one.sender());
    CHECK(many.shift() == one.shift());
    CHECK(many.shift_cells() == one.shift_cells());
    CHECK(many.shifts() == one.shifts());
    CHECK(many.revision() != one.revision());
  }
}

TEST_CASE("neighbour list: skin") {
  Structure s = random_structure(30, 6.0, {true, true, true}, 9);
  NeighborList list(3.0, 0.4), exact(3.4);
  CHECK(list.update(s));
  exact.update(s);
  CHECK(pairs_of(list) == pairs_of(exact));
  const auto revision = list.revision();
  CHECK_FALSE(list.update(s));

  SECTION("complete while atoms move by up to half of it") {
    std::mt19937 random(4);
    std::normal_distribution<double> normal;
    const Structure start = s;
    for (int step = 0; step < 5; ++step) {
      for (std::size_t i = 0; i < s.positions.size(); ++i) {
        Vector3 d = {normal(random), normal(random), normal(random)};
        const double scale = 0.1999 / length(d);
        for (int a = 0; a < 3; ++a) s.positions[i][a] = start.positions[i][a] + scale * d[a];
      }
      CHECK_FALSE(list.update(s));
      CHECK(list.revision() == revision);
      CHECK(list.positions() == s.positions);
      const auto listed = pairs_of(list);
      for (const auto& p : brute_force(s, 3.0, 8)) CHECK(std::binary_search(listed.begin(), listed.end(), p));
    }
  }
  SECTION("rebuilt when an atom moved further, and then relative to its new place") {
    s.positions[7][2] += 0.201;
    CHECK(list.update(s));
    CHECK(list.revision() != revision);
    s.positions[7][2] += 0.199;
    CHECK_FALSE(list.update(s));
  }
  SECTION("rebuilt when the cell, the periodicity or the atoms change") {
    s.cell[2][0] += 1e-9;
    CHECK(list.update(s));
    s.pbc[1] = false;
    CHECK(list.update(s));
    s.numbers[4] = 79;
    CHECK(list.update(s));
    s.numbers.pop_back(), s.positions.pop_back();
    CHECK(list.update(s));
    CHECK(list.first_edge().size() == 30);
    CHECK_FALSE(list.update(s));
  }
  SECTION("no skin: any move rebuilds") {
    CHECK_FALSE(exact.update(s));
    s.positions[0][0] += 1e-12;
    CHECK(exact.update(s));
  }
}

TEST_CASE("neighbour list: work per atom does not grow with their number") {
  for (const int cells : {10, 22, 46}) {  // 1000, 10 648 and 97 336 atoms
    Structure s;
    s.pbc = {true, true, true};
    s.cell = {{{2.0 * cells, 0, 0}, {0.3 * cells, 2.0 * cells, 0}, {0, -0.2 * cells, 2.0 * cells}}};
    for (int a = 0; a < cells; ++a)
      for (int b = 0; b < cells; ++b)
        for (int c = 0; c < cells; ++c) {
          s.positions.push_back({2.0 * a + 0.3 * b, 2.0 * b - 0.2 * c, 2.0 * c});
          s.numbers.push_back(29);
        }
    const double range = 5.1, n = static_cast<double>(s.positions.size());
    // Distances computed for one atom: all atoms of the bins within reach.
    const CellGrid grid(Lattice(s.cell, s.pbc), s.positions, range);
    double visited = 1;
    for (int k = 0; k < 3; ++k) visited *= (2.0 * grid.reach[k] + 1) / grid.bins[k];
    visited *= n;
    const double in_range = 4.0 / 3.0 * M_PI * range * range * range / 8;
    CHECK(visited < 8 * in_range);
    CHECK(grid.first.size() < 9 * n + 100);  // memory of the grid

    // Every atom of this lattice has the same neighbours.
    NeighborList list(range);
    list.update(s);
    const auto per_atom = list.first_edge()[1];
    CHECK(static_cast<double>(per_atom) == Approx(in_range).epsilon(0.1));
    bool equal = true;
    for (std::size_t i = 0; i < s.positions.size(); ++i) equal = equal && list.first_edge()[i + 1] - list.first_edge()[i] == per_atom;
    CHECK(equal);
    // So it is a sum over lattice points, whatever the size of the cell.
    static const auto first = per_atom;
    CHECK(per_atom == first);
  }
}

TEST_CASE("neighbour list: nearly empty cell needs little memory") {
  const Structure s{{{{1e5, 0, 0}, {0, 1e5, 0}, {0, 0, 1e5}}}, {true, true, true}, {1, 1}, {{0.2, 0, 0}, {-0.5, 0, 0}}};
  const CellGrid grid(Lattice(s.cell, s.pbc), s.positions, 6.0);
  CHECK(grid.first.size() < 200);
  NeighborList list(6.0);
  list.update(s);
  CHECK(pairs_of(list) == std::vector<Pair>{{0, 1, {0, 0, 0}}, {1, 0, {0, 0, 0}}});
}
