// SPDX-License-Identifier: MIT
#include "datasets/statistics.hpp"
#include "datasets/units.hpp"
#include "frames.hpp"

using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

/// What is suspected of a file of the real data, its numbers multiplied.
std::vector<UnitSuspicion> suspected(const char* name, double energy, double forces, double stress = 1) {
  Statistics statistics(StatisticsOptions{.near_duplicates = false, .symmetry_frames = 0});
  statistics.add_source(name);
  const auto file = shared_file(name);
  if (file.empty()) return {};
  std::int64_t i = 0;
  for (Frame frame : read_all(file)) {
    *frame.energy *= energy;
    for (auto& f : frame.forces)
      for (double& x : f) x *= forces;
    if (frame.stress)
      for (double& x : *frame.stress) x *= stress;
    statistics.add(frame, {0, i++});
  }
  return statistics.finish().heads.at("").units;
}

bool names(const std::vector<UnitSuspicion>& found, const char* quantity, const char* unit) {
  for (const auto& one : found)
    if (one.quantity == quantity && one.unit.find(unit) != std::string::npos && !one.reason.empty()) return true;
  return false;
}

}  // namespace

TEST_CASE("units: the real data sets are beyond suspicion") {
  for (const char* name : {"3bpa/train.extxyz", "mlearn_Cu/train.extxyz", "mlearn_Ni/train.extxyz", "mlearn_Mo/train.extxyz", "mlearn_Si/train.extxyz",
                           "formate_cu/train.extxyz", "water_pbe0ts/test.extxyz", "pt_co/test.extxyz"}) {
    INFO(name);
    CHECK(suspected(name, 1, 1).empty());
  }
}

TEST_CASE("units: the same data in others are suspected") {
  if (shared_file("mlearn_Cu/train.extxyz").empty()) return;
  CHECK(names(suspected("mlearn_Cu/train.extxyz", 1e3, 1), "energy", "meV"));
  CHECK(names(suspected("mlearn_Cu/train.extxyz", 1, 1 / kcal_per_mol), "forces", "kcal/mol/angstrom"));
  CHECK(names(suspected("mlearn_Cu/train.extxyz", 1, 1e3), "forces", "meV/angstrom"));
  CHECK(names(suspected("mlearn_Cu/train.extxyz", 1, 1, 160.2), "stress", "GPa"));
  CHECK(names(suspected("pt_co/train.extxyz", 1 / hartree, 1), "energy and forces", "hartree where forces are in eV/angstrom"));
}

TEST_CASE("units: slopes of energies against forces") {
  HeadSummary head;
  const auto suspect = [&head](double slope, double width = 0.1) {
    head.slope = {50, slope, slope - 0.5 * width * std::abs(slope), slope + 0.5 * width * std::abs(slope)};
    return suspect_units(head);
  };
  CHECK(suspect(1.0).empty());
  CHECK(suspect(0.9).empty());
  CHECK(suspect(0.04, 0.5).empty());  // too wide to say anything
  CHECK(names(suspect(1 / 27.2), "energy and forces", "hartree where forces are in eV/angstrom"));
  CHECK(names(suspect(23.06), "energy and forces", "kcal/mol where"));
  CHECK(names(suspect(51.4), "energy and forces", "eV where forces are in hartree/bohr"));
  CHECK(names(suspect(1.89), "energy and forces", "hartree where forces are in hartree/bohr"));
  CHECK(names(suspect(-1.0), "energy and forces", "sign"));
  CHECK(names(suspect(7.0), "energy and forces", "another unit than the forces"));
  head.slope.pairs = 9;
  CHECK(suspect_units(head).empty());
}

TEST_CASE("units: all-electron energies in hartree") {
  HeadSummary head;
  for (const int z : {1, 6, 8}) head.atomic_energies.elements[z] = {};
  const auto set = [&head](double scale) {
    head.compositions = {{{{1, 4}, {6, 1}}, 3, -40.47 * scale}, {{{1, 2}, {8, 1}}, 4, -76.38 * scale}, {{{6, 1}, {8, 2}}, 2, -188.48 * scale}};  // PBE
    return suspect_units(head);
  };
  CHECK(names(set(1.0), "energy", "hartree"));
  CHECK(names(set(2.0), "energy", "rydberg"));
  CHECK(names(set(627.5), "energy", "kcal/mol"));
  CHECK(set(27.2114).empty());
  head.compositions = {{{{6, 1}, {8, 2}}, 2, -2 * 188.48}};
  CHECK(suspect_units(head).empty());  // rydberg, or pseudopotentials
}
