// SPDX-License-Identifier: MIT
// What the tests of the CUDA backend share: reference models on either device, comparisons, a decomposed system.
#pragma once
#include <adatom/neighbor_list.hpp>
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "reference.hpp"

namespace adatom {

inline bool on_host() {
  const char* backend = std::getenv("ADATOM_CUDA");
  return backend && std::string(backend) == "host";
}

inline Potential load(const ReferenceModel& m, const std::string& head, Device device, Precision precision, bool splines = true,
                      Matmul matmul = Matmul::exact) {
  LoadOptions options;
  options.matmul = matmul;
  options.device = device;
  options.precision = precision;
  options.splines = splines;
  options.threads = 1;
  options.head = head;
  // All elements at once: tables are then made once, and not again for each structure that brings others. That is most of the time of these tests.
  for (const ReferenceValues& r : m.heads.at(head))
    for (const int z : reference_structures().at(r.structure).numbers)
      if (std::find(options.elements.begin(), options.elements.end(), z) == options.elements.end()) options.elements.push_back(z);
  return Potential::load(m.file, options);
}
inline Potential load(const std::string& name, Device device, Precision precision) {
  const ReferenceModel& m = reference_model(name);
  return load(m, m.heads.begin()->first, device, precision);
}

inline constexpr Request everything{true, true, true, true};

/// Largest deviation; NaN counts as infinite.
struct Largest {
  double value = 0.0;
  void add(double a, double b) {
    const double d = std::abs(a - b);
    if (!(d <= value)) value = std::isnan(d) ? INFINITY : d;
  }
};

struct Deviation {
  Largest energy, energies, forces, virial, virials;  ///< energy: per atom
  Deviation(const Result& a, const Result& b) {
    REQUIRE(a.forces.size() == b.forces.size());
    REQUIRE(a.energies.size() == b.energies.size());
    REQUIRE(a.virials.size() == b.virials.size());
    const std::size_t n = a.forces.size();
    energy.add(a.energy / std::max<std::size_t>(n, 1), b.energy / std::max<std::size_t>(n, 1));
    for (std::size_t i = 0; i < n; ++i) {
      energies.add(a.energies[i], b.energies[i]);
      for (int k = 0; k < 3; ++k) forces.add(a.forces[i][k], b.forces[i][k]);
      for (int k = 0; k < 9; ++k) virials.add(a.virials[i][k], b.virials[i][k]);
    }
    for (int k = 0; k < 9; ++k) virial.add(a.virial[k] / std::max<std::size_t>(n, 1), b.virial[k] / std::max<std::size_t>(n, 1));
  }
};

inline void check_equal(const Result& a, const Result& b) {
  CHECK(a.energy == b.energy);
  CHECK(a.energies == b.energies);
  CHECK(a.forces == b.forces);
  CHECK(a.virial == b.virial);
  CHECK(a.virials == b.virials);
}

/// The largest force, at least 1: single precision is relative, and random models give large ones.
inline double force_scale(const Result& r) {
  double scale = 1.0;
  for (const Vector3& f : r.forces)
    for (const double x : f) scale = std::max(scale, std::abs(x));
  return scale;
}
inline double energy_scale(const Result& r) {
  double scale = 1.0;
  for (const double e : r.energies) scale = std::max(scale, std::abs(e));
  return scale;
}

/// One of each kind.
inline const std::string some_models[] = {"mace_small",  "mace_large",   "mace_density",        "mace_pair_02",
                                          "sevennet_l3", "sevennet_fcn", "sevennet_modal_bias", "sevennet_parity"};

inline const Structure& structure_of(const std::string& model, const std::string& preferred) {
  const auto& cases = reference_model(model).heads.begin()->second;
  for (const ReferenceValues& r : cases)
    if (r.structure == preferred) return reference_structures().at(preferred);
  return reference_structures().at(cases.front().structure);
}

/// Sets an environment variable while it lives.
struct Setting {
  const char* name;
  Setting(const char* name_, const std::string& value) : name(name_) { setenv(name, value.c_str(), 1); }
  ~Setting() { unsetenv(name); }
};

/// A structure whose periodic images are ghosts, as a decomposed system has them; the halo copies rows between owners and ghosts.
struct Ghosts final : Halo {
  std::vector<int> species, sender, owner;
  std::vector<std::int64_t> first_edge;
  std::vector<Vector3> positions;
  int receivers = 0, calls = 0;

  Ghosts(Potential& potential, const Structure& s) {
    NeighborList list(potential.cutoff());
    list.update(s, 1);
    receivers = static_cast<int>(s.positions.size());
    positions = list.positions();
    for (int i = 0; i < receivers; ++i) owner.push_back(i), species.push_back(potential.species(s.numbers[i]));
    std::map<std::pair<int, int>, int> images;
    first_edge.assign(list.first_edge().begin(), list.first_edge().end());
    for (std::size_t e = 0; e < list.sender().size(); ++e) {
      const int j = list.sender()[e], shift = list.shift()[e];
      const Vector3 by = list.shifts()[shift];
      if (by == Vector3{0, 0, 0}) {
        sender.push_back(j);
        continue;
      }
      const auto [at, fresh] = images.emplace(std::pair{j, shift}, static_cast<int>(owner.size()));
      if (fresh) {
        owner.push_back(j);
        species.push_back(species[j]);
        positions.push_back({positions[j][0] + by[0], positions[j][1] + by[1], positions[j][2] + by[2]});
      }
      sender.push_back(at->second);
    }
  }
  Graph graph() const {
    Graph g;
    g.n_receivers = receivers, g.n_nodes = static_cast<int>(owner.size());
    g.species = species.data(), g.first_edge = first_edge.data(), g.sender = sender.data(), g.positions = positions.front().data();
    return g;
  }
  void forward(void* rows, std::size_t row_bytes) override {
    ++calls;
    auto* bytes = static_cast<unsigned char*>(rows);
    for (std::size_t n = receivers; n < owner.size(); ++n) std::copy_n(bytes + owner[n] * row_bytes, row_bytes, bytes + n * row_bytes);
  }
  void reverse(void* rows, std::size_t row_bytes, std::size_t scalar_bytes) override {
    ++calls;
    if (scalar_bytes == 4) return add<float>(rows, row_bytes);
    add<double>(rows, row_bytes);
  }
  // As a halo whose rows the evaluator packs: every ghost has its owner's row sent to it.
  bool packs = false, on_device = false;
  mutable std::vector<int> shared;
  const std::vector<int>* shared_rows() const override {
    shared.assign(owner.begin() + receivers, owner.end());
    return packs ? &shared : nullptr;
  }
  bool takes_device_memory() const override { return on_device; }
  void forward_packed(const void* packed, void* ghosts, std::size_t row_bytes) override {
    ++calls;
    std::memcpy(ghosts, packed, shared.size() * row_bytes);
  }
  void reverse_packed(const void* ghosts, void* packed, std::size_t row_bytes) override {
    ++calls;
    std::memcpy(packed, ghosts, shared.size() * row_bytes);
  }
  template <class T>
  void add(void* rows, std::size_t row_bytes) const {
    const std::size_t size = row_bytes / sizeof(T);
    for (std::size_t n = receivers; n < owner.size(); ++n)
      for (std::size_t k = 0; k < size; ++k) static_cast<T*>(rows)[owner[n] * size + k] += static_cast<T*>(rows)[n * size + k];
  }
};

}  // namespace adatom
