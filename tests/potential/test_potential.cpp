// SPDX-License-Identifier: MIT
// Potential on top of the pair potential of pair_network.cpp.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "adatom/elements.hpp"
#include "adatom/neighbor_list.hpp"
#include "adatom/potential.hpp"
#include "pair_model.hpp"
#include "structures.hpp"

using namespace adatom;
using namespace adatom::test;
using Catch::Contains;

namespace {

Potential load(const LoadOptions& options, const ModelFile& model = pair_model()) {
  const Folder folder;
  write_model(folder / "pair.safetensors", model);
  return Potential::load(folder / "pair.safetensors", options);
}
Potential load() {
  LoadOptions options;
  options.head = "pbe";
  return load(options);
}

const Request everything = {true, true, true, true};

Structure strained(Structure s, int a, int b, double epsilon) {
  for (Vector3& r : s.cell) r[a] += epsilon * r[b];
  for (Vector3& r : s.positions) r[a] += epsilon * r[b];
  return s;
}

void check_same(const Result& x, const Result& y) {
  CHECK(x.energy == y.energy);
  CHECK(x.energies == y.energies);
  CHECK(x.forces == y.forces);
  for (int k = 0; k < 9; ++k) CHECK(x.virial[k] == Approx(y.virial[k]).margin(1e-12));
  CHECK(x.virials == y.virials);
}

}  // namespace

TEST_CASE("potential: a dimer, by hand") {
  Potential potential = load();
  const Structure s{{}, {}, {8, 1}, {{0, 0, 0}, {0, 3, 0}}};
  const Result result = potential.evaluate(s, everything);
  const double x = 1 - 9.0 / 25, v = 1.25 * 0.5 * x * x * x, f = 1.25 * 0.5 * 6 * x * x * 3 / 25;  // repulsive
  CHECK(result.energy == Approx(-11 + v).epsilon(1e-14));
  CHECK(result.energies[0] == Approx(-10 + v / 2).epsilon(1e-14));
  CHECK(result.forces[1][1] == Approx(f).epsilon(1e-14));
  CHECK(result.forces[0][1] == Approx(-f).epsilon(1e-14));
  CHECK(result.virial[4] == Approx(3 * f).epsilon(1e-14));
  CHECK(result.virials[0][4] == Approx(1.5 * f).epsilon(1e-14));
}

TEST_CASE("potential: what a model file says") {
  LoadOptions options;
  options.head = "r2scan";
  const Potential potential = load(options);
  const ModelInfo& info = potential.info();
  CHECK(potential.cutoff() == 5.0);
  CHECK(info.elements == std::vector<int>{8, 1, 6});
  CHECK(info.heads == std::vector<std::string>{"pbe", "r2scan"});
  CHECK(info.head == "r2scan");
  CHECK(info.architecture_json == pair_model().architecture);
  CHECK(info.provenance_json == pair_model().provenance);
  CHECK(info.backend == "pair");
  CHECK(info.summary == "pair potential");
  CHECK(potential.species(8) == 0);
  CHECK(potential.species(6) == 2);
}

