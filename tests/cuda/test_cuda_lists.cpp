// SPDX-License-Identifier: MIT
// Neighbour lists that are made on the device against those of the host.
#include <adatom/neighbor_list.hpp>
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <random>
#include <set>

#include "gnn/cuda/lists.hpp"
#include "potential/cell_grid.hpp"

using namespace adatom;
using namespace adatom::gnn::cuda;

namespace {

struct Edge {
  int receiver, sender, structure;
  std::array<int, 3> h;  // of positions as they were given
  auto operator<=>(const Edge&) const = default;
};

/// Lists of some structures, made by the kernels.
struct Made {
  std::vector<Edge> edges;  // in the order of the device
  std::vector<int> node, first_edge, run_edge, sender, first_sent, sent_edge, species;
};

Made make(const std::vector<Structure>& structures, const std::vector<int>& species, int species_count, double range) {
  std::vector<int> first_atom{0};
  std::vector<gnn::SearchBox> boxes;
  std::vector<Vector3> positions;
  for (const Structure& s : structures) {
    positions.insert(positions.end(), s.positions.begin(), s.positions.end());
    first_atom.push_back(static_cast<int>(positions.size()));
    boxes.push_back(search_box(s, range));
  }
  gnn::StructureView view;
  view.structures = static_cast<int>(structures.size());
  view.first_atom = first_atom.data(), view.boxes = boxes.data(), view.range = range;
  view.species = species.data(), view.positions = positions.front().data();
  Stream stream;
  NeighbourLists lists;
  lists.set_atoms(stream, view, species_count, {});
  CHECK_FALSE(lists.fits(view));
  lists.build(stream, view, positions.front().data(), true);
  CHECK(lists.fits(view));

  const int n = static_cast<int>(positions.size());
  const DeviceGraph g = lists.graph();
  REQUIRE(g.nodes == n);
  Made made;
  made.node.assign(g.node, g.node + n), made.species.assign(g.species, g.species + n);
  made.first_edge.assign(g.first_edge, g.first_edge + n + 1);
  made.run_edge.assign(g.run_edge, g.run_edge + n * species_count + 1);
  made.sender.assign(g.sender, g.sender + lists.edges());
  made.first_sent.assign(g.first_sent, g.first_sent + n + 1);
  made.sent_edge.assign(g.sent_edge, g.sent_edge + lists.edges());
  const auto wraps = [&](int atom, int s) {  // lattice translation that the kernel took away, in cells
    std::array<int, 3> w{};
    for (int k = 0; k < 3; ++k) {
      double x = 0.0;
      for (int a = 0; a < 3; ++a) x += boxes[s].reciprocal[3 * k + a] * lists.offset()[3 * atom + a];
      w[k] = static_cast<int>(std::lround(x));
    }
    return w;
  };
  for (int i = 0; i < n; ++i)
    for (int e = made.first_edge[i]; e < made.first_edge[i + 1]; ++e) {
      const int j = g.sender[e], s = g.structure[i], packed = g.image[e];
      REQUIRE(lists.receiver()[e] == i);
      REQUIRE(g.structure[j] == s);
      const auto wi = wraps(i, s), wj = wraps(j, s);
      const std::array<int, 3> h{(packed >> 20) - 512 + wi[0] - wj[0], (packed >> 10 & 1023) - 512 + wi[1] - wj[1], (packed & 1023) - 512 + wi[2] - wj[2]};
      made.edges.push_back({g.node[i], g.node[j], s, h});
    }
  return made;
}

std::vector<Edge> expected(const std::vector<Structure>& structures, double range) {
  std::vector<Edge> edges;
  int first = 0;
  for (std::size_t s = 0; s < structures.size(); ++s) {
    NeighborList list(range);
    list.update(structures[s], 1);
    for (std::size_t i = 0; i + 1 < list.first_edge().size(); ++i)
      for (std::int64_t e = list.first_edge()[i]; e < list.first_edge()[i + 1]; ++e)
        edges.push_back({first + static_cast<int>(i), first + list.sender()[e], static_cast<int>(s), list.shift_cells()[list.shift()[e]]});
    first += static_cast<int>(structures[s].positions.size());
  }
  std::sort(edges.begin(), edges.end());
  return edges;
}

Structure random_structure(std::mt19937& g, int atoms, const Matrix3& cell, std::array<bool, 3> pbc) {
  Structure s;
  s.cell = cell, s.pbc = pbc;
  std::uniform_real_distribution<double> uniform(-1.5, 2.5);  // also outside of the cell
  for (int i = 0; i < atoms; ++i) {
    Vector3 r{};
    for (int k = 0; k < 3; ++k) {
      const double x = uniform(g);
      for (int a = 0; a < 3; ++a) r[a] += x * cell[k][a];
    }
    s.positions.push_back(r);
    s.numbers.push_back(1 + i % 3);
  }
  return s;
}

}  // namespace

