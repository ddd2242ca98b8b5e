// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "adatom/export.hpp"
#include "adatom/graph.hpp"
#include "adatom/structure.hpp"

/// The public C++ API. Units: eV, angstrom, eV/angstrom; stress in eV/angstrom^3 with ASE's sign, Voigt order xx yy zz yz xz xy.
/// Every function throws std::exception-derived errors whose message says what to do; none ends the program.
namespace adatom {

enum class Device { cpu, cuda };
enum class Precision { float32, float64 };
/// Linear maps on a GPU in single precision: as they are, or on tensor cores, whose inputs are rounded to 11 bits (tf32) or 8 bits (bf16).
enum class Matmul { exact, tf32, bf16 };

struct LoadOptions {
  Device device = Device::cpu;
  Precision precision = Precision::float32;  ///< of the network; edge vectors and sums of energies are always double
  int threads = 0;                           ///< OpenMP threads of an evaluation; 0: as OpenMP decides
  bool splines = true;                       ///< tabulate the radial functions (error checked against the MLP at load time)
  std::string head;                          ///< level of theory or modality; may be empty if the model has one head
  std::vector<int> elements;                 ///< keep only these atomic numbers (smaller tables); empty: all of the model's
  Matmul matmul = Matmul::exact;             ///< other ones need device cuda and float32; Potential::matmul_error measures what they cost
};

/// What rounded linear maps change: the largest difference of an atom's energy (eV) and of a component of a force (eV/angstrom).
struct MatmulError {
  double energy = 0.0, force = 0.0;
};

/// What evaluate() computes besides the total energy.
struct Request {
  bool energies = false;  ///< per atom
  bool forces = true;
  bool virial = false;       ///< and with it the stress, if the cell has a volume
  bool virials = false;      ///< per atom
  bool features = false;     ///< per atom
  bool uncertainty = false;  ///< of the energy, and per atom; needs a model with detectors
};

struct Result {
  double energy = 0.0;                         ///< eV
  std::vector<double> energies;                ///< [n], eV
  std::vector<Vector3> forces;                 ///< [n], eV/angstrom
  std::array<double, 9> virial{};              ///< eV, row major; symmetric
  std::vector<std::array<double, 9>> virials;  ///< [n], eV; see GraphResult::atom_virials
  double energy_std = 0.0;                     ///< eV, standard deviation of the energy
  std::vector<double> member_energies;         ///< [ModelInfo::members], eV, energies of the members of the ensemble
  std::vector<double> force_std;               ///< [n], eV/angstrom, standard deviation of a component of the atom's force
  std::vector<double> distances;               ///< [n], of the atom's features from the training set; 1: that of the farthest 1 % of held-out atoms
  std::vector<double> features;                ///< [n][ModelInfo::features], the scalar features of each atom, layer after layer
};

/// Stress -W / V in ASE's Voigt order, eV/angstrom^3, from Result::virial and the cell. Throws std::invalid_argument if the cell has no volume.
ADATOM_EXPORT std::array<double, 6> stress(const std::array<double, 9>& virial, const Matrix3& cell);

/// Facts about a loaded model.
struct ModelInfo {
  double cutoff = 0.0;         ///< angstrom
  int features = 0;            ///< scalar features of an atom, over all layers
  int members = 0;             ///< of the ensemble; 0 without detectors of uncertainty
  int whitened = 0;            ///< whitened features of an atom; 0 without detectors
  std::string no_uncertainty;  ///< why there are no detectors, and what to do; empty if there are
  std::vector<int> elements;   ///< atomic numbers that this instance evaluates
  std::vector<std::string> heads;
  std::string head;               ///< the one in use
  std::string architecture_json;  ///< as in the file
  std::string provenance_json;    ///< as in the file
  std::string uncertainty_json;   ///< as in the file; empty without detectors
  std::string backend;            ///< e.g. "cpu-v4"
  std::string summary;            ///< e.g. "mace, 2 layers, 128x0e, l_max 3, correlation 3"
};

/// What evaluations did so far; `adatom bench` and the benchmarks read it.
struct Counters {
  double bytes_per_step = 0.0;      ///< on a device: what its kernels read and write of its memory at least, counted from sizes of arrays
  double flops_per_step = 0.0;      ///< floating-point operations of the last evaluation (multiply-add = 2), counted from loop bounds
  std::size_t workspace_bytes = 0;  ///< memory that evaluation holds now: features, tiles, scratch, results; on a device, of the device
  long launches_per_step = 0;       ///< kernels of the last evaluation; 0 on a CPU
};

/// The two nodes of a graph that are nearest to each other.
struct ShortestEdge {
  double length = std::numeric_limits<double>::infinity();  ///< angstrom
  int receiver = -1, sender = -1;                           ///< nodes; -1: there is no edge
};

/// An evaluation gave a number that is not finite. The message says which, of which atom, and why if that can be told.
class ADATOM_EXPORT NotFinite : public std::runtime_error {
 public:
  /// `atom`: a node of the graph, -1 for a sum over all.
  NotFinite(std::string quantity, int atom, const ShortestEdge& shortest);
  const char* what() const noexcept override { return what_.c_str(); }       ///< atoms by the number of their node
  std::string text(const std::function<std::string(int node)>& name) const;  ///< the same with names for the atoms
  int atom() const { return atom_; }

