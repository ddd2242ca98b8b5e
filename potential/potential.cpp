// SPDX-License-Identifier: MIT
#include "adatom/potential.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "adatom/elements.hpp"
#include "adatom/neighbor_list.hpp"
#include "gnn/evaluator.hpp"
#include "potential/batch.hpp"
#include "potential/cell_grid.hpp"
#include "potential/finite.hpp"
#include "potential/model_file.hpp"

namespace adatom {
namespace {

// Wide enough for tens of MD steps between two rebuilds, narrow enough that the edges beyond the cutoff, which are skipped, are few.
constexpr double skin = 0.5;  // angstrom
// Structures are evaluated together up to this many atoms: enough to occupy any CPU, and memory stays bounded for a batch of any length.
constexpr int atoms_per_batch = 20000;
constexpr int atoms_per_device_batch = 200000;  // the same for a GPU

std::string quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

int find_head(const std::vector<std::string>& heads, const std::string& head) {
  if (head.empty()) {
    if (heads.size() == 1) return 0;
    throw std::invalid_argument("the model has several heads and none was chosen: set head to one of " + quoted(heads));
  }
  const auto found = std::find(heads.begin(), heads.end(), head);
  if (found == heads.end()) throw std::invalid_argument("the model has no head '" + head + "': set head to one of " + quoted(heads));
  return static_cast<int>(found - heads.begin());
}

/// Indices of the model's elements that are kept, in the model's order.
std::vector<int> find_kept(const std::vector<int>& elements, const std::vector<int>& wanted) {
  for (const int z : wanted)
    if (std::find(elements.begin(), elements.end(), z) == elements.end())
      throw std::invalid_argument("the element " + element_names({z}) + " was asked for, but the model has only " + element_names(elements));
  std::vector<int> kept;
  for (std::size_t k = 0; k < elements.size(); ++k)
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), elements[k]) != wanted.end()) kept.push_back(static_cast<int>(k));
  return kept;
}

double* data(std::vector<Vector3>& rows) { return rows.empty() ? nullptr : rows.front().data(); }
double* data(std::vector<std::array<double, 9>>& rows) { return rows.empty() ? nullptr : rows.front().data(); }

/// The virial of an energy that does not depend on the orientation is symmetric; what rounding leaves is averaged away.
std::array<double, 9> symmetric(const double* w) {
  std::array<double, 9> s;
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) s[3 * a + b] = 0.5 * (w[3 * a + b] + w[3 * b + a]);
  return s;
}

/// `which`: what the vector is for, in messages.
void check_direction(const std::vector<Vector3>& v, std::size_t n, const std::string& which) {
  if (v.size() != n)
    throw std::invalid_argument("the vector " + which + " has " + std::to_string(v.size()) + " rows, but the structure has " + std::to_string(n) +
                                " atoms: give one row per atom");
  for (std::size_t i = 0; i < n; ++i)
    for (const double x : v[i])
      if (!std::isfinite(x)) throw std::invalid_argument("row " + std::to_string(i) + " (counted from 0) of the vector " + which + " is not finite");
}

/// In the order of the atoms, so that a structure has the same energy alone and in a batch.
double sum(const double* values, std::size_t n) {
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) total += values[i];
  return total;
}

}  // namespace

std::array<double, 6> stress(const std::array<double, 9>& virial, const Matrix3& cell) {
  const auto& [a, b, c] = cell;
  const double volume = std::abs(a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]));
  if (!(volume > 0) || !std::isfinite(volume))
    throw std::invalid_argument("the cell has a volume of " + std::to_string(volume) + " angstrom^3: a stress needs three cell vectors that span a volume");
  const std::array<double, 9> w = symmetric(virial.data());
  return {-w[0] / volume, -w[4] / volume, -w[8] / volume, -w[5] / volume, -w[2] / volume, -w[1] / volume};
}

struct Potential::Implementation {
  ModelInfo info;
  Device device = Device::cpu;
  Precision precision = Precision::float32;
  Matmul matmul = Matmul::exact;
  int threads = 0;

