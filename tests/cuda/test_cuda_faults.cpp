// SPDX-License-Identifier: MIT
// What happens when a device fails in the middle, and when a recorded step may be replayed. The host executor records and replays as CUDA does, and fails where
// ADATOM_HOST_FAULT says.
#include <random>

#include "cases.hpp"
#include "gnn/trainable.hpp"
#include "potential/batch.hpp"
#include "potential/model_file.hpp"

using namespace adatom;

namespace {

constexpr const char* fault = "ADATOM_HOST_FAULT";

/// Runs `body` with an error of the device at its first call of CUDA's runtime, its second, ... until it ends without, and checks what it says; between them
/// `check` sees whether what is left works. Returns how many errors there were.
template <class Body, class Check>
int at_every_call(int error, const std::string& says, const std::string& advice, int step, Body body, Check check) {
  int failed = 0;
  for (int n = 1;; n += step) {
    INFO("call " << n);
    bool ended = false;
    {
      const Setting setting(fault, std::to_string(n) + "," + std::to_string(error));
      try {
        body();
        ended = true;
      } catch (const std::runtime_error& e) {
        CHECK_THAT(e.what(), Catch::Contains("CUDA device: " + says + " while ") && Catch::Contains(advice));
        CHECK_THROWS_AS(body(), std::runtime_error);  // the device is lost: once more is the same, not a crash
        ++failed;
      }
    }
    check();
    if (ended) return failed;
  }
}

}  // namespace

TEST_CASE("a device that is lost in the middle of an evaluation is an error that says what to do; what comes after it works") {
  if (!on_host()) return;
  const struct {
    int number;
    std::string says, advice;
  } errors[] = {
      {719, "unspecified launch failure", "the device is lost for this process: restart it (from the last checkpoint)"},
      {214, "uncorrectable ECC error encountered", "memory is faulty (nvidia-smi -q -d ECC): restart this process"},
      {46, "CUDA-capable device(s) is/are busy or unavailable", "another process holds the device: end it, or choose a device with CUDA_VISIBLE_DEVICES"}};
  const std::string name = "mace_small";
  const Structure &s = structure_of(name, "triclinic"), &other = structure_of(name, "cu_fcc");
  REQUIRE(s.numbers != other.numbers);
  Potential right = load(name, Device::cuda, Precision::float32);
  const Result first = right.evaluate(s, everything), second = right.evaluate(other, everything);
  Request only_energy;
  only_energy.forces = false;
  for (const auto& error : errors) {
    INFO(error.says);
    const int step = error.number == 719 ? 2 : 31, seldom = 17;  // loading takes long
    // Loading, a first evaluation, one with another request, one of another structure; the model goes away while the device is lost.
    CHECK(at_every_call(
              error.number, error.says, error.advice, seldom,
              [&] {
                Potential p = load(name, Device::cuda, Precision::float32);
                p.evaluate(s, only_energy);
                p.evaluate(s, everything);
                p.evaluate(other, everything);
              },
              [] {}) > 50 / seldom);
    // A model that stays. Each time it is left in another state.
    Potential kept = load(name, Device::cuda, Precision::float32);
    const auto works = [&] {
      check_equal(first, kept.evaluate(s, everything));
      check_equal(second, kept.evaluate(other, everything));
    };
    works();
    CHECK(at_every_call(
              error.number, error.says, error.advice, step,
              [&] {
                kept.evaluate(other, only_energy);
                for (int k = 0; k < 3; ++k) kept.evaluate(s, everything);
                kept.evaluate({s, other}, everything);
              },
              works) > 50 / step);
  }
}

