// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <sys/resource.h>

#include "datasets/extxyz_writer.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

TEST_CASE("extxyz: as ASE writes it") {
  const auto frames = parse(
      "2\n"
      "Lattice=\"4.0 0.0 0.0 1.0 5.0 0.0 0.5 0.25 6.0\" Properties=species:S:1:pos:R:3:tags:I:1:forces:R:3 energy=-3.5 "
      "stress=\"0.1 0.6 0.5 0.6 0.2 0.4 0.5 0.4 0.3\" config_type=bulk pbc=\"T F T\"\n"
      "Cu       0.00000000       1.00000000       2.00000000        7       0.10000000      -0.20000000       0.30000000\n"
      "O        1.50000000       0.00000000      -1.00000000        0      -0.10000000       0.20000000      -0.30000000\n");
  REQUIRE(frames.size() == 1);
  const Frame& f = frames[0];
  CHECK(f.structure.numbers == std::vector<int>{29, 8});
  CHECK(f.structure.cell == Matrix3{{{4, 0, 0}, {1, 5, 0}, {0.5, 0.25, 6}}});
  CHECK(f.structure.pbc == std::array{true, false, true});
  CHECK(f.structure.positions == std::vector<Vector3>{{0, 1, 2}, {1.5, 0, -1}});
  CHECK(f.forces == std::vector<Vector3>{{0.1, -0.2, 0.3}, {-0.1, 0.2, -0.3}});
  CHECK(f.energy == -3.5);
  CHECK(f.stress == Voigt{0.1, 0.2, 0.3, 0.4, 0.5, 0.6});
  CHECK(f.config_type == "bulk");
  CHECK(f.weights == Weights{});
  CHECK(f.charges.empty());
}

TEST_CASE("extxyz: dialects") {
  SECTION("plain xyz with a free comment and further columns") {
    const auto f = parse("1\nJoe's \"water, T = 300 K\nO 1 2 3 0.5 0.5 0.5\n");
    CHECK(f[0].structure.positions[0] == Vector3{1, 2, 3});
    CHECK(f[0].structure.pbc == std::array{false, false, false});
    CHECK(f[0].forces.empty());
    CHECK_FALSE(f[0].energy);
  }
  SECTION("an empty comment, Windows line ends, no newline at the end, blank lines between frames") {
    const auto f = parse("1\r\n\r\nH 0 0 0\r\n\r\n1\r\nenergy=2\r\nhe 1 0 0");
    REQUIRE(f.size() == 2);
    CHECK((f[1].structure.numbers == std::vector<int>{2} && f[1].energy == 2.0));
  }
  SECTION("columns in another order; atomic numbers; Fortran exponents") {
    const auto f = parse("1\nProperties=force:R:3:charge:R:1:pos:R:3:Z:I:1 energy=-1.0D+01\n0.1D0 0.2D0 -3.0d-1 0.25 1 2 3 78\n");
    CHECK(f[0].structure.numbers == std::vector<int>{78});
    CHECK(f[0].structure.positions[0] == Vector3{1, 2, 3});
    CHECK(f[0].forces[0] == Vector3{0.1, 0.2, -0.3});
    CHECK(f[0].charges == std::vector<double>{0.25});
    CHECK(f[0].energy == -10.0);
  }
  SECTION("atomic numbers in the species column, symbols in any case, species and Z") {
    const auto f = parse("3\n\n6 0 0 0\nCU 1 0 0\nsI 2 0 0\n1\nProperties=species:S:1:Z:I:1:pos:R:3\nX1 3 0 0 0\n");
    CHECK(f[0].structure.numbers == std::vector<int>{6, 29, 14});
    CHECK(f[1].structure.numbers == std::vector<int>{3});
  }
  SECTION("lattices and periodicity") {
    const char* atom = "\nH 0 0 0\n";
    const auto pbc = [&](const std::string& comment) {
      const Frame f = parse("1\n" + comment + atom)[0];
      return std::string() + (f.structure.pbc[0] ? "T" : "F") + (f.structure.pbc[1] ? "T" : "F") + (f.structure.pbc[2] ? "T" : "F");
    };
    CHECK(pbc("energy=1") == "FFF");
    CHECK(pbc("Lattice=\"5 0 0 0 5 0 0 0 5\"") == "TTT");
    CHECK(pbc("lattice=\"5 0 0 0 5 0 0 0 5\"") == "TTT");
    CHECK(pbc("Lattice=\"0 0 0 0 0 0 0 0 0\"") == "FFF");
    CHECK(pbc("Lattice={5 0 0 0 5 0 0 0 5} pbc={T F T}") == "TFT");
    CHECK(pbc("Lattice=[[5, 0, 0], [0, 5, 0], [0, 0, 5]] pbc=[True, False, False]") == "TFF");
    CHECK(pbc("Lattice='5 0 0 0 5 0 0 0 5' PBC=\"1 0 1\"") == "TFT");
    CHECK(pbc("Lattice=\"5 0 0 0 5 0 0 0 5\" pbc=F") == "FFF");
    CHECK(pbc("Lattice=\"0 0 0 0 0 0 0 0 9\" pbc=\"F F T\"") == "FFT");
    CHECK(parse("1\nLattice=\"4 5 6\"\nH 0 0 0\n")[0].structure.cell == Matrix3{{{4, 0, 0}, {0, 5, 0}, {0, 0, 6}}});
  }
  SECTION("cell vectors after the atoms, as ASE's vec_cell") {
    const auto f = parse("1\n\nH 0 0 0\nVEC1 4 0 0\nVEC2 0 5 0\n1\nLattice=\"3 3 3\" virial=\"0 0 0 0 0 27\"\nH 0 0 0\n");
    REQUIRE(f.size() == 2);
    CHECK(f[0].structure.cell == Matrix3{{{4, 0, 0}, {0, 5, 0}, {0, 0, 0}}});
    CHECK(f[0].structure.pbc == std::array{true, true, false});
    CHECK(f[1].stress == Voigt{0, 0, 0, 0, 0, -1});
  }
}