TEST_CASE("potential: forces and stress are derivatives of the energy, for every periodicity") {
  Potential potential = load();
  unsigned seed = 100;
  for (const std::array<bool, 3> pbc : {std::array{true, true, true}, {true, false, true}, {false, false, true}, {false, false, false}}) {
    const Structure s = random_structure(6, 4.0, pbc, seed++, 0.6);
    const Result result = potential.evaluate(s, everything);
    const auto energy = [&](const Structure& moved) { return potential.evaluate(moved, {false, false, false, false}).energy; };
    constexpr double h = 1e-4;  // error of the central difference: about 1e-8
    for (const int i : {0, 3})
      for (int a = 0; a < 3; ++a) {
        Structure plus = s, minus = s;
        plus.positions[i][a] += h, minus.positions[i][a] -= h;
        CHECK(result.forces[i][a] == Approx(-(energy(plus) - energy(minus)) / (2 * h)).margin(1e-6));
      }
    const auto [p, q, r] = s.cell;
    const double volume = std::abs(p[0] * (q[1] * r[2] - q[2] * r[1]) - p[1] * (q[0] * r[2] - q[2] * r[0]) + p[2] * (q[0] * r[1] - q[1] * r[0]));
    const std::array<double, 6> sigma = stress(result.virial, s.cell);
    const std::pair<int, int> voigt[6] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};
    for (int k = 0; k < 6; ++k) {
      const auto [a, b] = voigt[k];
      const double derivative = (energy(strained(s, a, b, h)) - energy(strained(s, a, b, -h))) / (2 * h);
      CHECK(-result.virial[3 * a + b] == Approx(derivative).margin(1e-5));
      CHECK(sigma[k] == Approx(derivative / volume).margin(1e-6));
    }
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        CHECK(result.virial[3 * a + b] == result.virial[3 * b + a]);
        double sum = 0;
        for (const auto& w : result.virials) sum += w[3 * a + b];
        CHECK(sum == Approx(result.virial[3 * a + b]).margin(1e-11));
      }
  }
}

TEST_CASE("potential: a batch gives what its structures give alone") {
  Potential potential = load(), alone = load();
  std::vector<Structure> structures = {random_structure(9, 5.0, {true, true, true}, 1, 0.6),
                                       Structure{},
                                       Structure{{}, {}, {6}, {{1, 2, 3}}},
                                       random_structure(20, 6.0, {false, true, false}, 2, 0.6),
                                       random_structure(1, 2.5, {true, true, true}, 3),
                                       random_structure(5, 5.0, {false, false, false}, 4, 0.6)};
  for (int repetition = 0; repetition < 2; ++repetition) {
    const auto results = potential.evaluate(structures, everything);
    REQUIRE(results.size() == structures.size());
    for (std::size_t k = 0; k < structures.size(); ++k) check_same(results[k], alone.evaluate(structures[k], everything));
    structures[3].positions[2][0] += 0.01;
  }
  CHECK(potential.evaluate(std::vector<Structure>{}).empty());
  CHECK(potential.evaluate(std::vector<Structure>{Structure{}})[0].energy == 0.0);
}

TEST_CASE("potential: a batch of more atoms than are evaluated together") {
  Potential potential = load();
  std::vector<Structure> structures;
  for (int k = 0; k < 900; ++k) {
    structures.push_back(random_structure(2, 30.0, {false, false, false}, 7));
    for (int copy = 0; copy < 24; ++copy) {
      structures.back().numbers.push_back(copy % 2 ? 1 : 8);
      structures.back().positions.push_back({3.0 * copy + 100, 0.001 * k, 0});
    }
  }
  const auto results = potential.evaluate(structures, everything);
  for (const int k : {0, 500, 770, 899}) check_same(results[k], potential.evaluate(structures[k], everything));
}

TEST_CASE("potential: only what is asked for") {
  Potential potential = load();
  const Structure s = random_structure(4, 4.0, {true, true, true}, 11, 0.6);
  for (const Request& request : {Request{}, Request{false, false, false, false}, Request{true, false, true, false}, Request{false, false, false, true}})
    for (const Result& result : {potential.evaluate(s, request), potential.evaluate(std::vector<Structure>{s, s}, request)[1]}) {
      CHECK(result.energies.size() == (request.energies ? 4 : 0));
      CHECK(result.forces.size() == (request.forces ? 4 : 0));
      CHECK(result.virials.size() == (request.virials ? 4 : 0));
      CHECK((result.virial != std::array<double, 9>{}) == request.virial);
      CHECK(result.energy == potential.evaluate(s, everything).energy);
    }
}

TEST_CASE("potential: empty and isolated") {
  Potential potential = load();
  const Result empty = potential.evaluate(Structure{}, everything);
  CHECK(empty.energy == 0.0);
  CHECK(empty.forces.empty());
  CHECK(potential.hessian_vector(Structure{}, {}).empty());
  const Result atom = potential.evaluate(Structure{{}, {}, {6}, {{1, 2, 3}}}, everything);
  CHECK(atom.energy == -5.0);
  CHECK(atom.forces == std::vector<Vector3>{{0, 0, 0}});
  CHECK(atom.virial == std::array<double, 9>{});
}

