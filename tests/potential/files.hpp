// SPDX-License-Identifier: MIT
// Model files for tests.
#pragma once
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "potential/model_file.hpp"

namespace adatom::test {

/// A folder that goes away with its contents.
struct Folder {
  std::filesystem::path path;
  Folder() {
    static int count = 0;
    path = std::filesystem::temp_directory_path() / ("adatom-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path operator/(const char* name) const { return path / name; }
  std::size_t files() const { return std::distance(std::filesystem::directory_iterator(path), {}); }
};

inline std::string read_bytes(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_bytes(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream out(file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(out.good());
}

/// A model of pair_network.cpp: 5 angstrom, elements O, H, C (in this order), heads "pbe" and "r2scan".
inline ModelFile pair_model() {
  ModelFile model;
  model.architecture = R"({"type":"pair","r_max":5.0})";
  model.elements = {8, 1, 6};
  model.cutoff = 5.0;
  model.heads = {"pbe", "r2scan"};
  model.provenance = R"({"source":"made by hand","licence":"MIT","loss":[0.1,0.25]})";
  model.tensors["strength"] = {{3}, {1.25, 0.5, -0.8}};
  model.tensors["atomic_energies"] = {{2, 3}, {-10.0, -1.0, -5.0, -11.0, -1.5, -5.25}};
  return model;
}

}  // namespace adatom::test