  // The network is assembled for the elements in use: tables per element or pair of elements then stay small, whatever the model knows. Structures bring
  // their elements; callers with graphs of their own need species that never change, so for them it is all of the model's.
  std::filesystem::path path;
  ModelFile file;
  double energy_noise = 0.0;                            // eV per square root of the number of atoms
  gnn::NetworkOptions network_options;                  // `keep`: indices into file.elements of the elements in use
  std::array<int, max_atomic_number + 1> species_of{};  // of those; -1: not in use
  std::array<int, max_atomic_number + 1> index_of{};    // into file.elements; -1: the model does not have it, or it was loaded without
  std::shared_ptr<const gnn::Network> network;
  std::unique_ptr<gnn::Evaluator> evaluator, dual_evaluator;  // the second is made when it is first needed
  double flops_per_step = 0.0;

  NeighborList list{1.0};  // of evaluate(Structure)
  std::vector<int> species;
  Batch batch;

  // Structures for an evaluator that finds neighbours itself.
  struct {
    std::vector<int> numbers, first_atom;  // of the last ones
    std::vector<std::array<bool, 3>> pbc;
    std::vector<gnn::SearchBox> boxes;
    std::vector<Vector3> positions;  // of several
  } view;

  // Graphs come from several sources, each with its own count of revisions; evaluators see one count.
  enum class Source { none, structure, batch, caller, view };
  Source source = Source::none;
  std::uint64_t source_revision = 0, revision = 0;

  std::uint64_t revision_of(Source from, std::uint64_t its_revision) {
    if (its_revision == 0) return source = Source::none, 0;
    if (from != source || its_revision != source_revision) ++revision;
    source = from;
    source_revision = its_revision;
    return revision;
  }

  int find_index(int z) const { return z >= 1 && z <= max_atomic_number ? index_of[z] : -1; }

  /// Assembles the network for the elements of `keep`.
  void assemble(std::vector<int> keep) {
    gnn::NetworkOptions wanted = network_options;  // what is in use stays as it is where this fails
    wanted.keep = std::move(keep);
    std::shared_ptr<const gnn::Network> assembled;
    std::unique_ptr<gnn::Evaluator> made;
    try {
      assembled = gnn::build_network(file.architecture, file.tensors, wanted);
      made = make_evaluator(assembled, false);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error("model file '" + path.string() + "': " + error.what());
    } catch (const std::bad_alloc&) {
      throw std::runtime_error("model file '" + path.string() + "': there is not enough memory to assemble it");
    }
    network = std::move(assembled);
    evaluator = std::move(made);
    network_options = std::move(wanted);
    species_of.fill(-1);
    for (std::size_t k = 0; k < network_options.keep.size(); ++k) species_of[file.elements[network_options.keep[k]]] = static_cast<int>(k);
    dual_evaluator.reset();
    source = Source::none;  // species have other numbers now
    ++revision;
  }

  /// Adds elements (indices into file.elements) to those in use.
  void use(const std::vector<int>& indices) {
    std::vector<int> keep = network_options.keep;
    for (const int k : indices)
      if (std::find(keep.begin(), keep.end(), k) == keep.end()) keep.push_back(k);
    if (keep.size() == network_options.keep.size()) return;
    std::sort(keep.begin(), keep.end());
    assemble(std::move(keep));
  }
  void use_all() {
    if (network_options.keep.size() == info.elements.size()) return;
    std::vector<int> all;
    for (const int z : info.elements) all.push_back(index_of[z]);
    use(all);
  }

  [[noreturn]] void fail_unknown(int z, const std::string& whose) const {
    const bool left_out = std::find(file.elements.begin(), file.elements.end(), z) != file.elements.end();
    throw std::invalid_argument(
        "the model has no element " + element_names({z}) + whose + "; it has " + element_names(info.elements) +
        (left_out ? " since it was loaded with these elements only: load it with all that are needed" : ": use a model that was trained on it"));
  }

  /// `where`: appended to the atom in messages.
  void use_elements(const Structure& structure, const std::string& where = "") {
    std::vector<int> missing;
    for (std::size_t i = 0; i < structure.numbers.size(); ++i) {
      const int z = structure.numbers[i], k = find_index(z);
      if (k < 0) fail_unknown(z, " (atom " + std::to_string(i) + where + ", counted from 0)");
      if (species_of[z] < 0) missing.push_back(k);
    }
    if (!missing.empty()) use(missing);
  }