TEST_CASE("potential: steps within the skin and beyond it") {
  Potential potential = load();
  Structure s = random_structure(12, 5.0, {true, true, false}, 31, 0.6);
  std::mt19937 random(1);
  std::normal_distribution<double> normal(0, 0.05);
  for (int step = 0; step < 20; ++step) {
    Potential fresh = load();
    check_same(potential.evaluate(s, everything), fresh.evaluate(s, everything));
    for (Vector3& r : s.positions)
      for (double& x : r) x += normal(random);
  }
}

TEST_CASE("potential: graphs of several sources do not disturb each other") {
  Potential potential = load();
  const Structure s = random_structure(8, 5.0, {true, true, true}, 41, 0.6), other = random_structure(3, 5.0, {true, true, true}, 42, 0.6);
  const Result expected = load().evaluate(s, everything);

  NeighborList list(potential.cutoff());
  list.update(s);
  std::vector<int> species;
  for (const int z : s.numbers) species.push_back(potential.species(z));
  Graph graph;
  graph.n_receivers = graph.n_nodes = 8;
  graph.species = species.data();
  graph.first_edge = list.first_edge().data();
  graph.sender = list.sender().data();
  graph.shift = list.shift().data();
  graph.shifts = list.shifts()[0].data();
  graph.positions = list.positions()[0].data();
  std::vector<Vector3> forces(8);
  for (const std::uint64_t revision : {1, 1, 2, 0, 1, 3}) {  // small numbers, as a caller's own count has
    graph.revision = revision;
    potential.evaluate(other);
    potential.evaluate(std::vector<Structure>{other, other});
    check_same(potential.evaluate(s, everything), expected);
    potential.hessian_vector(other, std::vector<Vector3>(3));
    GraphResult result;
    result.forces = forces[0].data();
    result.want_virial = true;
    potential.evaluate(graph, result);
    CHECK(result.energy == Approx(expected.energy).epsilon(1e-14));
    CHECK(forces == expected.forces);
    check_same(potential.evaluate(s, everything), expected);
  }

  // A caller's revision that happens to be that of the list which evaluate() just made.
  NeighborList probe(1.0);
  probe.update(Structure{});
  graph.revision = probe.revision() + 1;
  potential.evaluate(other);
  GraphResult result;
  result.forces = forces[0].data();
  potential.evaluate(graph, result);
  CHECK(forces == expected.forces);
}

TEST_CASE("potential: Hessian times vector") {
  LoadOptions options;
  options.head = "pbe";
  options.precision = GENERATE(Precision::float32, Precision::float64);
  Potential potential = load(options);
  const Structure s = random_structure(7, 4.5, {true, false, true}, 51, 0.6);
  std::vector<Vector3> v(7);
  for (int i = 0; i < 7; ++i) v[i] = {std::sin(1.0 + i), std::cos(2.0 * i), 0.3 * i - 1};
  const auto product = potential.hessian_vector(s, v);
  constexpr double h = 1e-4;
  Structure plus = s, minus = s;
  for (int i = 0; i < 7; ++i)
    for (int a = 0; a < 3; ++a) plus.positions[i][a] += h * v[i][a], minus.positions[i][a] -= h * v[i][a];
  const auto f_plus = potential.evaluate(plus).forces, f_minus = potential.evaluate(minus).forces;
  for (int i = 0; i < 7; ++i)
    for (int a = 0; a < 3; ++a) CHECK(product[i][a] == Approx(-(f_plus[i][a] - f_minus[i][a]) / (2 * h)).margin(1e-6));
}

