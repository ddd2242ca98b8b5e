// SPDX-License-Identifier: MIT
// Labels that are not what they are taken for: a crystal of a pair potential with right labels, and the same with one fault each.
#include <cmath>

#include "datasets/checks.hpp"
#include "datasets/statistics.hpp"
#include "datasets/units.hpp"
#include "datasets/zeros.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

/// Energy, forces and stress of sum_pairs D (exp(-2 a (r - r0)) - 2 exp(-a (r - r0))) (1 - r/r_c)^2, eV, angstrom.
void label(Frame& frame) {
  constexpr double depth = 0.4, a = 1.5, r0 = 2.6, cutoff = 3.4;
  const Structure& s = frame.structure;
  frame.energy = 0;
  frame.forces.assign(frame.size(), {0, 0, 0});
  Matrix3 virial{};
  const auto images = [&](int k) { return s.pbc[k] ? 1 : 0; };
  for (std::size_t i = 0; i < frame.size(); ++i)
    for (std::size_t j = 0; j < frame.size(); ++j)
      for (int h = -images(0); h <= images(0); ++h)
        for (int k = -images(1); k <= images(1); ++k)
          for (int l = -images(2); l <= images(2); ++l) {
            Vector3 d;
            for (int x = 0; x < 3; ++x) d[x] = s.positions[j][x] - s.positions[i][x] + h * s.cell[0][x] + k * s.cell[1][x] + l * s.cell[2][x];
            const double r = std::hypot(d[0], d[1], d[2]);
            if (r < 1e-9 || r > cutoff) continue;
            const double e1 = std::exp(-a * (r - r0)), morse = depth * (e1 * e1 - 2 * e1), slope = depth * 2 * a * (e1 - e1 * e1), f = 1 - r / cutoff;
            *frame.energy += 0.5 * morse * f * f;
            const double derivative = slope * f * f - 2 * morse * f / cutoff;
            for (int x = 0; x < 3; ++x) {
              frame.forces[i][x] += derivative * d[x] / r;
              for (int y = 0; y < 3; ++y) virial[x][y] += 0.5 * derivative * d[x] * d[y] / r;
            }
          }
  if (!(s.pbc[0] && s.pbc[1] && s.pbc[2])) return;
  const double v = volume(s.cell);
  frame.stress = Voigt{virial[0][0] / v, virial[1][1] / v, virial[2][2] / v, virial[1][2] / v, virial[0][2] / v, virial[0][1] / v};
}

/// 32 atoms of fcc, strained along each axis; atoms off their sites by `amplitude` times what `phase` says.
Frame crystal(const Vector3& strain, double amplitude, double phase) {
  Frame frame;
  constexpr double a = 3.6;
  frame.structure.pbc = {true, true, true};
  for (int x = 0; x < 3; ++x) frame.structure.cell[x] = {}, frame.structure.cell[x][x] = 2 * a * (1 + strain[x]);
  int n = 0;
  for (int h = 0; h < 4; ++h)
    for (int k = 0; k < 4; ++k)
      for (int l = 0; l < 4; ++l) {
        if ((h + k + l) % 2) continue;
        ++n;
        const double site[3] = {0.5 * a * h, 0.5 * a * k, 0.5 * a * l};
        Vector3 r;
        for (int x = 0; x < 3; ++x) r[x] = (1 + strain[x]) * (site[x] + amplitude * std::sin(phase + 1.7 * n + 2.3 * x + 0.1 * n * n));
        frame.structure.positions.push_back(r);
        frame.structure.numbers.push_back(29);
      }
  label(frame);
  return frame;
}

std::vector<Frame> trajectory() {
  std::vector<Frame> frames;
  for (int i = 0; i < 16; ++i) frames.push_back(crystal({0, 0, 0}, 0.15 * std::cos(0.35 * i), 0.3));
  return frames;
}

std::vector<Frame> strained() {
  std::vector<Frame> frames;
  for (int i = 0; i < 16; ++i) frames.push_back(crystal({0.03 * std::sin(2.0 * i), 0.03 * std::sin(3.0 * i), 0.03 * std::sin(5.0 * i + 1)}, 0.05, 0.3 * i));
  return frames;
}

struct Examined {
  Report report;
  std::vector<Finding> findings;
  explicit Examined(const std::vector<Frame>& frames) {
    Statistics statistics(StatisticsOptions{.symmetry_frames = 0});
    statistics.add_source("a.xyz");
    for (std::size_t i = 0; i < frames.size(); ++i) statistics.add(frames[i], {0, static_cast<std::int64_t>(i)});
    report = statistics.finish();
    findings = check(report);
  }
  std::string text(const std::string& code) const {
    for (const Finding& finding : findings)
      if (finding.code == code) return (finding.severity == Severity::error ? "error: " : "") + finding.message + " | " + finding.advice;
    return {};
  }
  const HeadSummary& head() const { return report.heads.at(""); }
};