  std::unique_ptr<gnn::Evaluator> make_evaluator(const std::shared_ptr<const gnn::Network>& of, bool dual) const {
    const bool single = precision == Precision::float32;
    const gnn::Scalar scalar = dual ? (single ? gnn::Scalar::dual32 : gnn::Scalar::dual64) : (single ? gnn::Scalar::float32 : gnn::Scalar::float64);
    const auto maps = matmul == Matmul::tf32 ? gnn::Matmul::tf32 : matmul == Matmul::bf16 ? gnn::Matmul::bf16 : gnn::Matmul::exact;
    auto made = device == Device::cuda ? gnn::make_cuda_evaluator(of, scalar, maps) : gnn::make_cpu_evaluator(of, scalar);
    made->set_threads(threads);
    return made;
  }

  /// `evaluate` fills energies of atoms and forces with the evaluator of the time.
  template <class Evaluate>
  MatmulError matmul_error(std::size_t receivers, std::size_t nodes, Evaluate evaluate) {
    MatmulError error;
    if (matmul == Matmul::exact) return error;
    std::vector<double> energies[2];
    std::vector<Vector3> forces[2];
    const auto add = [](double& largest, double a, double b) { largest = std::max(largest, std::abs(a - b)); };
    auto rounded = std::move(evaluator);
    evaluator = gnn::make_cuda_evaluator(network, gnn::Scalar::float32);
    for (const int k : {0, 1}) {
      energies[k].resize(receivers), forces[k].resize(nodes);
      GraphResult result;
      result.energies = energies[k].data(), result.forces = data(forces[k]);
      try {
        evaluate(result);
      } catch (...) {
        if (rounded) evaluator = std::move(rounded);
        throw;
      }
      if (k == 0) evaluator = std::move(rounded);
    }
    for (std::size_t i = 0; i < receivers; ++i) add(error.energy, energies[0][i], energies[1][i]);
    for (std::size_t i = 0; i < nodes; ++i)
      for (int a = 0; a < 3; ++a) add(error.force, forces[0][i][a], forces[1][i][a]);
    return error;
  }

  /// Decides whether the file's detectors can be used.
  void find_detectors() {
    if (file.uncertainty.empty()) {
      info.no_uncertainty = "the model has no detectors of uncertainty: add them with `adatom calibrate`";
      return;
    }
    const auto description = nlohmann::json::parse(file.uncertainty);
    const std::string head = file.heads[network_options.head];
    try {
      energy_noise = description.at("energy_noise").get<double>();
      if (description.at("network").get<std::string>() != network_hash(file))
        info.no_uncertainty = "the model's detectors of uncertainty were fitted for other weights than it has: fit them again with `adatom calibrate`";
      else if (description.at("head").get<std::string>() != head)
        info.no_uncertainty = "the model's detectors of uncertainty are for the head '" + description["head"].get<std::string>() + "', but '" + head +
                              "' is in use: load that one, or fit them with `adatom calibrate --head " + head + "`";
      else if (matmul != Matmul::exact)
        info.no_uncertainty = "detectors of uncertainty resolve features more finely than matmul tf32 and bf16 compute them: use matmul exact for them";
    } catch (const nlohmann::json::exception& error) {
      throw std::runtime_error("its description of uncertainty cannot be read (" + std::string(error.what()) + "): fit it again with `adatom calibrate`");
    }
    if (info.no_uncertainty.empty()) network_options.detectors = &file.detectors;
  }

  gnn::Evaluator& engine_for(const double* tangents) {
    if (tangents && !dual_evaluator) dual_evaluator = make_evaluator(network, true);
    return tangents ? *dual_evaluator : *evaluator;
  }

  void run(const Graph& graph, GraphResult& result, Halo* halo) {
    if ((result.member_energies || result.force_std || result.distances || result.whitened) && !info.no_uncertainty.empty())
      throw std::invalid_argument(info.no_uncertainty);
    gnn::Evaluator& engine = engine_for(graph.position_tangents);
    engine.evaluate(graph, result, halo);
    flops_per_step = engine.counters().flops_per_step;
    check_finite(result, widths(), graph);
  }
  ResultWidths widths() const {
    return {static_cast<std::size_t>(info.features), static_cast<std::size_t>(info.members), static_cast<std::size_t>(info.whitened)};
  }

