// SPDX-License-Identifier: MIT
// The gradient of a loss with respect to every tensor of a model, against differences of the loss.
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "gnn/trainable.hpp"
#include "potential/batch.hpp"
#include "potential/model_file.hpp"
#include "reference.hpp"

using namespace adatom;

namespace {

/// A few structures as one graph, and a loss of their energies, forces and strain derivatives: half the sum of weighted squares of what differs from labels
/// at random.
class Problem {
 public:
  Problem(const ReferenceModel& model, int head, int knots) : file_(read_model(model.file)) {
    gnn::NetworkOptions options;
    options.elements = file_.elements;
    options.heads = static_cast<int>(file_.heads.size());
    options.head = head;
    for (std::size_t k = 0; k < file_.elements.size(); ++k) options.keep.push_back(static_cast<int>(k));
    options.knots = knots;
    network = std::make_unique<gnn::TrainableNetwork>(file_.architecture, file_.tensors, options);

    std::vector<Structure> structures;
    for (const auto& r : model.heads.at(file_.heads[head])) {
      const Structure& s = reference_structures().at(r.structure);
      if (s.numbers.size() > 1 && s.numbers.size() < 14 && structures.size() < 3) structures.push_back(s);
    }
    REQUIRE(structures.size() > 1);
    batch_.assign(structures, 0, structures.size(), file_.cutoff, 1);
    graph = batch_.graph();
    for (std::size_t k = 0; k < structures.size(); ++k)
      for (const int z : structures[k].numbers) {
        structure_.push_back(static_cast<int>(k));
        species_.push_back(static_cast<int>(std::find(file_.elements.begin(), file_.elements.end(), z) - file_.elements.begin()));
      }
    graph.species = species_.data();
    graph.revision = 1;
    std::mt19937 g(5);
    std::normal_distribution<double> normal;
    const std::size_t n = species_.size();
    for (std::size_t k = 0; k < structures.size(); ++k) energy_label_.push_back(normal(g));
    for (std::size_t k = 0; k < 3 * n; ++k) force_label_.push_back(normal(g));
    for (std::size_t k = 0; k < 9 * structures.size(); ++k) strain_label_.push_back(normal(g));
  }

  /// The loss of the present weights; with derivatives where wanted.
  double loss(gnn::Evaluator& evaluator, gnn::LossGradient* derivatives = nullptr) {
    const std::size_t n = species_.size(), structures = energy_label_.size();
    std::vector<double> energies(n), forces(3 * n), virials(9 * n);
    GraphResult result;
    result.energies = energies.data(), result.forces = forces.data(), result.atom_virials = virials.data();
    evaluator.refresh();
    evaluator.evaluate(graph, result, nullptr);
    std::vector<double> energy(structures), strain(9 * structures);
    for (std::size_t i = 0; i < n; ++i) {
      energy[structure_[i]] += energies[i];
      for (int a = 0; a < 9; ++a) strain[9 * structure_[i] + a] -= virials[9 * i + a];
    }
    double sum = 0.0;
    energy_gradient_.assign(n, 0.0), force_gradient_.assign(3 * n, 0.0), strain_gradient_.assign(9 * structures, 0.0);
    for (std::size_t k = 0; k < structures; ++k) sum += 0.5 * 3.0 * std::pow(energy[k] - energy_label_[k], 2);
    for (std::size_t i = 0; i < n; ++i) energy_gradient_[i] = 3.0 * (energy[structure_[i]] - energy_label_[structure_[i]]);
    for (std::size_t k = 0; k < 3 * n; ++k) {
      force_gradient_[k] = forces[k] - force_label_[k];
      sum += 0.5 * std::pow(force_gradient_[k], 2);
    }
    for (std::size_t k = 0; k < strain.size(); ++k) {
      strain_gradient_[k] = 0.1 * (strain[k] - strain_label_[k]);
      sum += 0.5 * 0.1 * std::pow(strain[k] - strain_label_[k], 2);
    }
    if (derivatives) *derivatives = {energy_gradient_.data(), force_gradient_.data(), strain_gradient_.data(), structure_.data()};
    return sum;
  }

  std::vector<double> gradient(gnn::Evaluator& plain, gnn::Evaluator& dual) {
    gnn::LossGradient derivatives;
    loss(plain, &derivatives);
    gnn::ArrayGradients arrays;
    dual.refresh();
    dual.weight_gradient(graph, derivatives, arrays);
    std::vector<double> gradient(network->values().size(), 0.0);
    network->add_gradient(std::move(arrays), gradient.data());
    return gradient;
  }