 private:
  std::string quantity_, what_;
  int atom_;
  ShortestEdge shortest_;
};

/// A potential, ready to evaluate. Movable, not copyable. One instance serves one thread at a time; evaluation itself is parallel.
class ADATOM_EXPORT Potential {
 public:
  static Potential load(const std::filesystem::path& file, const LoadOptions& options = {});

  Potential(Potential&&) noexcept;
  Potential& operator=(Potential&&) noexcept;
  ~Potential();

  const ModelInfo& info() const;
  double cutoff() const { return info().cutoff; }

  /// Index of an element for Graph::species. Throws std::invalid_argument naming the element and those that the model has.
  int species(int atomic_number) const;

  /// One structure. Keeps its neighbour list with a skin: repeated calls with small displacements do not rebuild it.
  Result evaluate(const Structure& structure, const Request& request = {});

  /// Many structures as one batch.
  std::vector<Result> evaluate(const std::vector<Structure>& structures, const Request& request = {});

  /// Hessian times v, eV/angstrom^2 * unit of v; v has one row per atom. Exact (dual numbers), any precision.
  std::vector<Vector3> hessian_vector(const Structure& structure, const std::vector<Vector3>& v);

  /// Products with the Jacobian of the scalar features x_ik, from the right and from the left. The first: their derivative when the atoms move along v
  /// [n], as [n][features]. The second: forces and virial of the energy sum_ik a_ik x_ik, for a given as [n][features].
  std::vector<double> feature_tangents(const Structure& structure, const std::vector<Vector3>& v);
  Result feature_forces(const Structure& structure, const std::vector<double>& weights, const Request& request = {});

  /// Forces of each member of the ensemble, [members][n], eV/angstrom: minus the exact derivatives of Result::member_energies. One pass for each member.
  std::vector<std::vector<Vector3>> member_forces(const Structure& structure);

  /// Standard deviation of an energy, eV, from what the members of the ensemble add to it (n numbers of ModelInfo::members), for this many atoms.
  double energy_std(const double* member_energies, std::size_t atoms) const;

  /// The engine under all of the above, for callers that have their own neighbour lists and domain decomposition (LAMMPS).
  /// `halo` may be null when the graph has no ghosts.
  void evaluate(const Graph& graph, GraphResult& result, Halo* halo = nullptr);

  /// What LoadOptions::matmul changes on this structure, or graph, in comparison with Matmul::exact; zero without it.
  MatmulError matmul_error(const Structure& structure);
  MatmulError matmul_error(const Graph& graph, Halo* halo);

  Counters counters() const;
  void set_threads(int threads);

 private:
  struct ADATOM_NO_EXPORT Implementation;
  explicit Potential(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace adatom