  /// Structures begin .. end-1, whose neighbours the evaluator finds.
  void run(const Structure* begin, const Structure* end, const double* tangents, GraphResult& result, const double* feature_weights = nullptr) {
    const auto count = static_cast<std::size_t>(end - begin);
    std::vector<int> numbers, first_atom{0};
    std::vector<std::array<bool, 3>> pbc;
    for (const Structure* s = begin; s != end; ++s) {
      if (s->numbers.size() != s->positions.size())
        throw std::invalid_argument("structure has " + std::to_string(s->numbers.size()) + " atomic numbers but " + std::to_string(s->positions.size()) +
                                    " positions: give one of each per atom");
      numbers.insert(numbers.end(), s->numbers.begin(), s->numbers.end());
      first_atom.push_back(static_cast<int>(numbers.size()));
      pbc.push_back(s->pbc);
    }
    const bool again = source == Source::view && numbers == view.numbers && first_atom == view.first_atom && pbc == view.pbc;
    if (!again) {
      species.clear();
      for (const int z : numbers) species.push_back(species_of[z]);
      view.numbers = std::move(numbers), view.first_atom = std::move(first_atom), view.pbc = std::move(pbc);
    }
    // A list with a skin pays where the same atoms come again.
    gnn::StructureView v;
    v.range = info.cutoff + (again || count == 1 ? skin : 0.0);
    view.boxes.clear();
    for (const Structure* s = begin; s != end; ++s) view.boxes.push_back(search_box(*s, v.range));
    if (count > 1) {
      view.positions.clear();
      for (const Structure* s = begin; s != end; ++s) view.positions.insert(view.positions.end(), s->positions.begin(), s->positions.end());
    }
    v.structures = static_cast<int>(count);
    v.first_atom = view.first_atom.data();
    v.boxes = view.boxes.data();
    v.species = species.data();
    v.positions = (count == 1 ? begin->positions : view.positions).front().data();
    v.position_tangents = tangents;
    v.feature_weights = feature_weights;
    gnn::Evaluator& engine = engine_for(tangents);
    engine.evaluate_structures(v, revision_of(Source::view, again ? source_revision : source_revision + 1), result);
    flops_per_step = engine.counters().flops_per_step;
    const auto atoms = static_cast<std::size_t>(view.first_atom.back());
    if (const Suspect suspect = find_not_finite(result, widths(), atoms, atoms); suspect.quantity) {
      Batch lists;
      lists.assign(std::vector<Structure>(begin, end), 0, count, info.cutoff, threads);
      throw NotFinite(suspect.quantity, suspect.atom, shortest_edge(lists.graph()));
    }
  }

  /// One structure, by whichever way the evaluator has.
  void run(const Structure& structure, const double* tangents, GraphResult& result, const double* feature_weights = nullptr) {
    if (evaluator->finds_neighbours()) {
      use_elements(structure);
      run(&structure, &structure + 1, tangents, result, feature_weights);
      return;
    }
    Graph graph = graph_of(structure);
    graph.position_tangents = tangents;
    graph.feature_weights = feature_weights;
    run(graph, result, nullptr);
  }

  /// Updates the neighbour list; the graph is valid until the next call.
  Graph graph_of(const Structure& structure) {
    use_elements(structure);
    species.clear();
    for (const int z : structure.numbers) species.push_back(species_of[z]);
    list.update(structure, threads);
    Graph graph;
    graph.revision = revision_of(Source::structure, list.revision());
    graph.n_receivers = graph.n_nodes = static_cast<int>(species.size());
    graph.species = species.data();
    graph.first_edge = list.first_edge().data();
    graph.sender = list.sender().data();
    const auto& cells = list.shift_cells();
    const bool crosses = cells.size() > 1 || (cells.size() == 1 && cells[0] != std::array<int, 3>{});
    graph.shift = crosses ? list.shift().data() : nullptr;
    graph.shifts = crosses ? list.shifts().front().data() : nullptr;
    graph.positions = list.positions().empty() ? nullptr : list.positions().front().data();
    return graph;
  }