TEST_CASE("extxyz: stress and virial") {
  const auto stress = [](const std::string& entries) {
    return parse("1\nLattice=\"2 2 2\" " + entries + "\nH 0 0 0\n")[0].stress;  // 8 cubic angstrom
  };
  CHECK_FALSE(stress("energy=1"));
  CHECK(stress("stress=\"1 2 3 4 5 6\"") == Voigt{1, 2, 3, 4, 5, 6});
  CHECK(stress("virial=\"-8 0 0 0 -16 -4 0 -4 8\"") == Voigt{1, 2, -1, 0.5, 0, 0});
  CHECK(stress("virials=[[-8, 0, 0], [0, -16, 0], [0, 0, 8]]") == Voigt{1, 2, -1, 0, 0, 0});
  CHECK(stress("stress=\"1 1 1 0 0 0\" virial=\"-8 -8 -8 0 0 0\"") == Voigt{1, 1, 1, 0, 0, 0});
  CHECK_FALSE(parse("1\nstress=\"0 0 0 0 0 0 0 0 0\" virial=\"0 0 0 0 0 0\"\nH 0 0 0\n")[0].stress);
}

TEST_CASE("extxyz: arrays as ASE writes them in JSON, and empty values") {
  const Frame f = parse("1\nLattice=\"2 2 2\" stress=\"_JSON [[1.0, 0.5, 0], [0.5, 2, 0], [0, 0, 3]]\" energy=\"_JSON [-1.5]\"\nH 0 0 0\n")[0];
  CHECK((f.stress == Voigt{1, 2, 3, 0, 0, 0.5} && f.energy == -1.5));
  const Frame g = parse("1\nLattice=\"2 2 2\" note= energy=-2 group= head= \"config_type\"=bulk other=\nH 0 0 0\n")[0];
  CHECK((g.energy == -2.0 && g.group.empty() && g.head.empty() && g.config_type == "bulk"));
  const Frame h = parse("1\ngroup= \"a=b\" head = c config_type= QUJD== energy= -1\nH 0 0 0\n")[0];
  CHECK((h.group == "a=b" && h.head == "c" && h.config_type == "QUJD==" && h.energy == -1.0));
  const Frame k = parse("1\ngroup= energy = -2 head= \"config_type\" = bulk\nH 0 0 0\n")[0];  // blanks around the equals sign
  CHECK((k.group.empty() && k.energy == -2.0 && k.head.empty() && k.config_type == "bulk"));
}

