// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cmath>
#include <set>

#include "../potential/structures.hpp"
#include "datasets/disjoint_sets.hpp"
#include "datasets/fingerprint.hpp"
#include "datasets/random.hpp"
#include "datasets/symmetry.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using adatom::test::random_structure;

namespace {

Fingerprint of(const Structure& s) {
  double nearest;
  return fingerprint(s, nearest);
}

/// Every vector of a structure, mapped.
template <class Map>
Structure mapped(Structure s, Map map) {
  for (Vector3& v : s.cell) v = map(v);
  for (Vector3& r : s.positions) r = map(r);
  return s;
}

Structure repeated(const Structure& s, int times) {
  Structure result = s;
  for (Vector3& vector : result.cell) {
    const Structure unit = result;
    for (int t = 1; t < times; ++t)
      for (std::size_t i = 0; i < unit.numbers.size(); ++i) {
        result.numbers.push_back(unit.numbers[i]);
        result.positions.push_back(unit.positions[i]);
        for (int x = 0; x < 3; ++x) result.positions.back()[x] += t * vector[x];
      }
    for (double& x : vector) x *= times;
  }
  return result;
}

Structure crystal(double a, const std::vector<Vector3>& fractions, const std::vector<int>& numbers) {
  Structure s;
  s.pbc = {true, true, true};
  s.cell = {{{a, 0, 0}, {0, a, 0}, {0, 0, a}}};
  s.numbers = numbers;
  for (const Vector3& f : fractions) s.positions.push_back({a * f[0], a * f[1], a * f[2]});
  return s;
}

const std::vector<Vector3> fcc = {{0, 0, 0}, {0, 0.5, 0.5}, {0.5, 0, 0.5}, {0.5, 0.5, 0}};

}  // namespace

TEST_CASE("fingerprint: what changes nothing") {
  for (const auto pbc : {std::array{true, true, true}, std::array{true, false, true}, std::array{false, false, false}}) {
    const Structure s = random_structure(12, 6.0, pbc, 3, 0.8);
    const Fingerprint a = of(s);
    const double c = std::cos(0.7), d = std::sin(0.7);
    CHECK(distance(a, of(mapped(s, [&](const Vector3& v) { return Vector3{c * v[0] - d * v[1], d * v[0] + c * v[1], v[2]}; }))) < 1e-6);
    CHECK(distance(a, of(mapped(s, [](const Vector3& v) { return Vector3{-v[1], v[2], v[0]}; }))) < 1e-6);
    Structure other = s;
    for (Vector3& r : other.positions) r = {r[0] + 1.3, r[1] - 20, r[2] + 0.1};
    std::rotate(other.numbers.begin(), other.numbers.begin() + 5, other.numbers.end());
    std::rotate(other.positions.begin(), other.positions.begin() + 5, other.positions.end());
    for (int x = 0; x < 3; ++x)
      if (pbc[0]) other.positions[2][x] += 2 * s.cell[0][x];
    if (pbc[0] && pbc[2])
      for (int x = 0; x < 3; ++x) other.cell[0][x] += s.cell[2][x];
    CHECK(distance(a, of(other)) < 1e-6);
    if (pbc[0] && pbc[1]) CHECK(distance(a, of(repeated(s, 2))) < 1e-6);
  }
}

TEST_CASE("fingerprint: what does") {
  Structure s = random_structure(12, 6.0, {true, true, true}, 4, 0.8);
  const Fingerprint a = of(s);
  Structure other = s;
  std::swap(other.numbers[0], other.numbers[1]);
  REQUIRE(s.numbers[0] != s.numbers[1]);
  CHECK(distance(a, of(other)) > 1e-2);
  other = s;
  for (int& z : other.numbers) z = z == 8 ? 16 : z;
  CHECK(distance(a, of(other)) > 1e-2);
  // Displacements by a hundredth of an angstrom are seen, also in a perfect crystal, and grow in proportion.
  for (const Structure& start : {s, repeated(crystal(3.6, fcc, {29, 29, 29, 29}), 2)}) {
    double changes[2];
    for (int k = 0; k < 2; ++k) {
      Random random(5);
      other = start;
      for (Vector3& r : other.positions)
        for (double& x : r) x += (k + 1) * 1e-8 * (static_cast<double>(random.below(2'000'001)) - 1e6);
      changes[k] = distance(of(start), of(other));
    }
    CHECK(changes[0] > 5e-4);
    CHECK(changes[0] < 5e-2);
    CHECK(changes[1] / changes[0] == Approx(2).epsilon(0.3));
  }
}

TEST_CASE("fingerprint: few atoms, none, and overlapping ones") {
  Structure s;
  s.numbers = {1, 1};
  s.positions = {{0, 0, 0}, {0, 0, 0.74}};
  double nearest;
  fingerprint(s, nearest);
  CHECK(nearest == Approx(0.74));
  s.positions[1][2] = 30;
  const Fingerprint far = fingerprint(s, nearest);
  CHECK(std::isinf(nearest));
  CHECK(distance(far, far) == 0);
  s.positions[1][2] = 0;
  CHECK_THROWS_AS(fingerprint(s, nearest), std::invalid_argument);
}

