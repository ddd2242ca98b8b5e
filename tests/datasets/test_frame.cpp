// SPDX-License-Identifier: MIT
#include <limits>

#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

std::string first_defect(const Frame& frame) {
  const auto found = defects(frame);
  return found.empty() ? "none" : found.front();
}

}  // namespace

TEST_CASE("frame: defects") {
  CHECK(first_defect(random_frame(5, 1)) == "none");
  CHECK(first_defect(Frame()) == "it has no atoms");
  Frame frame = random_frame(5, 2);
  Structure& s = frame.structure;
  std::string expected;
  SECTION("positions") { s.positions.pop_back(), expected = "it has 4 positions for 5 atoms"; }
  SECTION("number") { s.numbers[2] = 119, expected = "atom 2 has the atomic number 119, expected 1 to 118"; }
  SECTION("position") { s.positions[3] = {0, not_a_number, 1}, expected = "the position of atom 3 is (0, nan, 1)"; }
  SECTION("cell") { s.cell[1] = {0, not_a_number, 1}, expected = "cell vector 1 is (0, nan, 1)"; }
  SECTION("far away") { s.positions[3] = {0, 1e308, 1}, expected = "the position of atom 3 is (0, 1e+308, 1), expected at most 1e8 angstrom"; }
  SECTION("huge cell") { s.cell[1] = {0, -2e8, 1}, expected = "cell vector 1 is (0, -2e+08, 1), expected at most 1e8 angstrom"; }
  SECTION("flat") {
    s.cell[1] = s.cell[0], s.pbc = {true, true, false};
    expected = "it is periodic, but its periodic cell vectors are zero or linearly dependent";
  }
  SECTION("no cell") { s.cell = {}, expected = "it is periodic, but its periodic cell vectors are zero or linearly dependent"; }
  SECTION("energy") { frame.energy = not_a_number, expected = "its energy is nan"; }
  SECTION("forces") { frame.forces.pop_back(), expected = "it has 4 forces for 5 atoms"; }
  SECTION("force") { frame.forces[4] = {-infinity, 0, 0}, expected = "the force on atom 4 is (-inf, 0, 0)"; }
  SECTION("stress") { (*frame.stress)[5] = not_a_number, expected = "its stress has the component nan"; }
  SECTION("stress without volume") { s.cell = {}, s.pbc = {}, expected = "it has a stress, but its cell has no volume"; }
  SECTION("charges") { frame.charges.pop_back(), expected = "it has 4 charges for 5 atoms"; }
  SECTION("charge") { frame.charges[0] = not_a_number, expected = "the charge of atom 0 is nan"; }
  SECTION("weight") { frame.weights.forces = -1, expected = "its forces weight is -1, expected a number from 0"; }
  SECTION("labels are not needed") { frame.energy.reset(), frame.forces.clear(), frame.stress.reset(), frame.charges.clear(), expected = "none"; }
  CHECK(first_defect(frame) == expected);
}

TEST_CASE("frame: every defect is listed") {
  Frame frame = random_frame(5, 2);
  frame.energy = not_a_number, frame.weights.config = not_a_number, frame.structure.positions[0][0] = infinity;
  CHECK(defects(frame).size() == 3);
}

TEST_CASE("frame: volume") {
  CHECK(volume({{{2, 0, 0}, {1, 3, 0}, {5, 6, 4}}}) == Approx(24));
  CHECK(volume({{{0, 2, 0}, {3, 0, 0}, {0, 0, 4}}}) == Approx(24));
  CHECK(volume({}) == 0);
}

TEST_CASE("frame: isolated atoms") {
  Frame atom;
  atom.structure.numbers = {6};
  atom.structure.positions = {{0, 0, 0}};
  CHECK(is_isolated_atom(atom));
  atom.structure.pbc = {true, true, true};
  atom.structure.cell = {{{12, 0, 0}, {0, 12, 0}, {0, 0, 12}}};
  CHECK(is_isolated_atom(atom));
  atom.structure.cell = {{{12, 0, 0}, {0, 12, 0}, {10, 0, 5}}};  // the image at c - a is 5.4 angstrom away
  CHECK_FALSE(is_isolated_atom(atom));
  atom.structure.pbc[2] = false;
  CHECK(is_isolated_atom(atom));
  atom.structure.pbc[2] = true;
  for (const char* label : {"IsolatedAtom", "isolated_atom"}) {
    atom.config_type = label;
    CHECK(is_isolated_atom(atom));
  }
  atom.config_type = "isolated atoms";
  CHECK_FALSE(is_isolated_atom(atom));
  CHECK_FALSE(is_isolated_atom(random_frame(2, 1)));
}