  /// Structures as one batch. Which structure an error is about is told by evaluating each alone.
  void run_on_device(const std::vector<Structure>& structures, std::size_t begin, std::size_t end, GraphResult& result) {
    try {
      run(structures.data() + begin, structures.data() + end, nullptr, result);
    } catch (const std::invalid_argument&) {
      for (std::size_t k = begin; k < end; ++k) {
        if (structures[k].numbers.empty() && structures[k].positions.empty()) continue;
        std::vector<double> energies(structures[k].numbers.size());
        GraphResult alone;
        alone.energies = energies.data();
        try {
          run(&structures[k], &structures[k] + 1, nullptr, alone);
        } catch (const std::invalid_argument& error) {
          throw std::invalid_argument("structure " + std::to_string(k) + " (counted from 0) of the batch: " + error.what());
        }
      }
      throw;
    }
  }

  double energy_std(const double* added, std::size_t atoms) const {
    double square = 0.0;
    for (int k = 0; k < info.members; ++k) square += added[k] * added[k];
    return std::sqrt(square / info.members + energy_noise * energy_noise * static_cast<double>(atoms));
  }

  /// Energies of the members of an ensemble, from what they add to each atom's: [n][members].
  void add_members(Result& result, const double* members, std::size_t n) const {
    std::vector<double> added(info.members);
    for (std::size_t i = 0; i < n; ++i)
      for (int k = 0; k < info.members; ++k) added[k] += members[i * info.members + k];
    result.energy_std = energy_std(added.data(), n);
    for (const double x : added) result.member_energies.push_back(result.energy + x);
  }

  /// One structure; with `feature_weights` of the weighted sum of its features instead of the energy.
  Result evaluate(const Structure& structure, const Request& request, const double* feature_weights = nullptr);

  /// Evaluates structures begin .. end-1 as one graph.
  void evaluate_batch(const std::vector<Structure>& structures, std::size_t begin, std::size_t end, const Request& request, std::vector<Result>& results);
};

Potential::Potential(std::unique_ptr<Implementation> implementation) : implementation_(std::move(implementation)) {}
Potential::Potential(Potential&&) noexcept = default;
Potential& Potential::operator=(Potential&&) noexcept = default;
Potential::~Potential() = default;

Potential Potential::load(const std::filesystem::path& path, const LoadOptions& options) {
  const std::string backend = options.device == Device::cuda ? gnn::cuda_backend_name() : gnn::cpu_backend_name();
  if (options.threads < 0) throw std::invalid_argument("number of threads is " + std::to_string(options.threads) + ": expected 0 (as OpenMP decides) or more");

  if (options.matmul != Matmul::exact && (options.device != Device::cuda || options.precision != Precision::float32))
    throw std::invalid_argument("matmul tf32 and bf16 are for device cuda and float32: leave matmul at exact, or set these");

  auto made = std::make_unique<Implementation>();
  made->path = path;
  made->file = read_model(path);
  made->device = options.device;
  made->precision = options.precision;
  made->matmul = options.matmul;
  made->threads = options.threads;
  const ModelFile& file = made->file;
  gnn::NetworkOptions& network_options = made->network_options;
  std::vector<int> kept;
  try {
    network_options.elements = file.elements;
    network_options.heads = static_cast<int>(file.heads.size());
    network_options.head = find_head(file.heads, options.head);
    network_options.splines = options.splines;
    if (options.precision == Precision::float32) network_options.largest = std::numeric_limits<float>::max();
    kept = find_kept(file.elements, options.elements);
    made->find_detectors();
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("model file '" + path.string() + "': " + error.what());
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("model file '" + path.string() + "': " + error.what());
  }
  made->assemble(options.elements.empty() ? std::vector<int>{kept.front()} : kept);
  if (const double r_max = gnn::cutoff(*made->network); std::abs(r_max - file.cutoff) > 1e-9 * file.cutoff)
    throw std::runtime_error("model file '" + path.string() + "': its cutoff is " + std::to_string(file.cutoff) + " angstrom, but r_max of its architecture " +
                             std::to_string(r_max) + ": convert the model again");

  ModelInfo& info = made->info;
  info.cutoff = file.cutoff;
  info.features = gnn::features(*made->network);
  made->index_of.fill(-1);
  for (const int k : kept) {
    made->index_of[file.elements[k]] = k;
    info.elements.push_back(file.elements[k]);
  }
  info.heads = file.heads;
  info.head = file.heads[network_options.head];
  info.architecture_json = file.architecture;
  info.provenance_json = file.provenance;
  info.uncertainty_json = file.uncertainty;
  info.members = gnn::members(*made->network);
  info.whitened = gnn::whitened(*made->network);
  info.summary = gnn::summary(*made->network);
  info.backend = backend;
  made->list = NeighborList(info.cutoff, skin);
  return Potential(std::move(made));
}

