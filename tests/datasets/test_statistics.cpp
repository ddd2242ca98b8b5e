// SPDX-License-Identifier: MIT
#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "datasets/statistics.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

Report examine(const std::vector<Frame>& frames, const StatisticsOptions& options = {}) {
  Statistics statistics(options);
  statistics.add_source("a.xyz");
  for (std::size_t i = 0; i < frames.size(); ++i) statistics.add(frames[i], {0, static_cast<std::int64_t>(i)});
  return statistics.finish();
}

/// CuO chains of a few atoms that vary a little, E = -4 per Cu, -9 per O and a ripple, small forces.
std::vector<Frame> chains(int n, unsigned seed = 1) {
  std::mt19937 random(seed);
  const auto number = [&random] { return std::ldexp(static_cast<double>(random()), -31) - 1; };
  std::vector<Frame> frames(static_cast<std::size_t>(n));
  for (int f = 0; f < n; ++f) {
    Frame& frame = frames[static_cast<std::size_t>(f)];
    frame.structure.cell = {{{20, 0, 0}, {0, 20, 0}, {0, 0, 20}}};
    frame.structure.pbc = {true, true, true};
    frame.energy = 0;
    for (int i = 0; i < 4 + f % 3; ++i) {
      frame.structure.numbers.push_back(i % 4 == 0 ? 8 : 29);
      frame.structure.positions.push_back({2.2 * i + 0.2 * number(), 0.2 * number(), 0.2 * number()});
      frame.forces.push_back({number(), number(), number()});
      *frame.energy += (i % 4 == 0 ? -9 : -4) + 0.01 * number();
    }
    frame.stress = Voigt{0.01 * number(), 0, 0, 0, 0, 0};
  }
  return frames;
}

}  // namespace

TEST_CASE("statistics: ranges") {
  Range range;
  for (const double x : {1e9 + 1, 1e9 + 2, 1e9 + 3, 1e9 + 6}) range.add(x);
  CHECK((range.count == 4 && range.min == 1e9 + 1 && range.max == 1e9 + 6));
  CHECK(range.mean == Approx(1e9 + 3));
  CHECK(range.deviation() == Approx(std::sqrt(3.5)).epsilon(1e-9));
  Range small;
  for (const double x : {-3.0, 4.0}) small.add(x);
  CHECK(small.rms() == Approx(std::sqrt(12.5)));
  CHECK(Range().deviation() == 0);
}

TEST_CASE("statistics: counts and sums of frames by hand") {
  auto frames = chains(6);
  frames[0].config_type = frames[1].config_type = "slab", frames[2].group = "run 1";
  frames[3].energy.reset(), frames[4].forces.clear(), frames[5].stress.reset();
  frames[1].head = "pbe";
  frames[0].structure.pbc = {true, true, false};
  const Report report = examine(frames);
  CHECK((report.frames == 6 && report.atoms == 30 && report.sources[0].frames == 6));
  CHECK(report.config_types == std::map<std::string, std::int64_t>{{"", 4}, {"slab", 2}});
  CHECK(report.groups == std::map<std::string, std::int64_t>{{"", 5}, {"run 1", 1}});
  CHECK(report.periodicity == std::map<int, std::int64_t>{{2, 1}, {3, 5}});
  REQUIRE(report.heads.size() == 2);
  const HeadSummary& head = report.heads.at("");
  CHECK((head.frames == 5 && head.with_energy == 4 && head.with_forces == 4 && head.with_stress == 4 && head.with_charges == 0));
  CHECK((report.heads.at("pbe").frames == 1 && head.elements.at(29).atoms == 3 + 5 - 1 + 3 + 3 + 4));
  CHECK((head.frame_size.min == 4 && head.frame_size.max == 6));
  CHECK((report.without_energy.size() == 1 && report.without_energy[0].index == 3));
  CHECK((report.without_forces.size() == 1 && report.without_forces[0].index == 4));
  CHECK((report.without_stress.size() == 1 && report.without_stress[0].index == 5));
  CHECK((report.stress_not_periodic.size() == 1 && report.stress_not_periodic[0].index == 0));
  double largest = 0, sum = 0;
  for (const std::size_t i : {0, 2, 3, 5})
    for (const Vector3& f : frames[i].forces) {
      largest = std::max(largest, std::hypot(f[0], f[1], f[2]));
      sum += f[0] * f[0] + f[1] * f[1] + f[2] * f[2];
    }
  CHECK(head.largest_force.max == Approx(largest));
  CHECK(head.force.rms() == Approx(std::sqrt(sum / static_cast<double>(head.force.count))));
}

