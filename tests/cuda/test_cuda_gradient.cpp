// SPDX-License-Identifier: MIT
// Gradients of weights on the CUDA backend against the CPU's, for every array of every reference model.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <random>

#include "gnn/trainable.hpp"
#include "potential/batch.hpp"
#include "potential/model_file.hpp"
#include "reference.hpp"

using namespace adatom;

namespace {

/// A few small structures as one graph, and derivatives of some loss at random.
struct Problem {
  std::unique_ptr<gnn::TrainableNetwork> network;
  Batch batch;
  Graph graph;
  std::vector<int> species, structure;
  std::vector<double> energies, forces, strains;

  Problem(const ReferenceModel& model, std::size_t most_structures = 3) {
    const ModelFile file = read_model(model.file);
    gnn::NetworkOptions options;
    options.elements = file.elements;
    options.heads = static_cast<int>(file.heads.size());
    options.head = options.heads - 1;
    for (std::size_t k = 0; k < file.elements.size(); ++k) options.keep.push_back(static_cast<int>(k));
    options.knots = 24;
    network = std::make_unique<gnn::TrainableNetwork>(file.architecture, file.tensors, options);
    std::vector<Structure> structures;
    for (const auto& r : model.heads.at(file.heads[options.head])) {
      const Structure& s = reference_structures().at(r.structure);
      if (s.numbers.size() > 1 && s.numbers.size() < 14 && structures.size() < most_structures) structures.push_back(s);
    }
    REQUIRE(!structures.empty());
    batch.assign(structures, 0, structures.size(), file.cutoff, 1);
    graph = batch.graph();
    for (std::size_t k = 0; k < structures.size(); ++k)
      for (const int z : structures[k].numbers) {
        structure.push_back(static_cast<int>(k));
        species.push_back(static_cast<int>(std::find(file.elements.begin(), file.elements.end(), z) - file.elements.begin()));
      }
    graph.species = species.data();
    graph.revision = 1;
    std::mt19937 g(7);
    std::normal_distribution<double> normal;
    const auto fill = [&](std::vector<double>& x, std::size_t n) {
      for (std::size_t k = 0; k < n; ++k) x.push_back(normal(g));
    };
    fill(energies, species.size()), fill(forces, 3 * species.size()), fill(strains, 9 * structures.size());
  }

  gnn::ArrayGradients gradient(gnn::Evaluator& dual) const {
    gnn::ArrayGradients arrays;
    dual.weight_gradient(graph, {energies.data(), forces.data(), strains.data(), structure.data()}, arrays);
    return arrays;
  }
  std::unique_ptr<gnn::Evaluator> cuda(gnn::Scalar scalar) const { return gnn::make_cuda_evaluator(network->network(), scalar); }
  std::unique_ptr<gnn::Evaluator> cpu(gnn::Scalar scalar) const {
    auto made = gnn::make_cpu_evaluator(network->network(), scalar);
    made->set_threads(1);
    return made;
  }
};

void compare(const gnn::ArrayGradients& expected, const gnn::ArrayGradients& got, double tolerance) {
  REQUIRE(got.size() == expected.size());
  double all = 0.0;
  for (const auto& array : expected)
    for (const double x : array) all = std::max(all, std::abs(x));
  REQUIRE(all > 0.0);
  for (std::size_t id = 0; id < expected.size(); ++id) {
    INFO("array " << id);
    REQUIRE(got[id].size() == expected[id].size());
    double largest = 0.0, deviation = 0.0;
    for (std::size_t k = 0; k < expected[id].size(); ++k) {
      REQUIRE(std::isfinite(got[id][k]));
      largest = std::max(largest, std::abs(expected[id][k]));
      deviation = std::max(deviation, std::abs(got[id][k] - expected[id][k]));
    }
    // Arrays whose gradient cancels to nothing have only rounding of the others.
    CHECK(deviation <= tolerance * std::max(largest, 1e-6 * all));
  }
}

}  // namespace

TEST_CASE("weight gradients of every array of every model as on the CPU, double") {
  for (const ReferenceModel& model : reference_models()) {
    INFO(model.name);
    const Problem problem(model);
    compare(problem.gradient(*problem.cpu(gnn::Scalar::dual64)), problem.gradient(*problem.cuda(gnn::Scalar::dual64)), 1e-10);
  }
}

TEST_CASE("weight gradients in single precision, again and in the opposite order: the same bits") {
  for (const char* name : {"mace_large", "mace_density", "sevennet_parity"}) {
    INFO(name);
    const Problem problem(reference_model(name));
    const auto cuda = problem.cuda(gnn::Scalar::dual32);
    const gnn::ArrayGradients first = problem.gradient(*cuda);
    compare(problem.gradient(*problem.cpu(gnn::Scalar::dual64)), first, 2e-3);
    CHECK(problem.gradient(*cuda) == first);
    setenv("ADATOM_HOST_ORDER", "reverse", 1);
    CHECK(problem.gradient(*cuda) == first);
    unsetenv("ADATOM_HOST_ORDER");
  }
}

TEST_CASE("weights change under an evaluator; a loss without strains; another batch") {
  Problem problem(reference_model("mace_medium"));
  const auto cuda = problem.cuda(gnn::Scalar::dual64), cpu = problem.cpu(gnn::Scalar::dual64);
  compare(problem.gradient(*cpu), problem.gradient(*cuda), 1e-10);
  std::vector<double> values = problem.network->values();
  for (std::size_t k = 0; k < values.size(); ++k) values[k] *= 1.0 + 0.05 * std::sin(static_cast<double>(k));
  problem.network->assign(values.data());
  cpu->refresh(), cuda->refresh();
  compare(problem.gradient(*cpu), problem.gradient(*cuda), 1e-10);

  Problem other(reference_model("mace_medium"), 1);
  other.network = std::move(problem.network);
  other.graph.revision = 2;
  const auto without = [&](gnn::Evaluator& dual) {
    gnn::ArrayGradients arrays;
    dual.weight_gradient(other.graph, {other.energies.data(), other.forces.data(), nullptr, nullptr}, arrays);
    return arrays;
  };
  compare(without(*cpu), without(*cuda), 1e-10);
  CHECK_THROWS_AS(without(*other.cuda(gnn::Scalar::float64)), std::logic_error);
}