TEST_CASE("potential: fewer elements") {
  LoadOptions options;
  options.head = "r2scan";
  options.elements = {6, 8, 6};
  Potential potential = load(options);
  CHECK(potential.info().elements == std::vector<int>{8, 6});
  CHECK(potential.species(6) == 1);
  const Structure s{{}, {}, {6, 8}, {{0, 0, 0}, {0, 0, 2}}};
  options.elements.clear();
  CHECK(potential.evaluate(s).energy == load(options).evaluate(s).energy);
  CHECK_THROWS_WITH(potential.species(1), Contains("no element H (1); it has O (8), C (6) since it was loaded with these elements only"));
  CHECK_THROWS_WITH(potential.species(92), Contains("no element U (92)") && Contains(": use a model that was trained on it") && !Contains("loaded"));
}

TEST_CASE("potential: counters and moves") {
  Potential first = load();
  CHECK(first.counters().flops_per_step == 0.0);
  const Structure s = random_structure(7, 4.5, {true, true, true}, 61, 0.6);
  const double energy = first.evaluate(s).energy;
  const Counters counters = first.counters();
  CHECK(counters.flops_per_step > 0);
  CHECK(counters.workspace_bytes > 0);
  Potential second = std::move(first);
  second.set_threads(1);
  CHECK(second.evaluate(s).energy == energy);
  CHECK(second.counters().flops_per_step == counters.flops_per_step);
}

TEST_CASE("potential errors: loading") {
  const Folder folder;
  LoadOptions options;
  write_model(folder / "m", pair_model());
  const auto refused = [&](const std::string& message) { CHECK_THROWS_WITH(Potential::load(folder / "m", options), Contains(message)); };
  refused("m': the model has several heads and none was chosen: set head to one of 'pbe', 'r2scan'");
  options.head = "PBE";
  refused("the model has no head 'PBE': set head to one of 'pbe', 'r2scan'");
  options.head = "pbe";
  options.elements = {8, 92};
  refused("the element U (92) was asked for, but the model has only O (8), H (1), C (6)");
  options.elements.clear();
  options.threads = -2;
  refused("threads is -2");
  options.threads = 0;
  options.device = Device::cuda;
  refused("device cuda cannot be used");
  options.device = Device::cpu;
  CHECK_NOTHROW(Potential::load(folder / "m", options));

  ModelFile model = pair_model();
  model.cutoff = 4.9;
  write_model(folder / "m", model);
  refused("its cutoff is 4.9");
  model = pair_model();
  model.tensors.erase("strength");
  write_model(folder / "m", model);
  refused("m': tensor 'strength' is missing");
  write_bytes(folder / "m", "rubbish that is no model");
  refused("it is no safetensors file");
  model = pair_model();
  model.heads = {"default"};
  write_model(folder / "m", model);
  options.head.clear();
  CHECK(Potential::load(folder / "m", options).info().head == "default");
}

TEST_CASE("potential errors: structures, after which it still works") {
  Potential potential = load();
  const Structure good = random_structure(5, 4.5, {true, true, true}, 71, 0.6);
  const Result expected = potential.evaluate(good, everything);
  Structure s = good;
  std::string message;
  SECTION("element") { s.numbers[3] = 92, message = "no element U (92) (atom 3"; }
  SECTION("no element") { s.numbers[3] = 0, message = "no element 0 (atom 3"; }
  SECTION("negative") { s.numbers[3] = -7, message = "it has O (8), H (1), C (6)"; }
  SECTION("fewer positions") { s.positions.pop_back(), message = "5 atomic numbers but 4 positions"; }
  SECTION("NaN") { s.positions[2][1] = std::nan(""), message = "position of atom 2"; }
  SECTION("cell") { s.cell[0] = {}, message = "cell vector 0 is zero"; }
  CHECK_THROWS_AS(potential.evaluate(s), std::invalid_argument);
  CHECK_THROWS_WITH(potential.evaluate(s), Contains(message));
  CHECK_THROWS_WITH(potential.evaluate(std::vector<Structure>{good, s}), Contains(message) || Contains("atom 3 of structure 1"));
  CHECK_THROWS_WITH(potential.evaluate(std::vector<Structure>{good, s}), Contains("structure 1") || Contains("it has O (8), H (1), C (6)"));
  CHECK_THROWS_WITH(potential.hessian_vector(s, std::vector<Vector3>(s.positions.size())), Contains(message));
  check_same(potential.evaluate(good, everything), expected);
}

