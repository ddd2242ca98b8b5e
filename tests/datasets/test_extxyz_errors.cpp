// SPDX-License-Identifier: MIT
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;
using Catch::Contains;

namespace {

/// The message with which a file of this text is refused.
std::string refusal(const std::string& text, const LabelKeys& keys = {}) {
  static const Folder folder;
  write_bytes(folder / "t.xyz", text);
  try {
    read_all(folder / "t.xyz", keys);
  } catch (const DataError& error) {
    CHECK_THAT(error.what(), Catch::StartsWith((folder / "t.xyz").string() + ": "));
    return std::string(error.what()).substr((folder / "t.xyz").string().size() + 2);
  }
  return "it was read";
}

const std::string good = "1\nenergy=1\nH 0 0 0\n";

std::string comment(const std::string& text) { return "1\n" + text + "\nH 0 0 0\n"; }

}  // namespace

TEST_CASE("extxyz errors: no such file, folder, other kinds of files") {
  const Folder folder;
  CHECK_THROWS_WITH(read_all(folder / "none.xyz"), Contains("none.xyz: cannot open it: No such file or directory"));
  CHECK_THROWS_WITH(read_all(folder.path), Contains("it is a folder"));
  CHECK_THAT(refusal(""), Contains("it has no frames"));
  CHECK_THAT(refusal("\n\n"), Contains("it has no frames"));
  CHECK_THAT(refusal("\x1f\x8b\x08 and so on"), Contains("it is compressed: unpack it first"));
  CHECK_THAT(refusal("element H\n"), Contains("frame 0 (counted from 0), line 1: expected the number of atoms of a frame, found 'element H': is this an xyz"));
  CHECK_THAT(refusal(std::string("1\n\0\0\n", 5)), Contains("line 2 has a zero byte"));
}

TEST_CASE("extxyz errors: number of atoms") {
  CHECK_THAT(refusal("0\n\n"), Contains("line 1: a frame of 0 atoms, expected 1 to"));
  CHECK_THAT(refusal("-3\n\n"), Contains("a frame of -3 atoms"));
  CHECK_THAT(refusal("99999999999999999999\n\n"), Contains("expected the number of atoms"));
  CHECK_THAT(refusal(good + "1.5\n\n"), Contains("frame 1 (counted from 0), line 4: expected the number of atoms of a frame, found '1.5'"));
  CHECK_THAT(refusal("1\nenergy=1\nH 0 0 0\nH 1 0 0\n" + good), Contains("line 4: expected the number of atoms of a frame, found 'H 1 0 0'"));
  CHECK_THAT(refusal(good + "2\nenergy=1\nH 0 0 0\n" + good), Contains("frame 1 (counted from 0), line 7: atom 1 of 2 has 1 columns, expected 4") &&
                                                                  Contains("does the frame have fewer atoms than its first line says?"));
}

TEST_CASE("extxyz errors: truncated") {
  CHECK_THAT(refusal(good + "2"), Contains("frame 1 (counted from 0), line 4: the file ends where the comment line"));
  CHECK_THAT(refusal("3\n\nH 0 0 0\n"), Contains("the file ends after 1 of the frame's 3 atoms: it is truncated"));
  CHECK_THAT(refusal("1\n\nH 0 0 "), Contains("line 3: atom 0 of 1 has 3 columns, expected 4 (species:S:1:pos:R:3)"));
}

TEST_CASE("extxyz errors: atoms") {
  CHECK_THAT(refusal("1\n\nQq 0 0 0\n"), Contains("line 3: 'Qq' is no chemical symbol"));
  CHECK_THAT(refusal("1\n\n119 0 0 0\n"), Contains("atomic number 119 is no element"));
  CHECK_THAT(refusal("1\nProperties=Z:I:1:pos:R:3\nH 0 0 0\n"), Contains("column Z has 'H', expected an atomic number"));
  CHECK_THAT(refusal("1\n\nH 0 zero 0\n"), Contains("line 3: column 3 (position) has 'zero', expected a number"));
  CHECK_THAT(refusal("1\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 1 2 ***\n"), Contains("column 7 (force) has '***'"));
  CHECK_THAT(refusal("1\nProperties=species:S:1:pos:R:3\nH 0 0 0 1\n"), Contains("has 5 columns, expected 4 (species:S:1:pos:R:3)"));
}