std::string text_of(const std::vector<Frame>& frames, const std::string& code) { return Examined(frames).text(code); }

void check_no_warning(const std::vector<Frame>& frames) {
  for (const Finding& finding : Examined(frames).findings) {
    INFO(finding.code << ": " << finding.message);
    CHECK((finding.severity == Severity::note));
  }
}

std::vector<Frame> joined(std::vector<Frame> a, const std::vector<Frame>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Frame atom(int z, double energy) {
  Frame frame;
  frame.structure.numbers = {z}, frame.structure.positions = {{0, 0, 0}};
  frame.energy = energy;
  return frame;
}

}  // namespace

TEST_CASE("label checks: right labels bring no warning") {
  check_no_warning(trajectory());
  check_no_warning(strained());
  check_no_warning({crystal({0, 0, 0}, 0, 0), crystal({0.02, 0, 0}, 0, 0)});  // all forces are zero by symmetry: but see below
  const Examined examined(joined(strained(), trajectory()));
  CHECK(examined.head().slope.median == Approx(1).epsilon(0.02));
  CHECK(examined.head().stress_slope.median == Approx(1).epsilon(0.1));
}

TEST_CASE("label checks: energies and forces along a trajectory") {
  auto frames = trajectory();
  SECTION("the conserved energy") {
    for (std::size_t i = 0; i < frames.size(); ++i) frames[i].energy = 3.459 + 1e-5 * static_cast<double>(i % 3);
    CHECK_THAT(text_of(frames, "energy-forces"), Catch::Contains("do not follow from the forces") && Catch::Contains("kinetic energy"));
  }
  SECTION("forces in another order") {
    for (Frame& frame : frames) std::rotate(frame.forces.begin(), frame.forces.begin() + 5, frame.forces.end());
    CHECK_THAT(text_of(frames, "energy-forces"), Catch::Contains("do not follow from the forces") && Catch::Contains("order of the atoms"));
  }
  SECTION("energies per atom") {
    for (Frame& frame : frames) *frame.energy /= 32;
    CHECK_THAT(text_of(frames, "units"), Catch::Contains("energies per atom in place of totals"));
  }
  SECTION("atoms that leave the cell and come back on the other side") {
    for (std::size_t i = 0; i < frames.size(); i += 2)
      for (std::size_t j = 0; j < 32; j += 3) frames[i].structure.positions[j][1] -= 7.2;
    CHECK(Examined(frames).head().slope.pairs >= 10);
    check_no_warning(frames);
  }
}

TEST_CASE("label checks: the sign and the unit of the stress") {
  auto frames = strained();
  SECTION("of cells with the same atoms") {
    for (Frame& frame : frames)
      for (double& x : *frame.stress) x = -x;
    CHECK_THAT(text_of(frames, "stress-sign"), Catch::Contains("wrong sign") && Catch::Contains("-1, or name a virial"));
  }
  SECTION("of other places of the atoms, by the volume") {
    std::vector<Frame> others;
    for (int i = 0; i < 24; ++i) {
      others.push_back(crystal({0.002 * i - 0.04, 0.002 * i - 0.04, 0.002 * i - 0.04}, 0.05, 0.3 * i));
      std::rotate(others.back().structure.positions.begin(), others.back().structure.positions.begin() + i, others.back().structure.positions.end());
      label(others.back());
    }
    check_no_warning(others);
    for (Frame& frame : others)
      for (double& x : *frame.stress) x = -x;
    CHECK_THAT(text_of(others, "stress-sign"), Catch::Contains("falls as the volume grows"));
  }
  SECTION("in kbar") {
    for (Frame& frame : frames)
      for (double& x : *frame.stress) x *= 1602.18;
    CHECK_THAT(text_of(frames, "stress-units"), Catch::Contains("other units"));
  }
}