TEST_CASE("extxyz: bytes that are no UTF-8 are Latin-1") {
  CHECK(parse("1\nconfig_type=Gr\xfc\xdf\x65\nH 0 0 0\n")[0].config_type == "Gr\xc3\xbc\xc3\x9f\x65");
  CHECK(parse("1\nconfig_type=Gr\xc3\xbc\xc3\x9f\x65\nH 0 0 0\n")[0].config_type == "Gr\xc3\xbc\xc3\x9f\x65");
  CHECK_THROWS_WITH(parse("1\n\nH\xfc 0 0 0\n"), Catch::Contains("'H\xc3\xbc' is no chemical symbol"));
}

TEST_CASE("extxyz: a text that comes from elsewhere") {
  std::string text = "1\nenergy=-2\nH 0 0 0\n1\nenergy=x\nH 0 0 0\n";
  const ByteSource by_threes = [at = std::size_t{0}, &text](char* data, std::size_t bytes) mutable {
    const std::size_t n = text.copy(data, std::min<std::size_t>(bytes, 3), at);
    at += n;
    return n;
  };
  ExtxyzReader lines("t.xyz.gz", {}, by_threes, true), frames("t.traj", {}, by_threes, false);
  Frame frame;
  CHECK((lines.next(frame) && frame.energy == -2.0 && lines.where() == "t.xyz.gz: frame 0 (line 1)" && lines.end() == 20));
  CHECK_THROWS_WITH(lines.next(frame), Catch::Contains("t.xyz.gz: frame 1 (counted from 0), line 5: "));
  CHECK((frames.next(frame) && frames.where() == "t.traj: frame 0"));
  CHECK_THROWS_WITH(frames.next(frame), Catch::StartsWith("t.traj: frame 1 (counted from 0): the key 'energy'"));
}

TEST_CASE("extxyz: keys named by the user") {
  LabelKeys keys;
  keys.energy = "REF_energy", keys.forces = "REF_forces", keys.stress = "REF_stress", keys.group = "traj", keys.head = "level", keys.weight = "w";
  const std::string text =
      "1\nLattice=\"2 2 2\" Properties=species:S:1:pos:R:3:forces:R:3:REF_forces:R:3 energy=1 REF_energy=2 REF_stress=\"1 2 3 0 0 0\" "
      "traj=\"run 7\" level=pbe w=0.5 config_energy_weight=3\nH 0 0 0 1 1 1 2 2 2\n";
  const Frame f = parse(text, keys)[0];
  CHECK((f.energy == 2.0 && f.forces[0] == Vector3{2, 2, 2} && f.stress == Voigt{1, 2, 3, 0, 0, 0}));
  CHECK((f.group == "run 7" && f.head == "pbe" && f.weights == Weights{0.5, 3, 1, 1}));
  keys.forces = keys.energy = "";
  const Frame none = parse(text, keys)[0];
  CHECK((!none.energy && none.forces.empty()));
}

