// SPDX-License-Identifier: MIT
// Files and frames for tests of datasets/.
#pragma once
#include <catch2/catch.hpp>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "datasets/extxyz_reader.hpp"
#include "datasets/frame.hpp"
#include "tests/files.hpp"

namespace adatom::datasets::test {

using adatom::test::Folder;
using adatom::test::read_bytes;
using adatom::test::write_bytes;

inline std::vector<Frame> read_all(const std::filesystem::path& file, const LabelKeys& keys = {}) {
  const auto source = open_frames(file, keys);
  std::vector<Frame> frames;
  for (Frame frame; source->next(frame);) frames.push_back(frame);
  return frames;
}

/// The frames of an extxyz file of this text.
inline std::vector<Frame> parse(const std::string& text, const LabelKeys& keys = {}) {
  const Folder folder;
  write_bytes(folder / "t.xyz", text);
  return read_all(folder / "t.xyz", keys);
}

inline void check_same(const Frame& a, const Frame& b) {
  CHECK(a.structure.cell == b.structure.cell);
  CHECK(a.structure.pbc == b.structure.pbc);
  CHECK(a.structure.numbers == b.structure.numbers);
  CHECK(a.structure.positions == b.structure.positions);
  CHECK(a.energy == b.energy);
  CHECK(a.forces == b.forces);
  CHECK(a.stress == b.stress);
  CHECK(a.charges == b.charges);
  CHECK(a.weights == b.weights);
  CHECK(a.config_type == b.config_type);
  CHECK(a.group == b.group);
  CHECK(a.head == b.head);
}

/// A frame with every label, reproducible from a seed.
inline Frame random_frame(int n, unsigned seed) {
  std::mt19937 random(seed);
  const auto number = [&random] { return std::ldexp(static_cast<double>(random()), -30) - 2.0; };
  const auto vector = [&number] { return Vector3{number(), number(), number()}; };
  Frame frame;
  frame.structure.pbc = {true, seed % 2 == 0, false};
  for (int k = 0; k < 3; ++k) frame.structure.cell[k] = vector(), frame.structure.cell[k][k] += 9;
  for (int i = 0; i < n; ++i) {
    frame.structure.numbers.push_back(std::array{1, 6, 8, 29}[random() % 4]);
    frame.structure.positions.push_back(vector());
    for (double& x : frame.structure.positions.back()) x *= 4;
    frame.forces.push_back(vector());
    frame.charges.push_back(number());
  }
  frame.energy = 100 * number();
  frame.stress = Voigt{number(), number(), number(), number(), number(), number()};
  frame.weights = {0.5, 2.0, 1.0, 0.25};
  frame.config_type = "slab " + std::to_string(seed % 3);
  frame.group = "run=\"" + std::to_string(seed / 10) + "\"";
  frame.head = seed % 2 ? "pbe" : "";
  return frame;
}

/// A file of the real data sets; where they are not, the reason is printed and the caller returns.
inline std::filesystem::path shared_file(const char* name) {
  const char* folder = std::getenv("ADATOM_SHARED_DATA");
  const std::filesystem::path file = std::filesystem::path(folder ? folder : ADATOM_SHARED_DATA) / name;
  if (std::filesystem::exists(file)) return file;
  WARN("not run: " << file.string() << " is not there; set ADATOM_SHARED_DATA to the folder of the data sets");
  return {};
}

}  // namespace adatom::datasets::test