const ModelInfo& Potential::info() const { return implementation_->info; }

int Potential::species(int atomic_number) const {
  if (implementation_->find_index(atomic_number) < 0) implementation_->fail_unknown(atomic_number, "");
  implementation_->use_all();
  return implementation_->species_of[atomic_number];
}

Result Potential::Implementation::evaluate(const Structure& structure, const Request& request, const double* feature_weights) {
  const std::size_t n = structure.positions.size(), features = info.features;
  Result result;
  result.energies.resize(n);
  if (request.forces) result.forces.resize(n);
  if (request.virials) result.virials.resize(n);
  if (request.features) result.features.resize(n * features);
  std::vector<double> members(request.uncertainty ? n * info.members : 0);
  if (request.uncertainty) {
    if (!info.no_uncertainty.empty()) throw std::invalid_argument(info.no_uncertainty);
    result.force_std.resize(n);
    result.distances.resize(n);
  }
  if (n > 0) {
    GraphResult out;
    out.energies = result.energies.data();
    out.forces = adatom::data(result.forces);
    out.want_virial = request.virial;
    out.atom_virials = adatom::data(result.virials);
    out.features = request.features ? result.features.data() : nullptr;
    if (request.uncertainty) out.member_energies = members.data(), out.force_std = result.force_std.data(), out.distances = result.distances.data();
    run(structure, nullptr, out, feature_weights);
    result.energy = sum(out.energies, n);
    if (request.virial) result.virial = symmetric(out.virial);
  }
  if (request.uncertainty) add_members(result, members.data(), n);
  if (!request.energies) result.energies.clear();
  return result;
}

Result Potential::evaluate(const Structure& structure, const Request& request) { return implementation_->evaluate(structure, request); }

Result Potential::feature_forces(const Structure& structure, const std::vector<double>& weights, const Request& request) {
  if (weights.size() != structure.positions.size() * info().features)
    throw std::invalid_argument(std::to_string(weights.size()) + " weights of features were given for " + std::to_string(structure.positions.size()) +
                                " atoms with " + std::to_string(info().features) + " features each: give one for each");
  return implementation_->evaluate(structure, request, weights.data());
}

