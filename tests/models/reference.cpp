// SPDX-License-Identifier: MIT
#include "reference.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json read(const fs::path& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return json::parse(in);
}

std::array<double, 9> flat(const json& m) {
  std::array<double, 9> a;
  for (int i = 0; i < 9; ++i) a[i] = m.at(i / 3).at(i % 3);
  return a;
}

}  // namespace

const std::map<std::string, adatom::Structure>& reference_structures() {
  static const auto structures = [] {
    std::map<std::string, adatom::Structure> all;
    const json file = read(fs::path(ADATOM_REFERENCE_DATA) / "structures.json");
    for (const auto& [name, s] : file.items()) {
      adatom::Structure x;
      s.at("numbers").get_to(x.numbers);
      s.at("positions").get_to(x.positions);
      s.at("cell").get_to(x.cell);
      s.at("pbc").get_to(x.pbc);
      all[name] = x;
    }
    return all;
  }();
  return structures;
}

const std::vector<ReferenceModel>& reference_models() {
  static const auto models = [] {
    std::vector<ReferenceModel> all;
    for (const auto& entry : fs::directory_iterator(fs::path(ADATOM_REFERENCE_DATA) / "models")) {
      if (entry.path().extension() != ".json") continue;
      const fs::path file = fs::path(entry.path()).replace_extension(".safetensors");
      if (!fs::exists(file)) continue;
      ReferenceModel model{entry.path().stem().string(), file.string(), {}};
      const json values = read(entry.path());
      for (const auto& [head, structures] : values.at("heads").items())
        for (const auto& [name, v] : structures.items()) {
          ReferenceValues r{name, v.at("energy"), v.at("energies"), v.at("forces"), flat(v.at("virial")), {}};
          if (v.contains("atom_virials"))
            for (const json& m : v.at("atom_virials")) r.atom_virials.push_back(flat(m));
          model.heads[head].push_back(std::move(r));
        }
      all.push_back(std::move(model));
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return all;
  }();
  return models;
}

const ReferenceModel& reference_model(const std::string& name) {
  for (const ReferenceModel& m : reference_models())
    if (m.name == name) return m;
  throw std::runtime_error("no reference model " + name);
}