TEST_CASE("extxyz errors: Properties") {
  CHECK_THAT(refusal(comment("Properties=species:S:1:pos:R")), Contains("line 2: Properties='species:S:1:pos:R': expected name:type:columns"));
  CHECK_THAT(refusal(comment("Properties=species:S:1:pos:Q:3")), Contains("'pos' has the type 'Q', expected S, R, I or L"));
  CHECK_THAT(refusal(comment("Properties=species:S:1:pos:R:0")), Contains("'pos' has '0' columns"));
  CHECK_THAT(refusal(comment("Properties=species:S:1:pos:R:2")), Contains("'pos' has 2 columns, expected 3"));
  CHECK_THAT(refusal(comment("Properties=species:S:1:velo:R:3")), Contains("has no positions"));
  CHECK_THAT(refusal(comment("Properties=pos:R:3")), Contains("has no elements"));
  CHECK_THAT(refusal(comment("Properties=species:S:1:pos:R:3:pos:R:3")), Contains("names 'pos' twice"));
  CHECK_THAT(refusal(comment("Properties=species:S:1:pos:R:3:forces:R:1")), Contains("'forces' has 1 columns, expected 3"));
}

TEST_CASE("extxyz errors: the comment line") {
  CHECK_THAT(refusal(comment("energy=\"1")), Contains("line 2: the value of the key 'energy' begins with \" but has no closing"));
  CHECK_THAT(refusal(comment("energy=low")), Contains("the key 'energy' has the value 'low', expected a number"));
  CHECK_THAT(refusal(comment("energy=\"1 2\"")), Contains("expected a number"));
  CHECK_THAT(refusal(comment("energy=1 energy=2")), Contains("the key 'energy' stands twice, as '1' and '2'"));
  CHECK_THAT(refusal(comment("Lattice=\"1 2 3 4\"")), Contains("Lattice='1 2 3 4': expected the 9 numbers"));
  CHECK_THAT(refusal(comment("Lattice=\"a b c\"")), Contains("expected the 9 numbers"));
  CHECK_THAT(refusal(comment("Lattice=\"2 2 2\" pbc=\"T T\"")), Contains("pbc='T T': expected three of T and F"));
  CHECK_THAT(refusal(comment("Lattice=\"2 2 2\" pbc=\"T T maybe\"")), Contains("expected three of T and F"));
  CHECK_THAT(refusal(comment("pbc=\"T T T\"")), Contains("line 2: it is periodic along vector 0 (pbc), but there is no Lattice"));
  CHECK_THAT(refusal(comment("stress=\"1 0 0 0 1 0 0 0 1\"")), Contains("line 2: it has a stress, but no cell with a volume"));
  CHECK_THAT(refusal(comment("virial=\"1 0 0 0 1 0 0 0 1\"")), Contains("it has a virial, but no cell"));
  CHECK_THAT(refusal(comment("Lattice=\"2 2 2\" stress=\"1 2 3\"")), Contains("expected 9 numbers (3x3) or 6"));
  CHECK_THAT(refusal(comment("Lattice=\"2 2 2\" stress=\"1 2 3 4 5 6 7 8 9\"")), Contains("a tensor that is not symmetric"));
  CHECK_THAT(refusal(comment("Lattice=\"2 2 2\" stress=\"1 1 1 0 0 0\" virial=\"8 8 8 0 0 0\"")), Contains("stress and -virial/volume differ by up to 2"));
  CHECK_THAT(refusal(comment("config_weight=heavy")), Contains("'config_weight' has the value 'heavy'"));
}

TEST_CASE("extxyz errors: a key that is in no frame is listed with those that are") {
  LabelKeys keys;
  const std::string text = "1\nProperties=species:S:1:pos:R:3:dft_forces:R:3 dft_energy=1 tag=x\nH 0 0 0 0 0 0\n";
  keys.energy = "REF_energy";
  CHECK_THAT(refusal(text, keys), Contains("the energy key 'REF_energy' is in none of its 1 frames; entries that are: Properties, dft_energy, tag"));
  keys = {};
  keys.forces = "REF_forces";
  CHECK_THAT(refusal(text, keys), Contains("the forces key 'REF_forces' is in none of its 1 frames; columns that are: dft_forces, pos, species"));
  keys = {};
  keys.group = "trajectory";
  CHECK_THAT(refusal(text, keys), Contains("the group key 'trajectory'"));
  keys.group = "tag";
  CHECK(refusal(text, keys) == "it was read");
}

TEST_CASE("extxyz errors: no text however damaged does anything but end in a message") {
  const std::string whole =
      "2\nLattice=\"4.0 0 0 1 5 0 0.5 0.25 6\" Properties=species:S:1:pos:R:3:forces:R:3 energy=-3.5 stress=[[1,0,0],[0,1,0],[0,0,1]] pbc={T T F}\n"
      "Cu 0 1 2 0.1 -0.2 0.3\nO 1.5 0 -1 -0.1 0.2 -0.3\n";
  for (std::size_t at = 0; at < whole.size(); ++at) {
    CHECK_NOTHROW(refusal(whole.substr(0, at)));
    for (const char c : {'\n', '"', '=', '9', ' ', '\xff', '['}) {
      std::string bad = whole;
      bad[at] = c;
      CHECK_NOTHROW(refusal(bad));
    }
  }
}