TEST_CASE("statistics: atomic energies, residuals and outliers") {
  auto frames = chains(60);
  Frame atom;
  atom.structure.numbers = {8};
  atom.structure.positions = {{0, 0, 0}};
  atom.energy = -8.5;
  frames.push_back(atom);
  *frames[17].energy += 3.0;
  *frames[20].energy -= 5.0;
  frames[33].forces[1] = {0, 400, 0};
  const Report report = examine(frames);
  const HeadSummary& head = report.heads.at("");
  REQUIRE(head.isolated_atoms.size() == 1);
  CHECK((head.isolated_atoms[0].element == 8 && head.isolated_atoms[0].energy == -8.5 && head.isolated_atoms[0].frame.index == 60));
  CHECK(head.atomic_energies.elements.at(8).energy == -8.5);
  CHECK(head.atomic_energies.elements.at(29).origin == AtomicEnergies::Origin::least_squares);
  CHECK(head.residual.count == 60);
  std::vector<std::int64_t> energies, forces;
  for (const Outlier& o : head.energy_outliers) energies.push_back(o.frame.index);
  for (const Outlier& o : head.force_outliers) forces.push_back(o.frame.index);
  CHECK(energies == std::vector<std::int64_t>{20, 17});
  CHECK((head.energy_outliers[0].z < -8 && head.energy_outliers[1].z > 8));
  CHECK(forces == std::vector<std::int64_t>{33});
  CHECK(head.force_outliers[0].value == Approx(400));
  CHECK(report.without_forces.empty());  // an isolated atom needs none
}

TEST_CASE("statistics: robust z by hand") {
  // Pure copper, E/n = 0, 1, 2, 3, 100: median 2, MAD 1, so z of 100 is 0.6745 * 98.
  std::vector<Frame> frames;
  for (const double energy : {0.0, 1.0, 2.0, 3.0, 100.0}) {
    frames.push_back(chains(1)[0]);
    frames.back().structure.numbers = {29, 29, 29, 29};
    frames.back().structure.positions[3][0] += 0.1 * energy;
    frames.back().energy = 4 * energy;
  }
  const auto outliers = examine(frames).heads.at("").energy_outliers;
  REQUIRE(outliers.size() == 1);
  CHECK(outliers[0].z == Approx(0.6745 * 98));
}

TEST_CASE("statistics: duplicates and near-duplicates") {
  auto frames = chains(12);
  frames.push_back(frames[3]);
  frames.push_back(frames[5]);
  *frames[13].energy += 0.5;
  Frame turned = frames[7];  // by 90 degrees about z, moved, atoms in another order
  for (Vector3& r : turned.structure.positions) r = {10 - r[1], 3 + r[0], r[2]};
  std::reverse(turned.structure.positions.begin(), turned.structure.positions.end());
  std::reverse(turned.structure.numbers.begin(), turned.structure.numbers.end());
  frames.push_back(turned);
  const Report report = examine(frames);
  REQUIRE(report.duplicates.size() == 2);
  CHECK((report.duplicates[0].frames[0].index == 3 && report.duplicates[0].frames[1].index == 12 && report.duplicates[0].energy_spread == 0));
  CHECK((report.duplicates[1].frames[0].index == 5 && report.duplicates[1].frames[1].index == 13));
  CHECK(report.duplicates[1].energy_spread == Approx(0.5 / 6));
  REQUIRE(report.near_duplicates.size() == 1);
  CHECK((report.near_duplicates[0].frames[0].index == 7 && report.near_duplicates[0].frames[1].index == 14));
  CHECK_FALSE(report.near_duplicates[0].several_sources);
  StatisticsOptions options;
  options.near_duplicates = false;
  CHECK(examine(frames, options).near_duplicates.empty());
}

