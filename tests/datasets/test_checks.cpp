// SPDX-License-Identifier: MIT
#include <nlohmann/json.hpp>

#include "datasets/checks.hpp"
#include "datasets/statistics.hpp"
#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

std::vector<Frame> good_frames() {
  std::vector<Frame> frames;
  for (unsigned seed = 0; seed < 24; ++seed) {
    Frame frame = random_frame(6, seed);
    frame.structure.numbers = {29, 29, 29, 8, 8, 8};
    frame.structure.pbc = {true, true, true};
    for (int i = 0; i < 6; ++i) frame.structure.positions[i] = {2.0 * i + 0.01 * (seed % 7), 0.3 * (i % 2), 0.02 * seed};
    Vector3 sum{};
    for (const Vector3& f : frame.forces)
      for (int x = 0; x < 3; ++x) sum[x] += f[x] / 6;
    for (Vector3& f : frame.forces)
      for (int x = 0; x < 3; ++x) f[x] -= sum[x];
    for (double& x : *frame.stress) x *= 0.01;
    frame.energy = -30 + 0.1 * (seed % 5);
    frame.head.clear();
    frames.push_back(frame);
  }
  return frames;
}

/// The codes with their severities, and the report's findings for closer looks.
struct Checked {
  std::vector<Finding> findings;
  Report report;
  explicit Checked(const std::vector<Frame>& frames, std::size_t second_source_from = 1000) {
    Statistics statistics;
    statistics.add_source("train.xyz"), statistics.add_source("test.xyz");
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const bool second = i >= second_source_from;
      statistics.add(frames[i], {second ? 1 : 0, static_cast<std::int64_t>(second ? i - second_source_from : i)});
    }
    report = statistics.finish();
    findings = check(report);
  }
  const Finding& operator[](const std::string& code) const {
    for (const Finding& finding : findings)
      if (finding.code == code) return finding;
    static const Finding none{Severity::note, "none", "", "", {}};
    return none;
  }
};

}  // namespace

TEST_CASE("checks: good frames give notes only") {
  const Checked checked(good_frames());
  for (const Finding& finding : checked.findings) {
    INFO(finding.code << ": " << finding.message);
    CHECK(finding.severity == Severity::note);
    CHECK_FALSE(finding.advice.empty());
  }
  CHECK(checked["isolated-atoms-missing"].severity == Severity::note);
  CHECK(checked["atomic-energies-rank"].message.find("determine 1 combinations of the 2") != std::string::npos);
}

TEST_CASE("checks: what cannot be trained on is an error that names the frame") {
  auto frames = good_frames();
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  SECTION("NaN") {
    frames[4].forces[2][0] = nan, frames[4].energy = nan;
    const Checked checked(frames);
    CHECK(checked["defect"].severity == Severity::error);
    CHECK_THAT(checked["defect"].message, Catch::StartsWith("1 frame cannot be used; the first: train.xyz: frame 4: its energy is nan"));
    CHECK(checked.findings.front().code == "defect");
  }
  SECTION("a frame without energy, one without forces, one without stress") {
    frames[2].energy.reset(), frames[3].forces.clear(), frames[5].stress.reset();
    const Checked checked(frames);
    CHECK(checked["missing-energy"].severity == Severity::error);
    CHECK_THAT(checked["missing-energy"].message, Catch::Contains("1 frame without an energy label, where 23 have one; the first: train.xyz: frame 2"));
    CHECK(checked["missing-forces"].severity == Severity::error);
    CHECK(checked["missing-stress"].severity == Severity::warning);
    CHECK(checked["missing-stress"].frames.front().index == 5);
  }
  SECTION("no labels") {
    for (Frame& frame : frames) frame.energy.reset(), frame.forces.clear(), frame.stress.reset();
    CHECK(Checked(frames)["no-labels"].severity == Severity::error);
  }
  SECTION("no forces, or no energies at all") {
    auto without = frames;
    for (Frame& frame : without) frame.forces.clear();
    CHECK(Checked(without)["missing-forces"].severity == Severity::error);
    CHECK_THAT(Checked(without)["missing-forces"].advice, Catch::Contains("loss.forces = 0"));
    for (Frame& frame : frames) frame.energy.reset();
    CHECK(Checked(frames)["missing-energy"].severity == Severity::error);
  }
  SECTION("zero forces") {
    for (Frame& frame : frames) frame.forces.assign(6, {0, 0, 0});
    CHECK(Checked(frames)["zero-forces"].severity == Severity::error);
  }
  SECTION("nothing at all") { CHECK(Checked({})["empty"].severity == Severity::error); }
}

