// SPDX-License-Identifier: MIT
// The CUDA backend against the CPU backend and the stored values of mace-torch and sevenn, its kernels run by the host executor; with ADATOM_CUDA unset on a
// machine with a device the same cases run there.
#include <cstdio>

#include "cases.hpp"

using namespace adatom;

namespace {

/// The host executor takes its time: of the reference values those of few atoms, and the 64 atoms for some models.
std::vector<ReferenceValues> cases_of(const std::string& model, const std::vector<ReferenceValues>& all, std::size_t most_atoms) {
  const bool large = !on_host() || (most_atoms >= 24 && std::find(std::begin(some_models), std::end(some_models), model) != std::end(some_models));
  std::vector<ReferenceValues> cases;
  for (const ReferenceValues& r : all)
    if (large || r.energies.size() <= most_atoms) cases.push_back(r);
  return cases;
}

}  // namespace

TEST_CASE("every reference model as on the CPU, double") {
  for (const ReferenceModel& m : reference_models())
    for (const auto& [head, cases] : m.heads) {
      if (on_host() && head != m.heads.begin()->first) continue;  // heads differ in their readouts alone, and the third case has them all
      Potential cpu = load(m, head, Device::cpu, Precision::float64), cuda = load(m, head, Device::cuda, Precision::float64);
      CHECK(cuda.info().backend.rfind("cuda", 0) == 0);
      for (const ReferenceValues& r : cases_of(m.name, cases, 24)) {
        INFO(m.name << ", head " << head << ", " << r.structure);
        const Structure& s = reference_structures().at(r.structure);
        const Result a = cpu.evaluate(s, everything), b = cuda.evaluate(s, everything);
        const Deviation d(a, b);
        const double scale = force_scale(a);
        CHECK(d.energy.value <= 1e-10 * energy_scale(a));
        CHECK(d.energies.value <= 1e-10 * energy_scale(a));
        CHECK(d.forces.value <= 1e-9 * scale);
        CHECK(d.virial.value <= 1e-9 * scale);
        CHECK(d.virials.value <= 1e-9 * scale);
      }
    }
}

TEST_CASE("every reference model as on the CPU, float") {
  for (const ReferenceModel& m : reference_models())
    for (const auto& [head, cases] : m.heads) {
      if (on_host() && head != m.heads.begin()->first) continue;
      Potential exact = load(m, head, Device::cpu, Precision::float64), cpu = load(m, head, Device::cpu, Precision::float32),
                cuda = load(m, head, Device::cuda, Precision::float32);
      for (const ReferenceValues& r : cases_of(m.name, cases, 16)) {
        INFO(m.name << ", head " << head << ", " << r.structure);
        const Structure& s = reference_structures().at(r.structure);
        const Result a = cpu.evaluate(s, everything), b = cuda.evaluate(s, everything);
        const Deviation d(a, b);
        // mace_pair_06 loses 1.9e-5 eV/angstrom to rounding on the CPU already: two backends can differ by the errors of both.
        const Deviation rounding(a, exact.evaluate(s, everything));
        CHECK(d.energy.value <= 1e-6 * energy_scale(a));
        CHECK(d.forces.value <= std::max(2e-5 * force_scale(a), 2 * rounding.forces.value));
        CHECK(d.virial.value <= std::max(5e-5 * force_scale(a), 2 * rounding.virial.value));
      }
    }
}

TEST_CASE("every reference model with radial functions evaluated, against mace-torch and sevenn") {
  for (const ReferenceModel& m : reference_models())
    for (const auto& [head, cases] : m.heads) {
      Potential cuda = load(m, head, Device::cuda, Precision::float64, false);
      for (const ReferenceValues& r : cases_of(m.name, cases, 8)) {
        INFO(m.name << ", head " << head << ", " << r.structure);
        const Result result = cuda.evaluate(reference_structures().at(r.structure), everything);
        Largest energies, forces;
        REQUIRE(result.energies.size() == r.energies.size());
        for (std::size_t i = 0; i < r.energies.size(); ++i) {
          energies.add(result.energies[i], r.energies[i]);
          for (int a = 0; a < 3; ++a) forces.add(result.forces[i][a], r.forces[i][a]);
        }
        CHECK(energies.value <= 2e-8);
        CHECK(forces.value <= 1e-7);
      }
    }
}