  std::unique_ptr<gnn::TrainableNetwork> network;
  Graph graph;

 private:
  ModelFile file_;
  Batch batch_;
  std::vector<int> species_, structure_;
  std::vector<double> energy_label_, force_label_, strain_label_, energy_gradient_, force_gradient_, strain_gradient_;
};

/// f'(0) by Ridders' extrapolation of central differences to vanishing steps (Adv. Eng. Softw. 4, 75 (1982)).
template <class F>
double derivative(F f) {
  constexpr int rows = 8;
  double table[rows][rows], best = 0.0, error = INFINITY, h = 4e-3;
  for (int i = 0; i < rows; ++i, h /= 2) {
    table[i][0] = (f(h) - f(-h)) / (2 * h);
    double factor = 1.0;
    for (int j = 1; j <= i; ++j) {
      factor *= 4;
      table[i][j] = (factor * table[i][j - 1] - table[i - 1][j - 1]) / (factor - 1);
      const double e = std::max(std::abs(table[i][j] - table[i][j - 1]), std::abs(table[i][j] - table[i - 1][j - 1]));
      if (e < error) error = e, best = table[i][j];
    }
  }
  return best;
}

bool is_trained(const std::string& name) {
  return name != "atomic_energies" && name != "scale" && name != "shift" && name != "covalent_radii" && name.rfind("radial_basis", 0) != 0;
}

}  // namespace

TEST_CASE("the gradient of every tensor is the derivative of the loss") {
  for (const ReferenceModel& model : reference_models()) {
    Problem problem(model, 0, 24);
    auto plain = gnn::make_cpu_evaluator(problem.network->network(), gnn::Scalar::float64);
    auto dual = gnn::make_cpu_evaluator(problem.network->network(), gnn::Scalar::dual64);
    plain->set_threads(1), dual->set_threads(1);
    const std::vector<double> start = problem.network->values(), gradient = problem.gradient(*plain, *dual);
    std::mt19937 g(3);
    std::normal_distribution<double> normal;
    double norm = 0.0;
    for (const double x : gradient) norm = std::max(norm, std::abs(x));
    for (const auto& tensor : problem.network->tensors()) {
      INFO(model.name << ", tensor " << tensor.name);
      if (!is_trained(tensor.name)) {
        for (std::size_t k = 0; k < tensor.size; ++k) REQUIRE(gradient[tensor.offset + k] == 0.0);
        continue;
      }
      // Along a random direction in the tensor: fourth-order differences.
      std::vector<double> direction(tensor.size);
      double size = 0.0, along = 0.0, scale = 0.0;
      for (std::size_t k = 0; k < tensor.size; ++k) {
        direction[k] = normal(g);
        size += direction[k] * direction[k];
        scale += start[tensor.offset + k] * start[tensor.offset + k];
      }
      size = std::sqrt(size), scale = std::max(std::sqrt(scale), 1e-3);
      for (std::size_t k = 0; k < tensor.size; ++k) {
        direction[k] *= scale / size;
        along += direction[k] * gradient[tensor.offset + k];
      }
      const auto loss_at = [&](double step) {
        std::vector<double> values = start;
        for (std::size_t k = 0; k < tensor.size; ++k) values[tensor.offset + k] += step * direction[k];
        problem.network->assign(values.data());
        return problem.loss(*plain);
      };
      const double difference = derivative(loss_at);
      problem.network->assign(start.data());
      CHECK(std::abs(along - difference) <= 1e-6 * std::max(std::abs(difference), 1e-3 * norm * scale));
    }
  }
}

TEST_CASE("weight gradients are the same bit for bit for any number of threads") {
  for (const char* name : {"mace_medium", "sevennet_parity"}) {
    Problem problem(reference_model(name), 0, 0);
    std::vector<double> first;
    for (const int threads : {1, 2, 3, 5}) {
      auto plain = gnn::make_cpu_evaluator(problem.network->network(), gnn::Scalar::float32);
      auto dual = gnn::make_cpu_evaluator(problem.network->network(), gnn::Scalar::dual32);
      plain->set_threads(threads), dual->set_threads(threads);
      const std::vector<double> gradient = problem.gradient(*plain, *dual);
      if (first.empty()) first = gradient;
      CHECK(gradient == first);
    }
  }
}