TEST_CASE("statistics: frames with defects are listed and left out of the rest") {
  auto frames = chains(5);
  frames[1].energy = std::numeric_limits<double>::quiet_NaN();
  frames[2].structure.positions[1] = frames[2].structure.positions[0];
  const Report report = examine(frames);
  REQUIRE(report.defective.size() == 2);
  CHECK((report.defective[0].frame.index == 1 && report.defective[0].what == "its energy is nan"));
  CHECK(report.defective[1].frame.index == 2);
  CHECK(report.heads.at("").with_energy == 4);
  CHECK(std::isfinite(report.heads.at("").energy_per_atom.mean));
}

TEST_CASE("statistics: energies that follow from the forces have the slope 1") {
  // Two atoms on a spring of 5 eV/angstrom^2, a step of 0.02 angstrom from frame to frame.
  std::vector<Frame> frames;
  for (int i = 0; i < 30; ++i) {
    Frame frame = chains(1)[0];
    frame.structure.numbers = {29, 29};
    const double x = 0.3 - 0.02 * i;
    frame.structure.positions = {{0, 0, 0}, {2.2 + x, 0, 0}};
    frame.energy = 2.5 * x * x;
    frame.forces = {{5 * x, 0, 0}, {-5 * x, 0, 0}};
    frames.push_back(frame);
  }
  const auto slope = examine(frames).heads.at("").slope;
  CHECK(slope.pairs > 20);
  CHECK(slope.median == Approx(1).epsilon(1e-6));
  CHECK((slope.q1 == Approx(1).epsilon(1e-6) && slope.q3 == Approx(1).epsilon(1e-6)));
  for (Frame& frame : frames) *frame.energy /= 27.211386;
  const auto units = examine(frames).heads.at("").units;
  CHECK(std::any_of(units.begin(), units.end(), [](const auto& u) { return u.unit == "hartree where forces are in eV/angstrom"; }));
}

TEST_CASE("statistics: space groups of a sample") {
  std::vector<Frame> frames;
  for (int i = 0; i < 40; ++i) {
    Frame frame;
    const double a = 3.5 + 0.01 * i;
    frame.structure.pbc = {true, true, true};
    frame.structure.cell = {{{0, a / 2, a / 2}, {a / 2, 0, a / 2}, {a / 2, a / 2, 0}}};
    frame.structure.numbers = {29};
    frame.structure.positions = {{0, 0, 0}};
    frames.push_back(frame);
  }
  StatisticsOptions options;
  options.symmetry_frames = 10;
  const Report report = examine(frames, options);
  CHECK((report.crystals == 40 && report.space_groups_of == 10));
  CHECK(report.space_groups == std::map<std::string, std::int64_t>{{"Fm-3m (225)", 10}});
}

TEST_CASE("statistics: as JSON") {
  auto frames = chains(20);
  frames.push_back(frames[3]);
  const auto document = nlohmann::json::parse(to_json(examine(frames)));
  CHECK(document["frames"] == 21);
  CHECK(document["heads"][""]["elements"]["O"]["frames"] == 21);
  CHECK(document["duplicates"]["count"] == 1);
  CHECK(document["duplicates"]["first"][0]["frames"]["first"][1] == nlohmann::json{{"source", 0}, {"frame", 20}});
  CHECK(nlohmann::json::parse(to_json(Report()))["frames"] == 0);
}