TEST_CASE("the same bits again; and with threads, warps and blocks the other way round: none reads what another one writes in the same phase") {
  for (const std::string& name : some_models)
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      Potential cuda = load(name, Device::cuda, precision);
      const Structure& s = structure_of(name, precision == Precision::float32 ? "mixed" : "water");
      const Result forwards = cuda.evaluate(s, everything);
      check_equal(forwards, cuda.evaluate(s, everything));
      const Setting order("ADATOM_HOST_ORDER", "reverse");
      check_equal(forwards, cuda.evaluate(s, everything));
    }
}

TEST_CASE("a system that does not fit in one piece is worked on in blocks; one that fits in none is an error") {
  if (!on_host()) return;
  for (const char* name : {"mace_medium", "sevennet_fcn"})
    for (const bool splines : {true, false}) {
      INFO(name << ", splines " << splines);
      const ReferenceModel& m = reference_model(name);
      Structure s = structure_of(name, "cu_fcc");
      // Three copies in each of two directions, so that there are blocks.
      const Structure one = s;
      for (int x = 0; x < 3; ++x)
        for (int y = 0; y < 3; ++y)
          for (std::size_t i = 0; i < one.positions.size() && x + y > 0; ++i) {
            Vector3 p = one.positions[i];
            for (int a = 0; a < 3; ++a) p[a] += x * one.cell[0][a] + y * one.cell[1][a];
            s.positions.push_back(p), s.numbers.push_back(one.numbers[i]);
          }
      for (int a = 0; a < 3; ++a) s.cell[0][a] *= 3, s.cell[1][a] *= 3;
      REQUIRE(s.positions.size() == 144);
      Potential whole = load(m, m.heads.begin()->first, Device::cuda, Precision::float64, splines);
      const Result a = whole.evaluate(s, everything);
      const std::size_t bytes = whole.counters().workspace_bytes;
      Potential blocks = load(m, m.heads.begin()->first, Device::cuda, Precision::float64, splines);
      whole = load(m, m.heads.begin()->first, Device::cpu, Precision::float64, splines);  // gives its memory back
      bool in_blocks = false, too_little = false;
      for (int percent = 120; percent > 0 && !too_little; percent -= 10) {  // the model itself takes some as well
        blocks.evaluate(one, everything);
        const Setting memory("ADATOM_HOST_MEMORY", std::to_string(bytes * percent / 100));
        try {
          const Deviation d(a, blocks.evaluate(s, everything));
          CHECK(d.energies.value <= 1e-10 * energy_scale(a));
          CHECK(d.forces.value <= 1e-9 * force_scale(a));
          CHECK(d.virials.value <= 1e-9 * force_scale(a));
          in_blocks |= blocks.counters().workspace_bytes < bytes;
        } catch (const std::runtime_error& error) {
          CHECK_THAT(error.what(), Catch::Contains("out of memory on the CUDA device: " + std::to_string(s.positions.size()) + " atoms") &&
                                       Catch::Contains(" atoms fit into what is free now"));
          too_little = true;
        }
      }
      CHECK(in_blocks);
      CHECK(too_little);
      // After an error there is a next time.
      const Deviation d(a, blocks.evaluate(s, everything));
      CHECK(d.forces.value <= 1e-9 * force_scale(a));
    }
}

TEST_CASE("a batch is its structures; empty structures and lone atoms") {
  for (const std::string& name : some_models)
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      Potential cuda = load(name, Device::cuda, precision);
      std::vector<Structure> all;
      for (const ReferenceValues& r : reference_model(name).heads.begin()->second)
        if (!on_host() || r.energies.size() <= 8) all.push_back(reference_structures().at(r.structure));
      Structure lone;
      lone.numbers = {all.front().numbers.front()};
      lone.positions = {{0.3, 0.2, 0.1}};
      all.push_back({});
      all.push_back(lone);
      const auto results = cuda.evaluate(all, everything);
      REQUIRE(results.size() == all.size());
      const double tolerance = precision == Precision::float32 ? 2e-5 : 1e-10;
      for (std::size_t k = 0; k < all.size(); ++k) {
        const Result single = cuda.evaluate(all[k], everything);
        const Deviation d(single, results[k]);
        CHECK(d.energies.value <= tolerance * energy_scale(single));
        CHECK(d.forces.value <= tolerance * force_scale(single));
        CHECK(d.virial.value <= 10 * tolerance * force_scale(single));
      }
      CHECK(results[all.size() - 2].energy == 0.0);
      CHECK(results.back().forces[0] == Vector3{0, 0, 0});
      // Of float in sevennet_parity rounding alone makes 3.4e-6 eV.
      const double alone = load(name, Device::cpu, Precision::float64).evaluate(lone).energy;
      CHECK(results.back().energy == Approx(alone).margin(precision == Precision::float32 ? 4e-6 : 1e-11));
    }
}