TEST_CASE("lists of the device have the edges of the host's, in an order that repeats") {
  std::mt19937 g(11);
  const Matrix3 cube{{{9, 0, 0}, {0, 9, 0}, {0, 0, 9}}}, triclinic{{{7, 0, 0}, {3, 6, 0}, {-2, 2.5, 8}}}, small{{{2.1, 0, 0}, {0.7, 1.9, 0}, {0.3, 0.4, 2.4}}},
      flat{{{12, 0, 0}, {0, 3, 0}, {0, 0, 20}}};
  std::vector<std::vector<Structure>> cases;
  for (const auto& pbc : {std::array<bool, 3>{true, true, true}, {true, true, false}, {false, true, false}, {false, false, false}})
    cases.push_back({random_structure(g, 90, cube, pbc)}), cases.push_back({random_structure(g, 70, triclinic, pbc)}),
        cases.push_back({random_structure(g, 5, small, pbc)}), cases.push_back({random_structure(g, 40, flat, pbc)});
  cases.push_back({random_structure(g, 300, Matrix3{{{40, 0, 0}, {0, 41, 0}, {5, 0, 38}}}, {true, true, true})});  // several bins in reach, many in all
  std::vector<Structure> batch;
  for (const auto& one : cases)
    if (one.front().positions.size() < 80) batch.push_back(one.front());
  batch.insert(batch.begin() + 2, Structure{});
  Structure lone;
  lone.numbers = {1}, lone.positions = {{1, 2, 3}};
  batch.push_back(lone);
  cases.push_back(batch);
  for (const auto& structures : cases)
    for (const double range : {2.7, 5.5}) {
      std::vector<int> species;
      for (const Structure& s : structures)
        for (const int z : s.numbers) species.push_back(z - 1);
      const Made made = make(structures, species, 4, range);  // one of the species has no atom
      std::vector<Edge> edges = made.edges;
      std::sort(edges.begin(), edges.end());
      REQUIRE(edges == expected(structures, range));

      // Nodes by species; edges of a node by the species of their senders, in runs; the edges that a node sends, ascending.
      const int n = static_cast<int>(made.node.size());
      REQUIRE(std::set<int>(made.node.begin(), made.node.end()).size() == made.node.size());
      REQUIRE(std::is_sorted(made.species.begin(), made.species.end()));
      bool right = true;
      for (int i = 0; i < n; ++i) {
        right &= made.species[i] == species[made.node[i]];
        right &= made.run_edge[4 * i] == made.first_edge[i];
        for (int z = 0; z < 4; ++z)
          for (int e = made.run_edge[4 * i + z]; e < made.run_edge[4 * i + z + 1]; ++e) right &= made.species[made.sender[e]] == z;
        right &= std::is_sorted(made.sent_edge.begin() + made.first_sent[i], made.sent_edge.begin() + made.first_sent[i + 1]);
        for (int k = made.first_sent[i]; k < made.first_sent[i + 1]; ++k) right &= made.sender[made.sent_edge[k]] == i;
      }
      REQUIRE(right);
      REQUIRE(made.first_sent.back() == static_cast<int>(made.edges.size()));

      setenv("ADATOM_HOST_ORDER", "reverse", 1);
      const Made reversed = make(structures, species, 4, range);
      unsetenv("ADATOM_HOST_ORDER");
      REQUIRE(reversed.node == made.node);
      REQUIRE(reversed.edges == made.edges);
      REQUIRE(reversed.sent_edge == made.sent_edge);
    }
}

