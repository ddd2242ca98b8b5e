// SPDX-License-Identifier: MIT
#include <catch2/catch.hpp>

#include "gnn/irreps.hpp"

using namespace adatom::gnn;

TEST_CASE("irrep: parsing and printing", "[irreps]") {
  CHECK(Irrep::parse("0e") == Irrep{0, 1});
  CHECK(Irrep::parse(" 1o ") == Irrep{1, -1});
  CHECK(Irrep::parse("12e") == Irrep{12, 1});
  CHECK(Irrep{3, -1}.str() == "3o");
  CHECK(Irrep{3, -1}.dim() == 7);
  for (const char* text : {"", "e", "1", "1x", "o1", "-1o", "+1o", "1 o", "1oo", "1.0e", "100e", "99999999999e"}) {
    INFO(text);
    CHECK_THROWS_AS(Irrep::parse(text), std::invalid_argument);
  }
}

TEST_CASE("irreps: parsing and printing", "[irreps]") {
  const auto irreps = Irreps::parse("128x0e+ 64x1o + 2e+16x0e");
  REQUIRE(irreps.size() == 4);
  CHECK(irreps.str() == "128x0e+64x1o+1x2e+16x0e");
  CHECK(irreps[1].mul == 64);
  CHECK(irreps[1].ir == Irrep{1, -1});
  CHECK(irreps[1].dim() == 192);
  CHECK(irreps[2].mul == 1);
  CHECK(irreps.dim() == 128 + 192 + 5 + 16);
  CHECK(irreps.lmax() == 2);
  CHECK(irreps.count({0, 1}) == 144);
  CHECK(irreps.count({1, -1}) == 64);
  CHECK(irreps.count({1, 1}) == 0);
  CHECK(irreps.kinds() == std::vector<Irrep>{{0, 1}, {1, -1}, {2, 1}});

  for (const char* text : {"", "  "}) {
    const auto none = Irreps::parse(text);
    CHECK(none.size() == 0);
    CHECK(none.dim() == 0);
    CHECK(none.lmax() == -1);
    CHECK(none.str().empty());
    CHECK(none.kinds().empty());
  }
  for (const char* text : {"+", "0e+", "+0e", "0e++1o", "x1o", "2x", "-2x1o", "2x1", "2.5x1o", "0e,1o", "0e 1o", "2x2x1o", "9999999x0e"}) {
    INFO(text);
    CHECK_THROWS_AS(Irreps::parse(text), std::invalid_argument);
  }
  CHECK_THROWS_WITH(Irreps::parse("8x0e+8y1o"), Catch::Contains("8y1o"));
}

TEST_CASE("irreps: order by degree, then odd before even", "[irreps]") {
  const std::vector<Irrep> ascending{{0, -1}, {0, 1}, {1, -1}, {1, 1}, {2, -1}};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    for (std::size_t j = 0; j < ascending.size(); ++j) CHECK((ascending[i] < ascending[j]) == (i < j));
  }
}

TEST_CASE("irreps: product", "[irreps]") {
  CHECK(product({1, -1}, {2, 1}) == std::vector<Irrep>{{1, -1}, {2, -1}, {3, -1}});
  CHECK(product({2, -1}, {2, -1}) == std::vector<Irrep>{{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}});
  CHECK(product({0, -1}, {3, 1}) == std::vector<Irrep>{{3, -1}});
}