TEST_CASE("extxyz: round trip to the last bit, and atomic") {
  const Folder folder;
  std::vector<Frame> frames;
  for (unsigned seed = 0; seed < 40; ++seed) frames.push_back(random_frame(1 + static_cast<int>(seed) * 3, seed));
  frames[3].energy.reset(), frames[4].forces.clear(), frames[5].stress.reset(), frames[6].charges.clear();
  frames[7].structure.pbc = {}, frames[7].structure.cell = {}, frames[7].stress.reset();
  frames[8].config_type = "a \"quoted\" \\ {label}=1", frames[8].group.clear();
  const auto write = [&](const LabelKeys& keys) {
    ExtxyzWriter writer(folder / "t.xyz", keys);
    for (const Frame& frame : frames) writer.write(frame);
    CHECK_FALSE(std::filesystem::exists(folder / "t.xyz"));
    writer.commit();
    CHECK(folder.files() == 1);
  };
  LabelKeys keys;
  SECTION("usual keys") {}
  SECTION("other keys") { keys.energy = "REF energy", keys.forces = "dft", keys.stress = "s", keys.config_type = "kind", keys.weight = "w"; }
  write(keys);
  const auto again = read_all(folder / "t.xyz", keys);
  REQUIRE(again.size() == frames.size());
  for (std::size_t i = 0; i < frames.size(); ++i) check_same(again[i], frames[i]);
}

TEST_CASE("extxyz: a writer that is not committed leaves nothing") {
  const Folder folder;
  {
    ExtxyzWriter writer(folder / "t.xyz");
    writer.write(random_frame(3, 1));
    Frame bad = random_frame(3, 1);
    bad.forces.pop_back();
    CHECK_THROWS_WITH(writer.write(bad), Catch::Contains("t.xyz: frame 1 cannot be written: it has 2 forces for 3 atoms"));
  }
  CHECK(folder.files() == 0);
}

TEST_CASE("extxyz: where the frames lie in the file") {
  const Folder folder;
  const std::string first = "1\n\nH 0 0 0\n", second = "2\r\nenergy=1\r\nH 0 0 0\r\nH 1 0 0\r\n", third = "1\n\nHe 0 0 0";
  write_bytes(folder / "t.xyz", first + "\n" + second + third);
  ExtxyzReader reader(folder / "t.xyz");
  const std::string bytes = read_bytes(folder / "t.xyz");
  std::vector<std::string> pieces;
  for (Frame frame; reader.next(frame);) pieces.push_back(bytes.substr(reader.begin(), reader.end() - reader.begin()));
  CHECK(pieces == std::vector<std::string>{first, second, third});
  CHECK(reader.index() == 2);
  CHECK_THAT(reader.where(), Catch::EndsWith("t.xyz: frame 2 (line 9)"));
}

TEST_CASE("extxyz: memory does not grow with the file") {
  const Folder folder;
  {
    ExtxyzWriter writer(folder / "t.xyz");
    const Frame frame = random_frame(200, 1);
    for (int i = 0; i < 1500; ++i) writer.write(frame);
    writer.commit();
  }
  REQUIRE(std::filesystem::file_size(folder / "t.xyz") > 40'000'000);
  // Frames and lines take well under 8 MiB; the file would take 40.
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  ExtxyzReader reader(folder / "t.xyz");
  Frame frame;
  REQUIRE(reader.next(frame));
  const auto before = peak();
  while (reader.next(frame)) {
  }
  CHECK(reader.index() == 1499);
  CHECK(peak() - before < 8 * 1024);
}

TEST_CASE("extxyz: the real data sets") {
  const std::pair<const char*, int> files[] = {{"3bpa/train.extxyz", 500},        {"3bpa/isolated_atoms.extxyz", 4}, {"mlearn_Cu/train.extxyz", 262},
                                               {"mlearn_Si/test.extxyz", 25},     {"formate_cu/test.extxyz", 190},   {"water_pbe0ts/test.extxyz", 80},
                                               {"dft_outputs/slab_Cu12CO.xyz", 1}};
  for (const auto& [name, expected] : files) {
    const auto file = shared_file(name);
    if (file.empty()) return;
    INFO(name);
    int frames = 0, labelled = 0, broken = 0;
    ExtxyzReader reader(file);
    for (Frame frame; reader.next(frame); ++frames) {
      labelled += frame.energy && frame.forces.size() == frame.size();
      broken += !defects(frame).empty();
    }
    CHECK(frames == expected);
    CHECK(labelled == (std::string_view(name).starts_with("dft") ? 0 : expected));
    CHECK(broken == 0);
  }
}