TEST_CASE("label checks: zeros") {
  auto frames = strained();
  SECTION("surroundings that symmetry makes the same on all sides, and others") {
    for (const double x : one_sidedness(crystal({0.02, -0.01, 0}, 0, 0).structure)) CHECK(x < 1e-10);
    const auto rattled = one_sidedness(frames[0].structure);
    CHECK(std::count_if(rattled.begin(), rattled.end(), [](double x) { return x > 0.004; }) > 25);
  }
  SECTION("forces of some frames") {
    for (const int i : {3, 7, 8}) frames[i].forces.assign(32, {0, 0, 0});
    CHECK_THAT(text_of(frames, "zero-forces"), Catch::StartsWith("error: 3 frames have forces that are all exactly zero") && Catch::Contains("a.xyz: frame 3"));
    for (const int i : {3, 7, 8}) frames[i].weights.forces = 0;
    CHECK(text_of(frames, "zero-forces").empty());
  }
  SECTION("forces of a perfect crystal among others") {
    frames.push_back(crystal({0.01, 0, 0}, 0, 0));
    frames.back().forces.assign(32, {0, 0, 0});
    check_no_warning(frames);
  }
  SECTION("forces of atoms that are held") {
    auto hot = trajectory();
    for (const int i : {0, 1})
      for (const int j : {0, 1, 2, 3}) hot[i].forces[j] = {0, 0, 0};
    const std::string found = text_of(hot, "zeroed-forces");
    CHECK_THAT(found, Catch::Contains("of 64 atoms of 2 frames") && Catch::Contains("a.xyz: frame 0") && Catch::Contains("apply_constraint=False"));
  }
  SECTION("stresses") {
    for (Frame& frame : frames) frame.stress = Voigt{};
    CHECK_THAT(text_of(frames, "zero-stress"), Catch::StartsWith("error: 16 frames have a stress of exactly zero"));
  }
  SECTION("energies: several, or one far from all others") {
    frames[4].energy = 0;
    CHECK_THAT(text_of(frames, "zero-energy"), Catch::StartsWith("error: 1 frame has an energy of exactly zero; the first: a.xyz: frame 4"));
    const double lowest = *frames[5].energy;
    for (Frame& frame : frames) *frame.energy -= lowest;
    CHECK(text_of({frames.begin() + 5, frames.end()}, "zero-energy").empty());  // counted from one of them
  }
}

TEST_CASE("label checks: absurd forces, of a few frames too") {
  auto frames = strained();
  frames.resize(6);
  frames[2].forces[1][0] = 5000;
  CHECK_THAT(text_of(frames, "absurd-forces"), Catch::Contains("a.xyz: frame 2 with 5e+03 eV/angstrom"));
  CHECK(text_of(frames, "units").empty());  // one outlier is no unit
  frames[2].forces[1][0] = 8;               // not absurd, but the forces of its frame no longer add up to zero
  CHECK_THAT(text_of(frames, "absurd-forces"), Catch::Contains("a.xyz: frame 2"));
}

TEST_CASE("label checks: one outlier is no unit") {
  auto frames = strained();
  *frames[3].energy += 32 * 400;
  (*frames[4].stress)[0] = 500;
  frames[5].forces[1][0] += 3e4, frames[5].forces[2][0] -= 3e4;
  CHECK(text_of(frames, "units").empty());
  CHECK_FALSE(text_of(frames, "energy-outliers").empty());
}

TEST_CASE("label checks: energies per atom of frames of several sizes") {
  std::vector<Frame> frames;
  for (int i = 0; i < 12; ++i) {
    frames.push_back(crystal({0.01, 0.01 * std::sin(i), 0}, 0.05, i));
    if (i % 2) {  // half of the cell, in vacuum
      Structure& s = frames.back().structure;
      s.numbers.resize(16), s.positions.resize(16), s.cell[0][0] += 10;
      label(frames.back());
    }
    *frames.back().energy -= 60.0 * static_cast<double>(frames.back().size());
  }
  CHECK(text_of(frames, "units").empty());
  for (Frame& frame : frames) *frame.energy /= static_cast<double>(frame.size());
  CHECK_THAT(text_of(frames, "units"), Catch::Contains("eV per atom, where totals are expected"));
}

TEST_CASE("label checks: a cell that is not periodic") {
  auto frames = trajectory();
  frames[3] = crystal({0.01, 0, 0}, 0, 0);
  frames[3].forces.assign(32, {0, 0, 0});
  for (Frame& frame : frames) frame.structure.pbc = {false, false, false}, frame.stress.reset();
  CHECK(text_of(frames, "zero-forces").empty());  // by a symmetry that is not seen without the images
  CHECK_THAT(text_of(frames, "not-periodic"), Catch::Contains("16 frames with a Lattice that the atoms fill"));
  for (Frame& frame : frames) frame.structure.pbc = {true, true, false};
  CHECK_THAT(text_of(frames, "not-periodic"), Catch::Contains("16 frames"));
  for (Frame& frame : frames) frame.structure.cell[2][2] += 6;  // a slab in vacuum
  CHECK(text_of(frames, "not-periodic").empty());
  for (Frame& frame : frames)  // a cluster in a box, across its boundary
    for (int x = 0; x < 3; ++x) frame.structure.pbc[x] = false, frame.structure.cell[x][x] = 20;
  for (Frame& frame : frames)
    for (Vector3& r : frame.structure.positions) r[0] = std::fmod(r[0] + 15, 20);
  CHECK(text_of(frames, "not-periodic").empty());
}

