// SPDX-License-Identifier: MIT
// Features of atoms, weighted sums of them, and detectors of uncertainty: the CUDA backend against the CPU backend.
#include <adatom/uncertainty.hpp>
#include <filesystem>
#include <random>

#include "cases.hpp"

using namespace adatom;

namespace {

/// A reference model with detectors of random numbers, more bands and outputs than a warp has threads, and one element that "training data did not have".
struct Detecting {
  std::filesystem::path file = std::filesystem::temp_directory_path() / ("adatom_detecting_" + std::to_string(std::rand()) + ".safetensors");
  ReferenceModel model;

  explicit Detecting(const std::string& name) : model(reference_model(name)) {
    const std::string head = model.heads.begin()->first;
    LoadOptions options;
    options.threads = 1;
    options.head = head;
    const ModelInfo info = Potential::load(model.file, options).info();
    const std::size_t all = info.elements.size(), n = info.features, components = n > 8 ? n - 3 : n, members = 37;
    std::mt19937 g(11);
    std::normal_distribution<double> normal;
    const auto random = [&](std::vector<std::size_t> shape, double size) {
      std::size_t count = 1;
      for (const std::size_t length : shape) count *= length;
      DetectorTensor t{std::move(shape), std::vector<double>(count)};
      for (double& x : t.data) x = size * normal(g);
      return t;
    };
    std::map<std::string, DetectorTensor> tensors;
    tensors["uncertainty.mean"] = random({all, n}, 0.1);
    tensors["uncertainty.whitening"] = random({all, n, components}, 1.0 / std::sqrt(static_cast<double>(n)));
    tensors["uncertainty.members"] = random({n, members}, 0.01);
    tensors["uncertainty.bands"] = {{3}, {1.0, components / 2.0 > 2 ? std::floor(components / 2.0) : 2.0, static_cast<double>(components)}};
    tensors["uncertainty.force"] = random({all, 5}, 0.3);
    tensors["uncertainty.distance_scale"] = random({all}, 0.0);
    // The last element of the first structure is not known.
    const int unknown = reference_structures().at(model.heads.begin()->second.front().structure).numbers.back();
    for (std::size_t z = 0; z < all; ++z)
      tensors["uncertainty.distance_scale"].data[z] = all > 1 && info.elements[z] == unknown ? 0.0 : 0.5 + 0.1 * static_cast<double>(z % 7);
    write_detectors(model.file, file, R"({"network": ")" + network_hash(model.file) + R"(", "head": ")" + info.head + R"(", "energy_noise": 0.01})", tensors);
    model.file = file.string();
  }
  ~Detecting() { std::filesystem::remove(file); }
  Potential load(Device device, Precision precision, Matmul matmul = Matmul::exact) const {
    return adatom::load(model, model.heads.begin()->first, device, precision, true, matmul);
  }
};

/// Largest deviation of b from a, in units of the largest finite |a| (at least `least`); infinities have to be the same.
double deviation(const std::vector<double>& a, const std::vector<double>& b, double least = 1e-3) {
  REQUIRE(a.size() == b.size());
  double scale = least;
  for (const double x : a)
    if (std::isfinite(x)) scale = std::max(scale, std::abs(x));
  Largest d;
  for (std::size_t k = 0; k < a.size(); ++k)
    if (!(std::isinf(a[k]) && a[k] == b[k])) d.add(a[k] / scale, b[k] / scale);
  return d.value;
}

void check_detected(const Result& a, const Result& b, double tolerance) {
  CHECK(deviation(a.features, b.features) <= tolerance);
  CHECK(deviation(a.distances, b.distances) <= tolerance);
  CHECK(deviation(a.force_std, b.force_std) <= 10 * tolerance);
  CHECK(deviation(a.member_energies, b.member_energies) <= tolerance);
  CHECK(deviation({a.energy_std}, {b.energy_std}, 1.0) <= tolerance);
  const Deviation d(a, b);
  CHECK(d.forces.value <= tolerance * force_scale(a));
}

constexpr Request detected{true, true, true, true, true, true};

}  // namespace