TEST_CASE("a device that is lost while rows of ghosts are exchanged, or weights' gradients are formed") {
  if (!on_host()) return;
  const std::string says = "unspecified launch failure", advice = "restart it";
  const std::string name = "mace_small";
  const Structure& s = structure_of(name, "triclinic");
  Potential cuda = load(name, Device::cuda, Precision::float64);
  Ghosts ghosts(cuda, s);
  ghosts.packs = true;
  std::vector<Vector3> forces(ghosts.owner.size());
  GraphResult result;
  result.forces = forces.front().data();
  cuda.evaluate(ghosts.graph(), result, &ghosts);
  const std::vector<Vector3> right = forces;
  const auto again = [&] { cuda.evaluate(ghosts.graph(), result, &ghosts); };
  CHECK(at_every_call(719, says, advice, 1, again, [&] {
          again();
          CHECK(forces == right);
        }) > 50);

  const ModelFile file = read_model(reference_model(name).file);
  gnn::NetworkOptions options;
  options.elements = file.elements;
  options.heads = static_cast<int>(file.heads.size());
  for (std::size_t k = 0; k < file.elements.size(); ++k) options.keep.push_back(static_cast<int>(k));
  options.knots = 24;
  gnn::TrainableNetwork network(file.architecture, file.tensors, options);
  Batch batch;
  batch.assign({s}, 0, 1, file.cutoff, 1);
  Graph graph = batch.graph();
  std::vector<int> species, structure(s.numbers.size(), 0);
  for (const int z : s.numbers) species.push_back(static_cast<int>(std::find(file.elements.begin(), file.elements.end(), z) - file.elements.begin()));
  graph.species = species.data();
  graph.revision = 1;
  std::mt19937 g(7);
  std::normal_distribution<double> normal;
  std::vector<double> energies(species.size()), by_forces(3 * species.size()), strains(9);
  for (auto* x : {&energies, &by_forces, &strains})
    for (double& value : *x) value = normal(g);
  const auto dual = gnn::make_cuda_evaluator(network.network(), gnn::Scalar::dual64), cpu = gnn::make_cpu_evaluator(network.network(), gnn::Scalar::dual64);
  const auto gradient = [&](gnn::Evaluator& e, bool with_strains = true) {
    gnn::ArrayGradients arrays;
    e.weight_gradient(graph, {energies.data(), by_forces.data(), with_strains ? strains.data() : nullptr, structure.data()}, arrays);
    return arrays;
  };
  const gnn::ArrayGradients expected = gradient(*dual);
  CHECK(at_every_call(
            719, says, advice, 3,
            [&] {
              dual->refresh();
              ++graph.revision;
              for (int k = 0; k < 3; ++k) gradient(*dual);
            },
            [&] { CHECK(gradient(*dual) == expected); }) > 20);

  // A recorded pass has no place for what was not there when it was recorded: strains go, come back, weights change in place.
  const auto close = [](const gnn::ArrayGradients& a, const gnn::ArrayGradients& b) {
    double largest = 0.0, most = 0.0;
    for (std::size_t id = 0; id < a.size(); ++id)
      for (std::size_t k = 0; k < a[id].size(); ++k) largest = std::max(largest, std::abs(a[id][k])), most = std::max(most, std::abs(a[id][k] - b[id][k]));
    return largest > 0.0 && most <= 1e-10 * largest;
  };
  for (const bool with_strains : {true, false, true}) {
    const gnn::ArrayGradients of_cpu = gradient(*cpu, with_strains);
    for (int k = 0; k < 4; ++k) CHECK(close(of_cpu, gradient(*dual, with_strains)));
  }
  CHECK(!close(gradient(*cpu, true), gradient(*cpu, false)));
  std::vector<double> values = network.values();
  for (std::size_t k = 0; k < values.size(); ++k) values[k] *= 1.0 + 0.05 * std::sin(static_cast<double>(k));
  network.assign(values.data());
  cpu->refresh(), dual->refresh();
  for (int k = 0; k < 3; ++k) CHECK(close(gradient(*cpu), gradient(*dual)));
}

TEST_CASE("recorded steps are thrown away when what they refer to changes") {
  const std::string name = "mace_large";
  Potential cuda = load(name, Device::cuda, Precision::float64), cpu = load(name, Device::cpu, Precision::float64);
  Structure s = structure_of(name, "triclinic");
  const auto compare = [&](const Request& request) {
    const Result a = cuda.evaluate(s, request), b = cpu.evaluate(s, request);
    const Deviation d(a, b);
    CHECK(d.energies.value <= 1e-10 * energy_scale(b));
    CHECK(d.forces.value <= 1e-9 * force_scale(b));
    CHECK(d.virials.value <= 1e-9 * force_scale(b));
  };
  const Structure first = s;
  for (const double scale : {1.0, 0.97, 0.85, 1.1}) {  // lists with somewhat more edges, with many more, with fewer
    for (int a = 0; a < 3; ++a)
      for (int c = 0; c < 3; ++c) s.cell[a][c] = scale * first.cell[a][c];
    for (std::size_t i = 0; i < s.positions.size(); ++i)
      for (int c = 0; c < 3; ++c) s.positions[i][c] = scale * first.positions[i][c];
    for (int step = 0; step < 4; ++step) {
      s.positions[step % s.positions.size()][step % 3] += 0.02;
      compare(everything);
    }
    Request features = everything;
    features.features = true;
    for (int step = 0; step < 3; ++step) {
      s.positions[step % s.positions.size()][step % 3] -= 0.02;
      compare(features);
      CHECK(cuda.evaluate(s, features).features.size() == s.positions.size() * cuda.info().features);
    }
  }
  s.positions[0][0] += 5.0;  // further than the list reaches
  for (int step = 0; step < 3; ++step) compare(everything);
}