TEST_CASE("potential errors: results that are not finite") {
  ModelFile model = pair_model();
  model.tensors["strength"] = {{3}, {1e200, 1e200, 0.0}};  // O and H; of C there is no more than an energy
  LoadOptions options;
  options.head = "pbe", options.precision = Precision::float64;
  Potential potential = load(options, model);
  const Structure good{{}, {}, {6, 6}, {{0, 0, 0}, {0, 3, 0}}}, far{{}, {}, {6, 8, 1}, {{0, 0, 0}, {0, 3, 0}, {0, 6, 0}}},
      near{{}, {}, {6, 8, 1}, {{0, 0, 0}, {0, 3, 0}, {0, 3, 0.05}}};
  CHECK_THROWS_AS(potential.evaluate(far), NotFinite);
  CHECK_THROWS_WITH(potential.evaluate(far),
                    "the energy of atom 1 (counted from 0) is not finite: no two atoms are closer than 3 angstrom, so the model's weights are "
                    "too large for its precision (float64 holds more), or its file is damaged");
  CHECK_THROWS_WITH(potential.evaluate(near),
                    "the energy of atom 1 (counted from 0) is not finite: atom 1 (counted from 0) and atom 2 (counted from 0) are 0.05 "
                    "angstrom apart; move one of them");
  CHECK_THROWS_WITH(
      potential.evaluate(std::vector<Structure>{good, good, near}),
      Contains("the energy of atom 1 of structure 2 of the batch (counted from 0) is not finite: atom 1 of structure 2 of the batch (counted from 0) and "
               "atom 2 of structure 2"));
  CHECK_THROWS_WITH(potential.hessian_vector(far, std::vector<Vector3>(3, {1, 0, 0})), Contains("is not finite"));

  // A graph for which only a sum is asked.
  NeighborList list(5.0);
  list.update(near);
  const int species[] = {2, 0, 1};
  Graph graph;
  graph.n_receivers = graph.n_nodes = 3;
  graph.species = species, graph.first_edge = list.first_edge().data(), graph.sender = list.sender().data(), graph.positions = list.positions().front().data();
  GraphResult result;
  try {
    potential.evaluate(graph, result);
    FAIL("it was evaluated");
  } catch (const NotFinite& error) {
    CHECK(error.atom() == -1);
    CHECK(error.text([](int node) { return "#" + std::to_string(node); }) == "the energy is not finite: #1 and #2 are 0.05 angstrom apart; move one of them");
  }
  CHECK(potential.evaluate(good).energy == -10.0);
}

TEST_CASE("potential errors: arguments") {
  Potential potential = load();
  const Structure s = random_structure(3, 4.5, {true, true, true}, 81, 0.6);
  CHECK_THROWS_WITH(potential.hessian_vector(s, std::vector<Vector3>(2)), Contains("2 rows, but the structure has 3 atoms"));
  std::vector<Vector3> v(3);
  v[1][1] = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(potential.hessian_vector(s, v), Contains("row 1"));
  CHECK_THROWS_WITH(potential.species(118), Contains("no element Og (118); it has"));
  CHECK_THROWS_WITH(potential.set_threads(-1), Contains("threads is -1"));
  CHECK_THROWS_WITH(stress({}, Matrix3{}), Contains("volume of 0"));

  GraphResult result;
  Graph graph;
  CHECK_THROWS_WITH(potential.evaluate(graph, result), Contains("lacks species, first_edge or positions"));
  const std::int64_t first_edge[] = {0};
  graph.first_edge = first_edge;
  CHECK_NOTHROW(potential.evaluate(graph, result));  // no atoms: an empty subdomain
  graph.n_receivers = 2, graph.n_nodes = 1;
  CHECK_THROWS_WITH(potential.evaluate(graph, result), Contains("2 receivers and 1 nodes"));
  const int species[] = {0};
  const double position[] = {0, 0, 0};
  graph.n_receivers = 0, graph.species = species, graph.positions = position;
  CHECK_THROWS_WITH(potential.evaluate(graph, result), Contains("1 ghosts: give a Halo"));
}