void Potential::Implementation::evaluate_batch(const std::vector<Structure>& structures, std::size_t begin, std::size_t end, const Request& request,
                                               std::vector<Result>& results) {
  for (std::size_t k = begin; k < end; ++k) use_elements(structures[k], " of structure " + std::to_string(k));
  std::vector<int> batch_species;
  for (std::size_t k = begin; k < end; ++k)
    for (const int z : structures[k].numbers) batch_species.push_back(species_of[z]);
  const bool on_device = evaluator->finds_neighbours();
  if (!on_device) batch.assign(structures, begin, end, info.cutoff, threads);
  const std::size_t n = batch_species.size();

  std::vector<double> energies(n);
  std::vector<Vector3> forces(request.forces ? n : 0);
  std::vector<std::array<double, 9>> virials(request.virial || request.virials ? n : 0);
  const std::size_t width = info.features;
  std::vector<double> features(request.features ? n * width : 0);
  if (request.uncertainty && !info.no_uncertainty.empty()) throw std::invalid_argument(info.no_uncertainty);
  std::vector<double> members(request.uncertainty ? n * info.members : 0), force_std(request.uncertainty ? n : 0), distances(force_std.size());
  if (n > 0) {
    GraphResult out;
    out.energies = energies.data();
    out.forces = data(forces);
    out.atom_virials = data(virials);
    out.features = request.features ? features.data() : nullptr;
    if (request.uncertainty) out.member_energies = members.data(), out.force_std = force_std.data(), out.distances = distances.data();
    try {
      if (on_device) {
        run_on_device(structures, begin, end, out);
      } else {
        Graph graph = batch.graph();
        graph.species = batch_species.data();
        graph.revision = revision_of(Source::batch, source_revision + 1);  // another graph than any before
        run(graph, out, nullptr);
      }
    } catch (const NotFinite& error) {
      throw std::runtime_error(error.text([&](int atom) {
        std::size_t k = begin, i = atom;
        while (i >= structures[k].positions.size()) i -= structures[k++].positions.size();
        return "atom " + std::to_string(i) + " of structure " + std::to_string(k) + " of the batch (counted from 0)";
      }));
    }
  }

  std::size_t first = 0;
  for (std::size_t k = begin; k < end; ++k) {
    const std::size_t size = structures[k].positions.size(), last = first + size;
    Result& result = results[k];
    result.energy = sum(energies.data() + first, size);
    if (request.energies) result.energies.assign(energies.begin() + first, energies.begin() + last);
    if (request.forces) result.forces.assign(forces.begin() + first, forces.begin() + last);
    if (request.virials) result.virials.assign(virials.begin() + first, virials.begin() + last);
    if (request.uncertainty) {
      result.force_std.assign(force_std.begin() + first, force_std.begin() + last);
      result.distances.assign(distances.begin() + first, distances.begin() + last);
      add_members(result, members.data() + first * info.members, size);
    }
    if (request.features) result.features.assign(features.begin() + first * width, features.begin() + last * width);
    if (request.virial) {
      // No edge joins two structures, so that the virials of its atoms add up to that of a structure.
      std::array<double, 9> total{};
      for (std::size_t i = first; i < last; ++i)
        for (int c = 0; c < 9; ++c) total[c] += virials[i][c];
      result.virial = symmetric(total.data());
    }
    first = last;
  }
}

std::vector<Result> Potential::evaluate(const std::vector<Structure>& structures, const Request& request) {
  std::vector<Result> results(structures.size());
  for (std::size_t begin = 0, end = 0; begin < structures.size(); begin = end) {
    for (std::size_t atoms = 0; end < structures.size(); ++end) {
      atoms += structures[end].positions.size();
      const std::size_t most = implementation_->evaluator->finds_neighbours() ? atoms_per_device_batch : atoms_per_batch;
      if (end > begin && atoms > most) break;
    }
    implementation_->evaluate_batch(structures, begin, end, request, results);
  }
  return results;
}

std::vector<double> Potential::feature_tangents(const Structure& structure, const std::vector<Vector3>& v) {
  const std::size_t n = structure.positions.size();
  check_direction(v, n, "along which features are derived");
  std::vector<double> tangents(n * info().features);
  if (n == 0) return tangents;
  GraphResult out;
  out.feature_tangents = tangents.data();
  implementation_->run(structure, v.front().data(), out);
  return tangents;
}

std::vector<Vector3> Potential::hessian_vector(const Structure& structure, const std::vector<Vector3>& v) {
  const std::size_t n = structure.positions.size();
  check_direction(v, n, "of a Hessian-vector product");
  std::vector<Vector3> product(n);
  if (n == 0) return product;
  GraphResult out;
  out.force_tangents = data(product);
  implementation_->run(structure, v.front().data(), out);
  for (Vector3& row : product)  // H v = -dF
    for (double& x : row) x = -x;
  return product;
}

