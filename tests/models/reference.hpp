// SPDX-License-Identifier: MIT
// Reference cases that mace-torch and sevenn computed (tests/reference/README.md).
#pragma once
#include <adatom/potential.hpp>
#include <map>
#include <string>
#include <vector>

struct ReferenceValues {
  std::string structure;
  double energy;
  std::vector<double> energies;
  std::vector<adatom::Vector3> forces;
  std::array<double, 9> virial;
  std::vector<std::array<double, 9>> atom_virials;  ///< symmetrised; may be empty
};

struct ReferenceModel {
  std::string name, file;
  std::map<std::string, std::vector<ReferenceValues>> heads;
};

const std::map<std::string, adatom::Structure>& reference_structures();
const std::vector<ReferenceModel>& reference_models();  ///< those whose model file is committed
const ReferenceModel& reference_model(const std::string& name);