TEST_CASE("features and detectors of uncertainty as on the CPU; wanted or not; again, and in the opposite order") {
  bool any_unknown = false, any_known = false, any_finite_energy = false;
  for (const std::string& name : some_models) {
    const Detecting model(name);
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      Potential cpu = model.load(Device::cpu, precision), cuda = model.load(Device::cuda, precision);
      REQUIRE(cuda.info().no_uncertainty.empty());
      const double tolerance = precision == Precision::float32 ? 2e-5 : 1e-9;
      std::vector<Structure> all;
      for (const ReferenceValues& r : model.model.heads.begin()->second)
        if (r.energies.size() <= 10) all.push_back(reference_structures().at(r.structure));
      REQUIRE(!all.empty());
      for (const Structure& s : all) {
        const Result a = cpu.evaluate(s, detected), b = cuda.evaluate(s, detected);
        check_detected(a, b, tolerance);
        for (const double x : a.distances) (std::isinf(x) ? any_unknown : any_known) = true;
        any_finite_energy |= std::isfinite(a.energy_std);
        const Result plain = cuda.evaluate(s, everything);
        CHECK(plain.features.empty());
        CHECK(plain.force_std.empty());
        CHECK(plain.forces == b.forces);
        Request few{false, false, false, false, false, true};
        const Result alone = cuda.evaluate(s, few);
        CHECK(alone.distances == b.distances);
        CHECK(alone.force_std == b.force_std);
        const Setting order("ADATOM_HOST_ORDER", "reverse");
        const Result again = cuda.evaluate(s, detected);
        CHECK(again.features == b.features);
        CHECK(again.distances == b.distances);
        CHECK(again.force_std == b.force_std);
        CHECK(again.member_energies == b.member_energies);
      }
      all.push_back({});
      const auto x = cpu.evaluate(all, detected), y = cuda.evaluate(all, detected);
      for (std::size_t k = 0; k < all.size(); ++k) check_detected(x[k], y[k], tolerance);
    }
  }
  CHECK(any_unknown);
  CHECK(any_known);
  CHECK(any_finite_energy);
}

TEST_CASE("weighted sums of features, forces of members, features along a direction, as on the CPU") {
  for (const char* name : {"mace_large", "mace_density", "sevennet_parity"}) {
    const Detecting model(name);
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      Potential cpu = model.load(Device::cpu, precision), cuda = model.load(Device::cuda, precision);
      const Structure& s = structure_of(name, "triclinic");
      const std::size_t n = s.positions.size(), width = cpu.info().features;
      const double tolerance = precision == Precision::float32 ? 2e-5 : 1e-9;
      std::mt19937 g(5);
      std::normal_distribution<double> normal;
      std::vector<double> weights(n * width);
      for (int step = 0; step < 4; ++step) {  // the third is the first that replays
        for (double& w : weights) w = normal(g);
        const Result a = cpu.feature_forces(s, weights, everything), b = cuda.feature_forces(s, weights, everything);
        const Deviation d(a, b);
        CHECK(std::abs(a.forces[0][0]) > 1e-3);
        CHECK(d.energies.value <= tolerance * energy_scale(a));
        CHECK(d.forces.value <= tolerance * force_scale(a));
        CHECK(d.virials.value <= tolerance * force_scale(a));
      }
      const auto x = cpu.member_forces(s), y = cuda.member_forces(s);
      REQUIRE(x.size() == y.size());
      Largest members;
      for (std::size_t k = 0; k < x.size(); ++k)
        for (std::size_t i = 0; i < n; ++i)
          for (int c = 0; c < 3; ++c) members.add(x[k][i][c], y[k][i][c]);
      CHECK(members.value <= tolerance * force_scale(cpu.evaluate(s)));
      std::vector<Vector3> v(n);
      for (Vector3& row : v)
        for (double& component : row) component = normal(g);
      CHECK(deviation(cpu.feature_tangents(s, v), cuda.feature_tangents(s, v)) <= 10 * tolerance);
    }
  }
}