void Potential::evaluate(const Graph& graph, GraphResult& result, Halo* halo) {
  if (graph.n_receivers < 0 || graph.n_receivers > graph.n_nodes)
    throw std::invalid_argument("graph has " + std::to_string(graph.n_receivers) + " receivers and " + std::to_string(graph.n_nodes) +
                                " nodes: receivers are the first of the nodes");
  if (!graph.first_edge || (graph.n_nodes > 0 && (!graph.species || !graph.positions)))
    throw std::invalid_argument("graph lacks species, first_edge or positions: set the pointers");
  if (graph.n_nodes > graph.n_receivers && !halo)
    throw std::invalid_argument("graph has " + std::to_string(graph.n_nodes - graph.n_receivers) + " ghosts: give a Halo that connects them with their owners");
  if (result.force_tangents && !graph.position_tangents)
    throw std::invalid_argument("GraphResult::force_tangents needs Graph::position_tangents: set it, or force_tangents to null");
  implementation_->use_all();
  Graph own = graph;
  own.revision = implementation_->revision_of(Implementation::Source::caller, graph.revision);
  implementation_->run(own, result, halo);
}

MatmulError Potential::matmul_error(const Structure& structure) {
  implementation_->use_elements(structure);  // the network of both evaluations
  const std::size_t n = structure.positions.size();
  return implementation_->matmul_error(n, n, [&](GraphResult& result) {
    if (n > 0) implementation_->run(structure, nullptr, result);
  });
}

MatmulError Potential::matmul_error(const Graph& graph, Halo* halo) {
  implementation_->use_all();
  return implementation_->matmul_error(graph.n_receivers, graph.n_nodes, [&](GraphResult& result) {
    Graph own = graph;
    own.revision = 0;
    implementation_->revision_of(Implementation::Source::caller, 0);
    implementation_->run(own, result, halo);
  });
}

std::vector<std::vector<Vector3>> Potential::member_forces(const Structure& structure) {
  Implementation& own = *implementation_;
  if (!own.info.no_uncertainty.empty()) throw std::invalid_argument(own.info.no_uncertainty);
  const std::vector<Vector3> forces = evaluate(structure).forces;
  const std::vector<double>& members = own.file.detectors.at("uncertainty.members").data;  // [features][members]
  std::vector<std::vector<Vector3>> result;
  const std::size_t n = forces.size(), features = own.info.features, count = own.info.members;
  std::vector<double> weights(n * features);
  for (std::size_t k = 0; k < count; ++k) {
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t f = 0; f < features; ++f) weights[i * features + f] = members[f * count + k];
    result.push_back(feature_forces(structure, weights).forces);
    for (std::size_t i = 0; i < n; ++i)
      for (int a = 0; a < 3; ++a) result.back()[i][a] += forces[i][a];
  }
  return result;
}

double Potential::energy_std(const double* member_energies, std::size_t atoms) const {
  if (!implementation_->info.no_uncertainty.empty()) throw std::invalid_argument(implementation_->info.no_uncertainty);
  return implementation_->energy_std(member_energies, atoms);
}

Counters Potential::counters() const {
  const Implementation& own = *implementation_;
  Counters counters;
  counters.flops_per_step = own.flops_per_step;
  const gnn::EvaluatorCounters plain = own.evaluator->counters();
  counters.bytes_per_step = plain.bytes_per_step;
  counters.launches_per_step = plain.launches_per_step;
  if (own.device == Device::cuda) {
    counters.workspace_bytes = plain.workspace_bytes + (own.dual_evaluator ? own.dual_evaluator->counters().workspace_bytes : 0);
    return counters;
  }
  counters.workspace_bytes = plain.workspace_bytes + own.batch.bytes() + own.species.capacity() * sizeof(int);
  if (own.dual_evaluator) counters.workspace_bytes += own.dual_evaluator->counters().workspace_bytes;
  counters.workspace_bytes += own.list.first_edge().capacity() * sizeof(std::int64_t) + own.list.sender().capacity() * sizeof(int) +
                              own.list.shift().capacity() * sizeof(int) + 2 * own.list.positions().capacity() * sizeof(Vector3);
  return counters;
}

void Potential::set_threads(int threads) {
  if (threads < 0) throw std::invalid_argument("number of threads is " + std::to_string(threads) + ": expected 0 (as OpenMP decides) or more");
  implementation_->threads = threads;
  implementation_->evaluator->set_threads(threads);
  if (implementation_->dual_evaluator) implementation_->dual_evaluator->set_threads(threads);
}

}  // namespace adatom