TEST_CASE("checks: what a person must look at is a warning") {
  auto frames = good_frames();
  SECTION("copies, in one file and across files, with other energies") {
    frames.push_back(frames[1]);
    frames.push_back(frames[2]);
    *frames.back().energy += 1;
    const Checked checked(frames, 25);
    CHECK(checked["duplicates"].severity == Severity::warning);
    CHECK_THAT(checked["duplicates"].message, Catch::Contains("2 frames repeat another") && Catch::Contains("train.xyz: frame 1 and train.xyz: frame 24"));
    CHECK_THAT(checked["duplicates-across"].message,
               Catch::Contains("1 structure stands in several files") && Catch::Contains("train.xyz: frame 2 and test.xyz: frame 0"));
    CHECK_THAT(checked["duplicate-labels"].message, Catch::Contains("by up to 0.167 eV/atom"));
  }
  SECTION("outliers") {
    *frames[9].energy += 60, frames[10].forces[0] = {9e4, 0, 0}, frames[10].forces[1] = {-9e4, 0, 0};
    const Checked checked(frames);
    CHECK_THAT(checked["energy-outliers"].message, Catch::Contains("train.xyz: frame 9 with"));
    CHECK_THAT(checked["force-outliers"].message, Catch::Contains("train.xyz: frame 10 with"));
  }
  SECTION("net force") {
    for (Frame& frame : frames) frame.forces[0][0] += 1;
    CHECK(Checked(frames)["net-force"].severity == Severity::warning);
  }
  SECTION("close atoms") {
    frames[3].structure.positions[1] = frames[3].structure.positions[0];
    frames[3].structure.positions[1][2] += 0.3;
    CHECK_THAT(Checked(frames)["close-atoms"].message, Catch::Contains("0.3 angstrom apart in train.xyz: frame 3"));
  }
  SECTION("a stress in a slab") {
    frames[3].structure.pbc[2] = false;
    CHECK(Checked(frames)["stress-not-periodic"].severity == Severity::warning);
  }
  SECTION("isolated atoms of some elements, and two that differ") {
    Frame atom;
    atom.structure.numbers = {8};
    atom.structure.positions = {{0, 0, 0}};
    atom.energy = -1;
    frames.push_back(atom);
    CHECK_THAT(Checked(frames)["isolated-atoms-missing"].message, Catch::Contains("but not Cu (29)"));
    atom.energy = -2;
    frames.push_back(atom);
    CHECK_THAT(Checked(frames)["isolated-atoms"].message, Catch::Contains("isolated atoms of O (8) have energies from -2 to -1 eV"));
  }
}

TEST_CASE("checks: the worst comes first, and as JSON with names of files") {
  auto frames = good_frames();
  frames.push_back(frames[1]);
  frames[2].energy.reset();
  const Checked checked(frames);
  CHECK(std::is_sorted(checked.findings.begin(), checked.findings.end(), [](const Finding& a, const Finding& b) { return a.severity > b.severity; }));
  const auto list = nlohmann::json::parse(to_json(checked.findings, checked.report));
  CHECK((list[0]["severity"] == "error" && list[0]["code"] == "missing-energy"));
  CHECK(list[0]["frames"]["first"][0] == nlohmann::json{{"file", "train.xyz"}, {"frame", 2}});
}