TEST_CASE("a decomposed system: ghosts, whose rows a halo exchanges") {
  for (const std::string& name : some_models)
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      const Structure& s = structure_of(name, "triclinic");
      Potential cuda = load(name, Device::cuda, precision);
      const Result plain = load(name, Device::cpu, precision).evaluate(s, everything);
      Ghosts ghosts(cuda, s);
      REQUIRE(ghosts.owner.size() > s.positions.size());
      const std::size_t n = s.positions.size(), nodes = ghosts.owner.size();
      std::vector<double> energies(n);
      std::vector<Vector3> forces(nodes);
      GraphResult result;
      result.energies = energies.data(), result.forces = forces.front().data(), result.want_virial = true;
      cuda.evaluate(ghosts.graph(), result, &ghosts);
      for (const bool on_device : {false, true}) {
        if (on_device && !on_host()) continue;  // this halo copies in host memory
        Ghosts packing = ghosts;
        packing.packs = true, packing.on_device = on_device, packing.calls = 0;
        std::vector<double> packed_energies(n);
        std::vector<Vector3> packed_forces(nodes);
        GraphResult packed;
        packed.energies = packed_energies.data(), packed.forces = packed_forces.front().data(), packed.want_virial = true;
        cuda.evaluate(packing.graph(), packed, &packing);
        CHECK(packing.calls == ghosts.calls);
        CHECK(packed_energies == energies);  // rows are added in the same order
        CHECK(packed_forces == forces);
      }
      for (std::size_t g = n; g < nodes; ++g)
        for (int a = 0; a < 3; ++a) forces[ghosts.owner[g]][a] += forces[g][a];
      CHECK(ghosts.calls > 0);
      const double tolerance = precision == Precision::float32 ? 2e-5 : 1e-9;
      Largest e, f, w;
      for (std::size_t i = 0; i < n; ++i) {
        e.add(energies[i], plain.energies[i]);
        for (int a = 0; a < 3; ++a) f.add(forces[i][a], plain.forces[i][a]);
      }
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) w.add(0.5 * (result.virial[3 * a + b] + result.virial[3 * b + a]), plain.virial[3 * a + b]);
      CHECK(e.value <= tolerance * energy_scale(plain));
      CHECK(f.value <= tolerance * force_scale(plain));
      CHECK(w.value <= tolerance * force_scale(plain) * static_cast<double>(n) * 10);

      // A process without atoms takes part in every exchange.
      Ghosts nobody = ghosts;
      nobody.receivers = 0, nobody.calls = 0;
      nobody.owner.clear(), nobody.first_edge = {0}, nobody.sender.clear();
      GraphResult nothing;
      Vector3 none{};
      nothing.forces = none.data(), nothing.want_virial = true;
      Graph graph = nobody.graph();
      cuda.evaluate(graph, nothing, &nobody);
      CHECK(nobody.calls == ghosts.calls);
      CHECK(nothing.energy == 0.0);
    }
}

