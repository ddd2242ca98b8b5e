// SPDX-License-Identifier: MIT
// Model files for tests.
#pragma once
#include <string>

#include "potential/model_file.hpp"
#include "tests/files.hpp"

namespace adatom::test {

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
