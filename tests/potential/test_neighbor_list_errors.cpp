// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <limits>

#include "adatom/neighbor_list.hpp"
#include "structures.hpp"

using namespace adatom;
using Catch::Contains;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();

Structure cube() { return {{{{4, 0, 0}, {0, 4, 0}, {0, 0, 4}}}, {true, true, true}, {8, 1, 1}, {{0, 0, 0}, {1, 0, 0}, {0, 1, 0}}}; }

}  // namespace

TEST_CASE("neighbour list errors: parameters") {
  for (const double bad : {0.0, -1.0, not_a_number, inf}) CHECK_THROWS_WITH(NeighborList(bad), Contains("cutoff"));
  for (const double bad : {-0.1, not_a_number, inf}) CHECK_THROWS_WITH(NeighborList(3.0, bad), Contains("skin"));
  CHECK_THROWS_WITH(NeighborList(3.0).update(cube(), -1), Contains("threads is -1"));
}

TEST_CASE("neighbour list errors: structures, and the list survives them") {
  NeighborList list(3.0, 0.2);
  list.update(cube());
  const auto revision = list.revision();
  const auto sender = list.sender();
  Structure s = cube();
  std::string message;

  SECTION("NaN position") { s.positions[1][2] = not_a_number, message = "position of atom 1 (counted from 0) is (1, 0, nan), not finite"; }
  SECTION("infinite position") { s.positions[2][0] = -inf, message = "position of atom 2"; }
  SECTION("position without digits") { s.positions[2][0] = 1e15, message = "too far for double precision: wrap it"; }
  SECTION("NaN cell") { s.cell[1][1] = not_a_number, message = "cell vector 1 (0, nan, 0) is not finite"; }
  SECTION("NaN in a cell vector that is not periodic") { s.pbc[1] = false, s.cell[1][1] = not_a_number, message = "cell vector 1"; }
  SECTION("zero vector, periodic") { s.cell[2] = {}, message = "cell vector 2 is zero, but the structure is periodic along it"; }
  SECTION("no volume") { s.cell[2] = {4, 4, 0}, message = "linearly dependent"; }
  SECTION("no area") { s.pbc[1] = false, s.cell[2] = {-8, 0, 0}, message = "0 (4, 0, 0), 2 (-8, 0, 0) are linearly dependent"; }
  SECTION("tiny cell") { s.cell = {{{1e-7, 0, 0}, {0, 1e-7, 0}, {0, 0, 1e-7}}}, message = "is the cell in angstrom?"; }
  SECTION("own image") { s.cell[0] = {5e-4, 0, 0}, message = "atoms 0 and 0 (counted from 0), the second in the periodic image (-1, 0, 0)"; }
  SECTION("two atoms at one place") { s.positions[2] = {1, 0, 9e-4}, message = "atoms 1 and 2 (counted from 0) are 0.0009 angstrom apart"; }
  SECTION("through the border") { s.positions[1] = {3.9999, 0, 0}, message = "atoms 0 and 1 (counted from 0), the second in the periodic image (-1, 0, 0),"; }
  SECTION("fewer numbers than positions") { s.numbers.pop_back(), message = "2 atomic numbers but 3 positions"; }

  CHECK_THROWS_AS(list.update(s), std::invalid_argument);
  CHECK_THROWS_WITH(list.update(s), Contains(message));
  CHECK(list.revision() == revision);
  CHECK(list.sender() == sender);
  CHECK(list.positions() == cube().positions);
  CHECK_FALSE(list.update(cube()));
}

TEST_CASE("neighbour list errors: atoms that meet between two rebuilds") {
  NeighborList list(3.0, 1.0);
  Structure s = cube();
  s.positions[1] = {0.4, 0, 0};
  list.update(s);
  s.positions[1] = {5e-4, 0, 0};
  CHECK_THROWS_WITH(list.update(s), Contains("atoms 0 and 1") && Contains("0.0005 angstrom"));
  s.positions[1] = {2e-3, 0, 0};
  CHECK_FALSE(list.update(s));
}

TEST_CASE("neighbour list errors: the same message for any number of threads") {
  Structure s = test::random_structure(400, 12.0, {true, true, true}, 8, 0.5);
  s.positions[390] = s.positions[3];
  s.positions[300] = s.positions[299];
  for (const int threads : {1, 2, 5}) CHECK_THROWS_WITH(NeighborList(3.0).update(s, threads), Contains("atoms 3 and 390 "));
}
