// SPDX-License-Identifier: MIT
#include "datasets/label_names.hpp"

#include <algorithm>

#include "frames.hpp"

using namespace adatom;
using namespace adatom::datasets;
using namespace adatom::datasets::test;

namespace {

/// One frame of hydrogen atoms with these columns after the position, and these entries; each line has `numbers` for the columns.
std::string frame(int atoms, const std::string& columns, const std::string& entries, const std::string& numbers = "") {
  std::string text = std::to_string(atoms) + "\nLattice=\"8 8 8\" Properties=species:S:1:pos:R:3" + columns + " " + entries + "\n";
  for (int i = 0; i < atoms; ++i) text += "H 0 0 " + std::to_string(i) + " " + numbers + "\n";
  return text;
}

struct Read {
  std::vector<Frame> frames;
  std::vector<ReadingNote> notes;

  /// The message of the note with this code and kind; "" if there is none.
  std::string note(const std::string& code, ReadingNote::Kind kind = ReadingNote::Kind::warning) const {
    const auto found = std::find_if(notes.begin(), notes.end(), [&](const ReadingNote& n) { return n.code == code && n.kind == kind; });
    return found == notes.end() ? "" : found->message;
  }
};

Read read(const std::string& text, const LabelKeys& keys = {}) {
  const Folder folder;
  write_bytes(folder / "t.xyz", text);
  ExtxyzReader reader(folder / "t.xyz", keys);
  Read result;
  for (Frame f; reader.next(f);) result.frames.push_back(f);
  result.notes = reader.notes();
  return result;
}

LabelKeys named(const std::string& label, std::string LabelKeys::*member, const std::string& key) {
  LabelKeys keys;
  keys.*member = key;
  keys.named.insert(label);
  return keys;
}

}  // namespace

TEST_CASE("labels: other names where the usual ones are absent") {
  const Read r = read(frame(2, ":REF_forces:R:3", "REF_energy=-3 REF_virials=\"-512 0 0 0 0 0\"", "1 2 3"));
  CHECK((r.frames[0].energy == -3.0 && r.frames[0].forces[1] == Vector3{1, 2, 3} && r.frames[0].stress == Voigt{1, 0, 0, 0, 0, 0}));
  CHECK(r.note("label-names", ReadingNote::Kind::choice) ==
        "labels are read under names other than the usual ones: energy from 'REF_energy' (1 of 1 frame), forces from 'REF_forces' (1 of 1 frame), virial from "
        "'REF_virials' (1 of 1 frame)");
  CHECK(r.notes.size() == 1);

  const Read mixed = read(frame(2, ":dft_forces:R:3", "dft_energy=-3 stress=\"1 0 0 0 0 0\"", "1 2 3"));
  CHECK((mixed.frames[0].energy == -3.0 && mixed.frames[0].forces.size() == 2 && mixed.frames[0].stress));
  CHECK_THAT(mixed.note("label-names-mixed"), Catch::Contains("energy from 'dft_energy'") && Catch::Contains("stress from 'stress'"));

  const Read usual = read(frame(2, ":forces:R:3", "energy=-3", "1 2 3"));
  CHECK((usual.frames[0].energy == -3.0 && usual.notes.empty()));
}

TEST_CASE("labels: a name that was given is the only one that is read") {
  const std::string text = frame(2, "", "REF_energy=-3") + frame(1, "", "energy=-1");
  const Read r = read(text, named("energy", &LabelKeys::energy, "REF_energy"));
  CHECK((r.frames[0].energy == -3.0 && !r.frames[1].energy));
  CHECK_FALSE(read(text, named("energy", &LabelKeys::energy, "energy")).frames[0].energy);
  CHECK(read(text).note("label-mixed") == "the energy stands under several names: 'REF_energy' in 1 frame, first frame 0, 'energy' in 1 frame, first frame 1");
  const Read none = read(text, named("energy", &LabelKeys::energy, ""));
  CHECK((!none.frames[0].energy && !none.frames[1].energy));
}

