// SPDX-License-Identifier: MIT
// In place of the network: a pair potential with known derivatives, behind the functions of gnn/evaluator.hpp.
//
//     E_i = e[head][z_i] + 1/2 sum over j of V(r_ij),   V(r) = s_i s_j (1 - r^2 / c^2)^3  for r < c
//
// As the interface allows, the evaluator keeps what it derives from a graph (here: all of its edges) until the revision changes.
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "gnn/evaluator.hpp"

namespace adatom::gnn {

struct Network {
  double r_max = 0.0;
  std::vector<double> strength, atomic_energies;  // by species
};

namespace {

class PairEvaluator final : public Evaluator {
 public:
  PairEvaluator(std::shared_ptr<const Network> network, bool dual) : network_(std::move(network)), dual_(dual) {}

  void evaluate(const Graph& graph, GraphResult& result, Halo*) override {
    if (dual_ != (graph.position_tangents != nullptr)) throw std::logic_error("tangents and the scalar type do not agree");
    if (graph.revision == 0 || graph.revision != revision_) keep(graph);
    result.energy = 0;
    const std::size_t n = graph.n_nodes;
    std::vector<double> energies(graph.n_receivers), forces(3 * n), tangents(3 * n), virials(9 * n);
    for (int i = 0; i < graph.n_receivers; ++i) {
      energies[i] = network_->atomic_energies[species_[i]];
      for (auto e = first_edge_[i]; e < first_edge_[i + 1]; ++e) add_edge(graph, i, e, energies, forces, tangents, virials);
      result.energy += energies[i];
    }
    if (result.energies) std::copy(energies.begin(), energies.end(), result.energies);
    if (result.forces) std::copy(forces.begin(), forces.end(), result.forces);
    if (result.force_tangents) std::copy(tangents.begin(), tangents.end(), result.force_tangents);
    if (result.atom_virials) std::copy(virials.begin(), virials.end(), result.atom_virials);
    for (int k = 0; k < 9 && result.want_virial; ++k) {
      result.virial[k] = 0;
      for (std::size_t i = 0; i < n; ++i) result.virial[k] += virials[9 * i + k];
    }
  }
  EvaluatorCounters counters() const override {
    EvaluatorCounters c;
    c.flops_per_step = static_cast<double>(first_edge_.back());
    c.workspace_bytes = sender_.capacity() * sizeof(int);
    return c;
  }
  void set_threads(int) override {}
  void weight_gradient(const Graph&, const LossGradient&, ArrayGradients&) override { throw std::logic_error("nothing is trained here"); }
  void refresh() override {}

 private:
  void keep(const Graph& graph) {
    revision_ = graph.revision;
    first_edge_.assign(graph.first_edge, graph.first_edge + graph.n_receivers + 1);
    species_.assign(graph.species, graph.species + graph.n_nodes);
    sender_.assign(graph.sender, graph.sender + first_edge_.back());
    shift_.clear();
    if (graph.shift) shift_.assign(graph.shift, graph.shift + first_edge_.back());
  }

  void add_edge(const Graph& graph, int i, std::int64_t e, std::vector<double>& energies, std::vector<double>& forces, std::vector<double>& tangents,
                std::vector<double>& virials) const {
    const int j = sender_[e];
    double r[3], v[3] = {}, r2 = 0, rv = 0;
    for (int a = 0; a < 3; ++a) {
      r[a] = graph.positions[3 * j + a] - graph.positions[3 * i + a] + (shift_.empty() ? 0.0 : graph.shifts[3 * shift_[e] + a]);
      if (dual_) v[a] = graph.position_tangents[3 * j + a] - graph.position_tangents[3 * i + a];
      r2 += r[a] * r[a], rv += r[a] * v[a];
    }
    const double c2 = network_->r_max * network_->r_max, x = 1 - r2 / c2;
    if (x <= 0) return;
    const double s = 0.5 * network_->strength[species_[i]] * network_->strength[species_[j]];
    energies[i] += s * x * x * x;
    const double g = -6 * s * x * x / c2, dg = 24 * s * x / (c2 * c2) * rv;  // dE/dr = g r; its derivative along v is g v + dg r
    for (int a = 0; a < 3; ++a) {
      forces[3 * i + a] += g * r[a], forces[3 * j + a] -= g * r[a];
      tangents[3 * i + a] += g * v[a] + dg * r[a], tangents[3 * j + a] -= g * v[a] + dg * r[a];
      for (int b = 0; b < 3; ++b)
        for (const int node : {i, j}) virials[9 * node + 3 * a + b] -= 0.5 * r[a] * g * r[b];
    }
  }

  std::shared_ptr<const Network> network_;
  bool dual_;
  std::uint64_t revision_ = 0;
  std::vector<std::int64_t> first_edge_{0};
  std::vector<int> species_, sender_, shift_;
};

}  // namespace

std::shared_ptr<const Network> build_network(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options) {
  const auto architecture = nlohmann::json::parse(architecture_json);
  if (!tensors.contains("strength")) throw std::runtime_error("tensor 'strength' is missing");
  auto network = std::make_shared<Network>();
  network->r_max = architecture.at("r_max");
  for (const int k : options.keep) {
    network->strength.push_back(tensors.at("strength").data.at(k));
    network->atomic_energies.push_back(tensors.at("atomic_energies").data.at(options.head * options.elements.size() + k));
  }
  return network;
}

std::unique_ptr<Evaluator> make_cpu_evaluator(std::shared_ptr<const Network> network, Scalar scalar) {
  return std::make_unique<PairEvaluator>(std::move(network), scalar == Scalar::dual32 || scalar == Scalar::dual64);
}

std::string cpu_backend_name() { return "pair"; }

std::unique_ptr<Evaluator> make_cuda_evaluator(std::shared_ptr<const Network>, Scalar, Matmul) { throw std::logic_error("there is no device"); }

std::string cuda_backend_name() { throw std::runtime_error("device cuda cannot be used: it is not there"); }
double cutoff(const Network& network) { return network.r_max; }
int features(const Network&) { return 0; }
int members(const Network&) { return 0; }
int whitened(const Network&) { return 0; }
std::string summary(const Network&) { return "pair potential"; }

}  // namespace adatom::gnn