TEST_CASE("label checks: isolated atoms that do not belong to the others") {
  auto frames = strained();
  const double bound = *frames[0].energy / 32;
  CHECK((bound < -0.05 && bound > -5));
  CHECK(text_of(joined(frames, {atom(29, 0)}), "atomic-energies").empty());
  CHECK_THAT(text_of(joined(frames, {atom(29, bound - 1)}), "atomic-energies"), Catch::Contains("energies less the sum of the atomic energies"));
  CHECK_THAT(text_of(joined(frames, {atom(29, 900)}), "atomic-energies"), Catch::Contains("of bound matter -20 eV per atom to 0 are expected"));
  CHECK_THAT(text_of(joined(frames, {atom(29, 0), atom(29, 0.2)}), "isolated-atoms"), Catch::StartsWith("error: isolated atoms of Cu (29)"));
  CHECK_THAT(text_of(joined(frames, {atom(29, 0), atom(29, 0.01)}), "isolated-atoms"), Catch::StartsWith("isolated atoms of Cu (29)"));
}

TEST_CASE("label checks: atomic energies against compositions") {
  const std::map<int, double> right = {{1, -13.6}, {6, -1029.5}, {8, -2043}};
  const std::vector<CompositionEnergy> some = {
      {{{1, 4}, {6, 1}}, 5, -4 * 13.6 - 1029.5 - 18}, {{{6, 1}, {8, 2}}, 5, -1029.5 - 2 * 2043 - 17}, {{{1, 2}}, 5, -32}};
  CHECK(suspect_atomic_energies(right, some).empty());
  CHECK_FALSE(suspect_atomic_energies({{1, -13.6}, {6, -103}, {8, -2043}}, some).empty());
  CHECK_FALSE(suspect_atomic_energies({{1, 0}, {6, 0}, {8, 0}}, some).empty());
  CHECK_THAT(suspect_atomic_energies({{1, -13.6}, {6, -1029.5}, {8, -2020}}, some), Catch::Contains("depending on the composition"));
  CHECK(suspect_atomic_energies({{1, 0}}, {{{{1, 2}}, 9, 1.0}}).empty());  // counted from something else
  CHECK(suspect_atomic_energies({{1, -13.6}}, {some[0]}).empty());         // nothing is known of carbon
  CHECK(suspect_atomic_energies(right, {}).empty());
}

TEST_CASE("label checks: all-electron totals of one composition in hartree") {
  HeadSummary head;
  for (const int z : {1, 6}) head.atomic_energies.elements[z] = {};  // not determined
  const auto units = [&head](Composition atoms, double energy) {
    head.compositions = {{std::move(atoms), 10, energy}};
    return suspect_units(head);
  };
  const auto is = [](const std::vector<UnitSuspicion>& found, const char* unit) { return found.size() == 1 && found[0].unit == unit; };
  CHECK(is(units({{1, 4}, {6, 1}}, -40.5), "hartree"));  // methane
  CHECK(is(units({{1, 2}, {8, 1}}, -76.4), "hartree"));  // water
  CHECK(is(units({{1, 2}, {8, 1}}, -76.4 * 627.5095), "kcal/mol"));
  CHECK(is(units({{1, 1}, {6, 1}, {17, 3}}, -1419.3), "hartree"));  // chloroform
  CHECK(is(units({{6, 1}, {35, 4}}, -10334), "hartree"));           // CBr4
  // The same in eV, and with pseudopotentials: CP2K, VASP.
  CHECK(units({{1, 4}, {6, 1}}, -40.5 * hartree).empty());
  CHECK(units({{1, 1}, {6, 1}, {17, 3}}, -1388.0).empty());
  CHECK(units({{1, 2}, {6, 1}, {17, 2}}, -989.0).empty());
  CHECK(units({{8, 3}, {13, 2}}, -1402.0).empty());
  CHECK(units({{1, 4}, {6, 1}}, -24.0).empty());
  CHECK(units({{29, 4}}, -4 * 2898.0).empty());
  head.atomic_energies.elements.erase(6);
  CHECK(units({{1, 2}}, -1.17).empty());  // no core to tell by
}