TEST_CASE("labels: the free energy goes with the forces") {
  const std::string text = frame(2, ":forces:R:3", "energy=-3 free_energy=-5", "0 0 0");
  const Read r = read(text);
  CHECK(r.frames[0].energy == -5.0);
  CHECK(r.note("labels-differ") == "'free_energy' is read, and 'energy' beside it differs in 1 frame, by up to 1 eV/atom; the first is frame 0");
  CHECK(read(text, named("energy", &LabelKeys::energy, "energy")).frames[0].energy == -3.0);
  LabelKeys zero_smearing;
  zero_smearing.free_energy = false;
  CHECK(read(text, zero_smearing).frames[0].energy == -3.0);
  CHECK(read(frame(2, ":forces:R:3", "energy=-3 free_energy=-3.001", "0 0 0")).note("labels-differ").empty());  // as smearing differs
}

TEST_CASE("labels: a second set is compared, and what is not read is listed") {
  const Read r = read(frame(2, ":forces:R:3:dft_forces:R:3", "energy=-3 dft_energy=-3 total_energy=7 kinetic_energy=1 spin=1", "1 2 3 -1 -2 -3"));
  CHECK(r.frames[0].forces[0] == Vector3{1, 2, 3});
  CHECK_THAT(r.note("labels-differ"), Catch::Contains("'forces' is read, and 'dft_forces' beside it differs in 1 frame, by up to 6 eV/angstrom"));
  CHECK_THAT(r.note("labels-not-read", ReadingNote::Kind::unread),
             Catch::Contains("'dft_energy' (1 of 1 frame), 'spin' (1 of 1 frame), 'total_energy' (1 of 1 frame), 'dft_forces'") && !Catch::Contains("kinetic"));
  const Read same = read(frame(2, ":forces:R:3:dft_forces:R:3", "energy=-3 dft_energy=-3", "1 2 3 1 2 3"));
  CHECK(same.note("labels-differ").empty());
  CHECK_THAT(read(frame(1, "", "stress=\"1 0 0 0 0 0\" REF_stress=\"-1 0 0 0 0 0\" dft_stress=many")).note("labels-differ"),
             Catch::Contains("'REF_stress' beside it differs in 1 frame, by up to 2 eV/angstrom^3"));
}

TEST_CASE("labels: charges and spins") {
  const std::string ion = "1\nProperties=species:S:1:pos:R:3 energy=-1 charge=1 spin=2 config_type=IsolatedAtom\nC 0 0 0\n";
  const Read r = read(ion + frame(2, "", "energy=-3 charge=0 spin=1") + frame(2, "", "energy=-3 total_charge=-2 charge=0 spin=1"));
  CHECK((is_ion(r.frames[0]) && r.frames[0].charges == std::vector<double>{1.0}));
  CHECK((!is_ion(r.frames[1]) && !is_ion(r.frames[2]) && r.frames[2].charges.empty()));
  CHECK(r.note("charged") ==
        "2 of 3 frames are not neutral (charges up to -2): charges and spins are not part of the model; 1 of them is an isolated ion, not taken for atomic "
        "energies");
  CHECK(read(frame(2, "", "energy=-3 charge=0 spin=1")).note("charged").empty());
  CHECK_THAT(read(frame(2, "", "spin=1") + frame(2, "", "spin=3")).note("charged"), Catch::Contains("spins are from 1 to 3"));
}

TEST_CASE("labels: what a name promises") {
  for (const char* name : {"energy", "dft_energy", "Total_Energy", "energies", "energy_sigma0"}) CHECK(promised_label(name) == Label::energy);
  for (const char* name : {"force", "vasp_force", "forces_dft"}) CHECK(promised_label(name) == Label::forces);
  CHECK((promised_label("REF_stress") == Label::stress && promised_label("virials") == Label::virial));
  for (const char* name : {"config_energy_weight", "kinetic_energy", "energy_cutoff", "reinforced", "stressful", "pos", ""}) CHECK_FALSE(promised_label(name));
}
