// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>
#include <set>

#include "adatom/elements.hpp"

using namespace adatom;

TEST_CASE("elements: symbols and atomic numbers") {
  // One per row and block of the periodic table, so that a missing or doubled symbol shifts one of them.
  const std::pair<int, const char*> known[] = {{1, "H"},   {2, "He"},  {8, "O"},   {10, "Ne"}, {18, "Ar"}, {26, "Fe"},  {36, "Kr"}, {54, "Xe"},
                                               {57, "La"}, {71, "Lu"}, {78, "Pt"}, {86, "Rn"}, {92, "U"},  {103, "Lr"}, {118, "Og"}};
  for (const auto& [z, symbol] : known) {
    CHECK(element_symbol(z) == symbol);
    CHECK(atomic_number(symbol) == z);
  }
  std::set<std::string> distinct;
  for (int z = 1; z <= max_atomic_number; ++z) {
    distinct.insert(element_symbol(z));
    CHECK(atomic_number(element_symbol(z)) == z);
  }
  CHECK(distinct.size() == 118);
  CHECK(element_names({1, 8, 0}) == "H (1), O (8), 0");
}

TEST_CASE("elements: errors") {
  CHECK_THROWS_WITH(element_symbol(0), "atomic number 0 is no element: expected 1 to 118");
  CHECK_THROWS_WITH(element_symbol(119), Catch::Contains("119"));
  CHECK_THROWS_WITH(atomic_number("FE"), Catch::Contains("'FE' is no chemical symbol"));
  CHECK_THROWS_WITH(atomic_number("D"), Catch::Contains("isotope of hydrogen: write H"));
  CHECK_THROWS_AS(atomic_number(""), std::invalid_argument);
}