TEST_CASE("detectors of a decomposed system, whitened features too") {
  for (const char* name : {"mace_small", "sevennet_l3"}) {
    const Detecting model(name);
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      const Structure& s = structure_of(name, "triclinic");
      Potential cpu = model.load(Device::cpu, precision), cuda = model.load(Device::cuda, precision);
      const double tolerance = precision == Precision::float32 ? 2e-5 : 1e-9;
      Ghosts ghosts(cuda, s), other(cpu, s);
      const std::size_t n = s.positions.size();
      const ModelInfo info = cuda.info();
      REQUIRE(info.whitened > 0);
      struct Arrays {
        std::vector<double> members, force_std, distances, whitened, features, energies;
        std::vector<Vector3> forces;
        GraphResult result;
        Arrays(const ModelInfo& i, std::size_t atoms, std::size_t nodes)
            : members(atoms * i.members),
              force_std(atoms),
              distances(atoms),
              whitened(atoms * i.whitened),
              features(atoms * i.features),
              energies(atoms),
              forces(nodes) {
          result.member_energies = members.data(), result.force_std = force_std.data(), result.distances = distances.data();
          result.whitened = whitened.data(), result.features = features.data(), result.energies = energies.data();
          result.forces = forces.front().data();
        }
      } a(info, n, ghosts.owner.size()), b(info, n, ghosts.owner.size());
      cpu.evaluate(other.graph(), a.result, &other);
      for (const bool packs : {false, true}) {
        ghosts.packs = packs;
        cuda.evaluate(ghosts.graph(), b.result, &ghosts);
        CHECK(deviation(a.members, b.members) <= tolerance);
        CHECK(deviation(a.force_std, b.force_std) <= 10 * tolerance);
        CHECK(deviation(a.distances, b.distances) <= tolerance);
        CHECK(deviation(a.whitened, b.whitened) <= tolerance);
        CHECK(deviation(a.features, b.features) <= tolerance);
      }
      GraphResult some;  // nothing else
      std::fill(b.whitened.begin(), b.whitened.end(), NAN);
      some.whitened = b.whitened.data();
      cuda.evaluate(ghosts.graph(), some, &ghosts);
      CHECK(deviation(a.whitened, b.whitened) <= tolerance);
    }
  }
}

TEST_CASE("detectors where memory is short: in blocks of receivers") {
  if (!on_host()) return;
  const Detecting model("mace_medium");
  Structure s = structure_of("mace_medium", "cu_fcc");
  const Structure one = s;
  for (int x = 1; x < 9; ++x)
    for (std::size_t i = 0; i < one.positions.size(); ++i) {
      Vector3 p = one.positions[i];
      for (int a = 0; a < 3; ++a) p[a] += x * one.cell[0][a];
      p[0] += 0.05 * std::sin(static_cast<double>(7 * x + i));
      s.positions.push_back(p), s.numbers.push_back(one.numbers[i]);
    }
  for (int a = 0; a < 3; ++a) s.cell[0][a] *= 9;
  REQUIRE(s.positions.size() > 64);
  const Result a = model.load(Device::cpu, Precision::float64).evaluate(s, detected);
  std::size_t bytes = 0;
  {
    Potential whole = model.load(Device::cuda, Precision::float64);
    check_detected(a, whole.evaluate(s, detected), 1e-9);
    bytes = whole.counters().workspace_bytes;
  }
  Potential blocks = model.load(Device::cuda, Precision::float64);
  bool in_blocks = false, too_little = false;
  for (int percent = 120; percent > 0 && !too_little; percent -= 5) {
    blocks.evaluate(one, everything);
    const Setting memory("ADATOM_HOST_MEMORY", std::to_string(bytes * percent / 100));
    try {
      check_detected(a, blocks.evaluate(s, detected), 1e-9);
      in_blocks |= blocks.counters().workspace_bytes < bytes;
    } catch (const std::runtime_error& error) {
      CHECK_THAT(error.what(), Catch::Contains("out of memory on the CUDA device"));
      too_little = true;
    }
  }
  CHECK(in_blocks);
  CHECK(too_little);
}

TEST_CASE("what detectors need, on a device") {
  Potential none = load("mace_small", Device::cuda, Precision::float32);
  const Structure& s = structure_of("mace_small", "triclinic");
  CHECK_THROWS_WITH(none.evaluate(s, detected), Catch::Contains("no detectors of uncertainty: add them with `adatom calibrate`"));
  const Detecting model("mace_small");
  Potential rounded = model.load(Device::cuda, Precision::float32, Matmul::tf32);
  CHECK_THROWS_WITH(rounded.evaluate(s, detected), Catch::Contains("use matmul exact"));
  CHECK(rounded.evaluate(s, everything).forces.size() == s.positions.size());
}