TEST_CASE("both edges of a pair are found, or none, where rounding decides whether it is in range") {
  // A crystal that is turned and moved: distances of neighbours are the range but for rounding.
  std::mt19937 g(3);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  std::size_t found = 0, possible = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    const double a = 1.7 + uniform(g) * 0.3, angle = uniform(g), tilt = uniform(g);
    const double ca = std::cos(angle), sa = std::sin(angle), ct = std::cos(tilt), st = std::sin(tilt);
    const auto turned = [&](double x, double y, double z) {
      return Vector3{ca * x - sa * y, ct * (sa * x + ca * y) - st * z, st * (sa * x + ca * y) + ct * z};
    };
    Structure s;
    const int n = 4;
    s.cell = {turned(n * a, 0, 0), turned(0, n * a, 0), turned(0, 0, n * a)};
    s.pbc = {true, true, true};
    const Vector3 origin{20 * uniform(g), 20 * uniform(g), 20 * uniform(g)};
    for (int k = 0; k < n * n * n; ++k) {
      s.positions.push_back(turned(a * (k % n), a * (k / n % n), a * (k / n / n)));
      for (int c = 0; c < 3; ++c) s.positions.back()[c] += origin[c];
      s.numbers.push_back(1);
    }
    const Made made = make({s}, std::vector<int>(s.numbers.size(), 0), 1, a);
    const std::set<Edge> edges(made.edges.begin(), made.edges.end());
    REQUIRE(edges.size() == made.edges.size());
    for (const Edge& e : made.edges) REQUIRE(edges.count({e.sender, e.receiver, e.structure, {-e.h[0], -e.h[1], -e.h[2]}}) == 1);
    found += edges.size(), possible += 6 * s.numbers.size();
  }
  CHECK(found > possible / 10);
  CHECK(found < possible * 9 / 10);
}

TEST_CASE("exclusive sums of more numbers than two levels of blocks take") {
  const int n = 2048 * 2048 + 77;
  std::vector<int> values(n), totals(2052 + 4);
  for (int k = 0; k < n; ++k) values[k] = k % 5;
  Stream stream;
  NeighbourLists::scan(stream, values.data(), n, totals.data());
  int sum = 0;
  bool right = true;
  for (int k = 0; k < n; ++k) right &= values[k] == sum, sum += k % 5;
  CHECK(right);
}

TEST_CASE("a cell that is too small for a search on a device, and positions that are impossible") {
  Structure s;
  s.numbers = {1}, s.positions = {{0, 0, 0}};
  s.cell = {{{0.005, 0, 0}, {0, 5, 0}, {0, 0, 5}}}, s.pbc = {true, true, true};
  CHECK_THROWS_WITH(search_box(s, 5.0), Catch::Contains("cell vector 0 (0.005, 0, 0)") && Catch::Contains("too small"));
  s.cell = {{{5, 0, 0}, {0, 5, 0}, {0, 0, 5}}};
  s.positions[0][1] = NAN;
  CHECK_THROWS_WITH(make({s}, {0}, 1, 3.0), Catch::Contains("atom 0 has a position that is not finite"));
  s.pbc[2] = false;
  CHECK_THROWS_WITH(search_box(s, 3.0), Catch::Contains("position of atom 0 (counted from 0)"));
}