TEST_CASE("what is wrong with positions is said, and the next evaluation is right") {
  Potential cuda = load("mace_small", Device::cuda, Precision::float32);
  const Structure& s = structure_of("mace_small", "mixed");
  const Result right = cuda.evaluate(s, everything);
  Potential cpu = load("mace_small", Device::cpu, Precision::float32);
  NeighborList list(cuda.cutoff());
  list.update(s, 1);
  std::vector<int> species;
  for (const int z : s.numbers) species.push_back(cuda.species(z));
  cpu.species(s.numbers.front());
  std::vector<Vector3> positions = list.positions(), forces(positions.size());
  Graph graph;
  graph.n_receivers = graph.n_nodes = static_cast<int>(positions.size());
  graph.species = species.data(), graph.first_edge = list.first_edge().data(), graph.sender = list.sender().data();
  graph.shift = list.shift().data(), graph.shifts = list.shifts().front().data(), graph.positions = positions.front().data();
  const auto message = [&](Potential& p) {
    GraphResult result;
    result.forces = forces.front().data();
    try {
      p.evaluate(graph, result);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message(cuda).empty());
  positions[3][1] = NAN;
  CHECK_THAT(message(cuda), Catch::Contains("position that is not finite"));
  CHECK(message(cuda) == message(cpu));
  positions = list.positions();
  const int j = list.sender()[list.first_edge()[2]];
  const Vector3 shift = list.shifts()[list.shift()[list.first_edge()[2]]];
  for (int a = 0; a < 3; ++a) positions[2][a] = positions[j][a] + shift[a];
  CHECK_THAT(message(cuda), Catch::Contains("are on the same spot"));
  CHECK(message(cuda) == message(cpu));
  check_equal(right, cuda.evaluate(s, everything));
}

TEST_CASE("positions move under a kept neighbour list; results are wanted or not") {
  Potential cuda = load("mace_large", Device::cuda, Precision::float64), cpu = load("mace_large", Device::cpu, Precision::float64);
  Structure s = structure_of("mace_large", "mixed");
  for (int step = 0; step < 4; ++step) {
    for (std::size_t i = 0; i < s.positions.size(); ++i) s.positions[i][i % 3] += 0.03;
    Request request;
    request.energies = true;
    request.forces = step != 1;
    request.virial = step == 2;
    request.virials = step == 3;
    const Result a = cuda.evaluate(s, request), b = cpu.evaluate(s, request);
    CHECK(a.energy == Approx(b.energy).epsilon(1e-12));
    REQUIRE(a.forces.size() == b.forces.size());
    REQUIRE(a.virials.size() == b.virials.size());
    for (std::size_t i = 0; i < a.forces.size(); ++i)
      for (int k = 0; k < 3; ++k) CHECK(a.forces[i][k] == Approx(b.forces[i][k]).margin(1e-9));
    for (int k = 0; k < 9; ++k) CHECK(a.virial[k] == Approx(b.virial[k]).margin(1e-8));
  }
  CHECK(cuda.counters().flops_per_step > 0.0);
  CHECK(cuda.counters().bytes_per_step > 0.0);
  CHECK(cuda.counters().launches_per_step > 10);
}

TEST_CASE("atoms that move far, are wrapped, and cells that change: lists of the device are made anew") {
  Potential cuda = load("mace_large", Device::cuda, Precision::float64), cpu = load("mace_large", Device::cpu, Precision::float64);
  Structure s = structure_of("mace_large", "triclinic");
  const auto compare = [&] {
    const Result a = cuda.evaluate(s, everything), b = cpu.evaluate(s, everything);
    const Deviation d(a, b);
    CHECK(d.energies.value <= 1e-10 * energy_scale(b));
    CHECK(d.forces.value <= 1e-9 * force_scale(b));
    CHECK(d.virials.value <= 1e-8 * force_scale(b));
  };
  compare();
  for (int step = 0; step < 3; ++step) {  // by more than half the skin each
    for (std::size_t i = 0; i < s.positions.size(); ++i) s.positions[i][(i + step) % 3] += 0.3;
    compare();
  }
  for (int a = 0; a < 3; ++a) s.positions[0][a] += 2 * s.cell[0][a] - s.cell[2][a];  // another image of the same atom
  compare();
  for (auto& row : s.cell)
    for (double& x : row) x *= 1.02;
  compare();
  s.pbc[2] = false;
  compare();
  s.numbers.pop_back(), s.positions.pop_back();
  compare();
}

TEST_CASE("linear maps with rounded inputs: how far they are off is what is measured") {
  for (const char* name : {"mace_large", "sevennet_fcn"}) {
    INFO(name);
    const ReferenceModel& m = reference_model(name);
    const Structure& s = structure_of(name, "mixed");
    const std::string& head = m.heads.begin()->first;
    Potential exact = load(m, head, Device::cuda, Precision::float32);
    const Result a = exact.evaluate(s, everything);
    CHECK(exact.matmul_error(s).force == 0.0);
    double last = 0.0;
    for (const Matmul matmul : {Matmul::tf32, Matmul::bf16}) {
      Potential rounded = load(m, head, Device::cuda, Precision::float32, true, matmul);
      const Result b = rounded.evaluate(s, everything);
      const Deviation d(a, b);
      const MatmulError error = rounded.matmul_error(s);
      CHECK(error.force == d.forces.value);
      CHECK(error.energy == d.energies.value);
      const double relative = error.force / force_scale(a), bits = matmul == Matmul::tf32 ? 11 : 8;
      CHECK(relative > 1e-2 * std::pow(2.0, -bits));  // it is rounded,
      CHECK(relative < 30 * std::pow(2.0, -bits));    // and no more than that
      CHECK(relative > last);
      last = relative;
      check_equal(b, rounded.evaluate(s, everything));
    }
    CHECK_THROWS_WITH(load(m, head, Device::cuda, Precision::float64, true, Matmul::tf32), Catch::Contains("are for device cuda and float32"));
  }
}

TEST_CASE("a device that cannot be used is an error that says why") {
  if (!on_host()) return;
  const auto message = [](const std::string& facts) {
    const Setting device("ADATOM_HOST_DEVICE", facts);
    try {
      load("mace_small", Device::cuda, Precision::float32);
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message("13000,1,8,0").empty());
  CHECK(message("13020,2,9,0").empty());
  CHECK_THAT(message("12040,1,9,0"),
             Catch::Contains("device cuda cannot be used: the NVIDIA driver is for CUDA 12.4, this build needs 13.0: update the driver"));
  CHECK_THAT(message("13000,0,9,0"), Catch::Contains("sees no device: check nvidia-smi, and that CUDA_VISIBLE_DEVICES does not hide it"));
  CHECK_THAT(message("13000,1,7,5"), Catch::Contains("compute capability 7.5, at least 8.0 is needed"));
  const Setting memory("ADATOM_HOST_MEMORY", "1000");
  CHECK_THROWS_WITH(load("mace_small", Device::cuda, Precision::float32), Catch::Contains("out of memory on the CUDA device: there is no room for the model"));
}

TEST_CASE("what is wrong with a structure of a batch names it") {
  Potential cuda = load("mace_small", Device::cuda, Precision::float32);
  const Structure& good = structure_of("mace_small", "mixed");
  std::vector<Structure> batch(3, good);
  batch[1].positions[2] = batch[1].positions[1];
  CHECK_THROWS_WITH(cuda.evaluate(batch), Catch::Contains("structure 1 (counted from 0) of the batch: atom 1 and one of its neighbours are on the same spot"));
  batch[1] = good;
  batch[2].positions[4][0] = NAN;
  CHECK_THROWS_WITH(cuda.evaluate(batch), Catch::Contains("structure 2 (counted from 0) of the batch: atom 4"));
  batch[2] = good;
  CHECK(cuda.evaluate(batch)[2].energy == Approx(cuda.evaluate(good).energy).epsilon(1e-6));
}

TEST_CASE("Hessian-vector products as on the CPU") {
  for (const std::string& name : some_models)
    for (const Precision precision : {Precision::float32, Precision::float64}) {
      INFO(name);
      Potential cuda = load(name, Device::cuda, precision), cpu = load(name, Device::cpu, precision);
      const Structure& s = structure_of(name, "triclinic");
      std::vector<Vector3> v(s.positions.size());
      for (std::size_t i = 0; i < v.size(); ++i)
        for (int a = 0; a < 3; ++a) v[i][a] = std::sin(1.0 + 3.0 * static_cast<double>(i) + a);
      const auto expected = cpu.hessian_vector(s, v), got = cuda.hessian_vector(s, v);
      double scale = 1.0;
      Largest d;
      for (std::size_t i = 0; i < v.size(); ++i)
        for (int a = 0; a < 3; ++a) scale = std::max(scale, std::abs(expected[i][a])), d.add(got[i][a], expected[i][a]);
      CHECK(d.value <= (precision == Precision::float32 ? 1e-4 : 1e-9) * scale);
    }
}

TEST_CASE("deviations of float from double on either backend, printed", "[.][report]") {
  const char* only = std::getenv("ADATOM_MODEL");
  for (const ReferenceModel& m : reference_models()) {
    if (only && m.name != only) continue;
    const std::string& head = m.heads.begin()->first;
    Potential exact = load(m, head, Device::cpu, Precision::float64), cpu = load(m, head, Device::cpu, Precision::float32),
              cuda = load(m, head, Device::cuda, Precision::float32);
    double worst[4] = {};
    for (const ReferenceValues& r : cases_of(m.name, m.heads.begin()->second, 16)) {
      const Structure& s = reference_structures().at(r.structure);
      const Result a = exact.evaluate(s, everything);
      const Deviation c(a, cpu.evaluate(s, everything)), d(a, cuda.evaluate(s, everything));
      worst[0] = std::max(worst[0], c.energies.value / energy_scale(a)), worst[1] = std::max(worst[1], d.energies.value / energy_scale(a));
      worst[2] = std::max(worst[2], c.forces.value / force_scale(a)), worst[3] = std::max(worst[3], d.forces.value / force_scale(a));
    }
    std::printf("%-22s energies: cpu %.1e cuda %.1e   forces: cpu %.1e cuda %.1e\n", m.name.c_str(), worst[0], worst[1], worst[2], worst[3]);
    std::fflush(stdout);
  }
}