TEST_CASE("fingerprint: near pairs are those of all pairs, but for crowds") {
  Random random(1);
  std::vector<Fingerprint> list;
  for (int i = 0; i < 300; ++i) {
    Fingerprint a;
    for (float& x : a) x = static_cast<float>(random.below(1000)) * 1e-3f;
    list.push_back(a);
    if (i % 3 == 0) {  // one that lies near, about as far as the tolerance
      for (float& x : a) x += static_cast<float>(random.below(100)) * 1e-6f * static_cast<float>(i % 7 + 1);
      list.push_back(a);
    }
  }
  const double tolerance = 3e-4;
  std::set<std::pair<std::size_t, std::size_t>> expected;
  for (std::size_t j = 0; j < list.size(); ++j)
    for (std::size_t i = 0; i < j; ++i)
      if (distance(list[i], list[j]) <= tolerance) expected.emplace(i, j);
  CHECK((expected.size() > 20 && expected.size() < 90));
  const auto found = near_pairs(list, tolerance);
  CHECK(std::set(found.begin(), found.end()) == expected);
  const auto crowd = near_pairs(std::vector<Fingerprint>(1000, list[0]), tolerance);
  CHECK(crowd.size() == 999);
  CHECK(std::all_of(crowd.begin(), crowd.end(), [](const auto& pair) { return pair.first == 0; }));
  CHECK(near_pairs({}, tolerance).empty());
}

TEST_CASE("structure hash: exact copies only") {
  const Structure s = random_structure(5, 6.0, {true, true, false}, 1, 0.8);
  Structure other = s;
  CHECK(structure_hash(other) == structure_hash(s));
  SECTION("position") { other.positions[4][2] = std::nextafter(other.positions[4][2], 9.0); }
  SECTION("number") { other.numbers[1] = 2; }
  SECTION("cell") { other.cell[0][0] += 1e-12; }
  SECTION("pbc") { other.pbc[2] = true; }
  SECTION("order") { std::swap(other.positions[0], other.positions[1]); }
  SECTION("sign of zero") {
    Structure zero = s;
    zero.positions[0][0] = 0.0, other.positions[0][0] = -0.0;
    CHECK(structure_hash(zero) == structure_hash(other));
  }
  CHECK(structure_hash(other) != structure_hash(s));
}

TEST_CASE("disjoint sets") {
  DisjointSets sets(6);
  sets.join(5, 2), sets.join(1, 5), sets.join(3, 4), sets.join(2, 1);
  CHECK(sets.sets() == std::vector<std::vector<std::size_t>>{{1, 2, 5}, {3, 4}});
  CHECK((sets.root(5) == 1 && sets.root(0) == 0));
}

TEST_CASE("space groups of known crystals") {
  CHECK(space_group(crystal(3.6, fcc, {29, 29, 29, 29}), 1e-3) == "Fm-3m (225)");
  CHECK(space_group(crystal(2.87, {{0, 0, 0}, {0.5, 0.5, 0.5}}, {26, 26}), 1e-3) == "Im-3m (229)");
  CHECK(space_group(crystal(4.12, {{0, 0, 0}, {0.5, 0.5, 0.5}}, {55, 17}), 1e-3) == "Pm-3m (221)");
  // A low symmetry with a cell that is no multiple of the identity: tells rows from columns: alpha-quartz.
  const double a = 4.913, c = 5.405, s = std::sqrt(0.75), u = 0.4697, x = 0.4135, y = 0.2669, z = 0.1191;
  Structure quartz;
  quartz.pbc = {true, true, true};
  quartz.cell = {{{a, 0, 0}, {-0.5 * a, s * a, 0}, {0, 0, c}}};
  const std::vector<Vector3> fractions = {{u, 0, 2.0 / 3}, {0, u, 1.0 / 3},          {-u, -u, 0},
                                          {x, y, z},       {-y, x - y, z + 2.0 / 3}, {y - x, -x, z + 1.0 / 3},
                                          {y, x, -z},      {x - y, -y, 1.0 / 3 - z}, {-x, y - x, 2.0 / 3 - z}};
  for (const Vector3& f : fractions) {
    auto& r = quartz.positions.emplace_back(Vector3{});
    for (int k = 0; k < 3; ++k)
      for (int i = 0; i < 3; ++i) r[i] += f[k] * quartz.cell[k][i];
    quartz.numbers.push_back(quartz.numbers.size() < 3 ? 14 : 8);
  }
  CHECK(space_group(quartz, 1e-3) == "P3_221 (154)");
  CHECK(space_group(random_structure(12, 6.0, {true, true, true}, 4, 0.8), 1e-3) == "P1 (1)");
  CHECK(space_group(random_structure(12, 6.0, {true, true, false}, 4, 0.8), 1e-3).empty());
}

TEST_CASE("symmetry: what spglib would crash on has no space group") {
  const Structure good = crystal(3.6, fcc, {29, 29, 29, 29});
  for (const double x : {1e9, 1e100, 1e308, -1e308, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    INFO(x);
    Structure s = good;
    s.positions[1][0] = x;
    CHECK(space_group(s, 1e-3).empty());
    s = good;
    s.cell = {{{x, 0, 0}, {0, x, 0}, {0, 0, x}}};
    CHECK(space_group(s, 1e-3).empty());
  }
  CHECK(space_group(good, 1.7) != "");
  CHECK(space_group(good, 1.9).empty());
  // Found by a search over random structures: more than the cell's smallest height.
  const Structure thin{{{{33.54, 0, 0}, {0, 5.05, 0}, {0.1, 0.4, 0.29}}}, {true, true, true}, {29, 8}, {{0, 0, 0}, {16.8, 2.5, 0.1}}};
  for (const double tolerance : {0.2, 1.0, 2.98}) CHECK(space_group(thin, tolerance).empty());
  Structure fewer = good;
  fewer.positions.pop_back();
  CHECK(space_group(fewer, 1e-3).empty());
  for (const double tolerance : {-1.0, 0.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_WITH(space_group(good, tolerance), Catch::Contains("tolerance of space groups"));
  CHECK(space_group(good, 1e-3) == "Fm-3m (225)");
}
