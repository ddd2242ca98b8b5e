// SPDX-License-Identifier: MIT
// Energy and forces of a molecule with a model file: evaluate MODEL.safetensors [MOLECULE.xyz]
#include <adatom/elements.hpp>
#include <adatom/potential.hpp>
#include <cstdio>
#include <exception>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace {

// Number of atoms, a comment, then symbol and position (angstrom) of each atom.
const std::string water = R"(3
water
O  0.0000  0.0000  0.1173
H  0.0000  0.7572 -0.4692
H  0.0000 -0.7572 -0.4692
)";

adatom::Structure read_xyz(std::istream& in) {
  std::size_t n = 0;
  std::string line;
  if (!std::getline(in, line) || !(std::istringstream(line) >> n)) throw std::runtime_error("xyz: the first line is not a number of atoms");
  std::getline(in, line);      // comment
  adatom::Structure molecule;  // no cell, not periodic
  for (std::size_t i = 0; i < n; ++i) {
    std::string symbol;
    adatom::Vector3 r;
    std::getline(in, line);
    if (!(std::istringstream(line) >> symbol >> r[0] >> r[1] >> r[2]))
      throw std::runtime_error("xyz: line " + std::to_string(i + 3) + " is '" + line + "', expected a symbol and three numbers");
    molecule.numbers.push_back(adatom::atomic_number(symbol));
    molecule.positions.push_back(r);
  }
  return molecule;
}

adatom::Structure read_molecule(const char* file) {
  if (!file) {
    std::istringstream text(water);
    return read_xyz(text);
  }
  std::ifstream in(file);
  if (!in) throw std::runtime_error("cannot open '" + std::string(file) + "'");
  return read_xyz(in);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors [MOLECULE.xyz]\n", argv[0]);
    return 2;
  }
  adatom::LoadOptions options;
  options.precision = adatom::Precision::float64;
  adatom::Potential potential = adatom::Potential::load(argv[1], options);

  const adatom::Structure molecule = read_molecule(argc == 3 ? argv[2] : nullptr);
  const adatom::Result result = potential.evaluate(molecule);
  std::printf("%s (%s)\n", potential.info().summary.c_str(), potential.info().backend.c_str());
  std::printf("energy  %.6f eV\n", result.energy);
  for (std::size_t i = 0; i < molecule.numbers.size(); ++i)
    std::printf("force   %-2s  % .6f  % .6f  % .6f  eV/angstrom\n", adatom::element_symbol(molecule.numbers[i]).c_str(), result.forces[i][0],
                result.forces[i][1], result.forces[i][2]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
