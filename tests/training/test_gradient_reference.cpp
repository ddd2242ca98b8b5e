// SPDX-License-Identifier: MIT
// Gradients of a loss with respect to the tensors of models, against mace-torch's autograd (tests/reference/make_gradients.py has the loss).
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "gnn/trainable.hpp"
#include "potential/batch.hpp"
#include "potential/model_file.hpp"
#include "reference.hpp"

using namespace adatom;

namespace {

double volume(const Structure& s) {
  const auto& [a, b, c] = s.cell;
  return std::abs(a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]));
}

/// The loss of the structures and its derivatives.
struct LossOfBatch {
  const std::vector<Structure>& structures;
  std::vector<int> structure;  ///< of each atom
  std::vector<double> energies, forces, strains;

  double operator()(const std::vector<double>& atom_energies, const std::vector<double>& f, const std::vector<double>& virials) {
    const std::size_t n = structure.size(), count = structures.size();
    std::vector<double> energy(count), strain(9 * count);
    for (std::size_t i = 0; i < n; ++i) {
      energy[structure[i]] += atom_energies[i];
      for (int a = 0; a < 9; ++a) strain[9 * structure[i] + a] -= virials[9 * i + a];
    }
    energies.assign(n, 0.0), forces.assign(3 * n, 0.0), strains.assign(9 * count, 0.0);
    double loss = 0.0;
    for (std::size_t k = 0; k < 3 * n; ++k) {
      const double difference = f[k] - std::sin(0.7 + static_cast<double>(k));
      loss += 0.7 * difference * difference / (3.0 * static_cast<double>(n));
      forces[k] = 1.4 * difference / (3.0 * static_cast<double>(n));
    }
    std::vector<double> of_energy(count);
    for (std::size_t b = 0; b < count; ++b) {
      const double atoms = static_cast<double>(structures[b].numbers.size());
      const double difference = energy[b] / atoms - std::sin(1.0 + static_cast<double>(b));
      loss += 1.5 * difference * difference;
      of_energy[b] = 3.0 * difference / atoms;
      const auto& pbc = structures[b].pbc;
      if (!std::all_of(pbc.begin(), pbc.end(), [](bool p) { return p; })) continue;
      const double v = volume(structures[b]);
      for (std::size_t k = 9 * b; k < 9 * b + 9; ++k) {
        const double off = strain[k] / v - 0.05 * std::sin(0.3 + static_cast<double>(k));
        loss += 0.2 * off * off;
        strains[k] = 0.4 * off / v;
      }
    }
    for (std::size_t i = 0; i < n; ++i) energies[i] = of_energy[structure[i]];
    return loss;
  }
};

}  // namespace

TEST_CASE("gradients agree with mace-torch's autograd") {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(ADATOM_REFERENCE_DATA "/gradients")) {
    const ModelFile reference = read_model(entry.path());
    const auto provenance = nlohmann::json::parse(reference.provenance);
    const std::string name = provenance.at("model");
    INFO(name);
    const ModelFile file = read_model(reference_model(name).file);
    gnn::NetworkOptions options;
    options.elements = file.elements;
    options.heads = static_cast<int>(file.heads.size());
    options.head = options.heads - 1;
    for (std::size_t k = 0; k < file.elements.size(); ++k) options.keep.push_back(static_cast<int>(k));
    options.knots = 1024;  // so that tables are exact to rounding
    gnn::TrainableNetwork network(file.architecture, file.tensors, options);
    auto plain = gnn::make_cpu_evaluator(network.network(), gnn::Scalar::float64), dual = gnn::make_cpu_evaluator(network.network(), gnn::Scalar::dual64);

    std::vector<Structure> structures;
    for (const std::string s : provenance.at("structures")) structures.push_back(reference_structures().at(s));
    Batch batch;
    batch.assign(structures, 0, structures.size(), file.cutoff, 1);
    Graph graph = batch.graph();
    std::vector<int> species;
    LossOfBatch loss{structures, {}, {}, {}, {}};
    for (std::size_t b = 0; b < structures.size(); ++b)
      for (const int z : structures[b].numbers) {
        loss.structure.push_back(static_cast<int>(b));
        species.push_back(static_cast<int>(std::find(file.elements.begin(), file.elements.end(), z) - file.elements.begin()));
      }
    graph.species = species.data();
    graph.revision = 1;

    const std::size_t n = species.size();
    std::vector<double> energies(n), forces(3 * n), virials(9 * n);
    GraphResult result;
    result.energies = energies.data(), result.forces = forces.data(), result.atom_virials = virials.data();
    plain->evaluate(graph, result, nullptr);
    CHECK(loss(energies, forces, virials) == Approx(provenance.at("loss").get<double>()).epsilon(1e-10));

    gnn::ArrayGradients arrays;
    dual->weight_gradient(graph, {loss.energies.data(), loss.forces.data(), loss.strains.data(), loss.structure.data()}, arrays);
    std::vector<double> gradient(network.values().size(), 0.0);
    network.add_gradient(std::move(arrays), gradient.data());

    std::size_t compared = 0;
    for (const auto& tensor : network.tensors()) {
      const auto expected = reference.tensors.find(tensor.name);
      if (expected == reference.tensors.end()) continue;
      INFO(tensor.name);
      REQUIRE(expected->second.shape == tensor.shape);
      double largest = 0.0, deviation = 0.0;
      for (std::size_t k = 0; k < tensor.size; ++k) {
        const double x = expected->second.data[k];
        largest = std::max(largest, std::abs(x));
        deviation = std::max(deviation, std::abs(gradient[tensor.offset + k] - x));
        REQUIRE(std::isfinite(gradient[tensor.offset + k]));
      }
      CHECK(deviation <= 1e-8 * largest);
      ++compared;
    }
    CHECK(compared == reference.tensors.size());
    CHECK(compared > 20);
    ++files;
  }
  CHECK(files == 6);
}
