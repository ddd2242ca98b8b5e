// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "adatom/graph.hpp"

/// From a model's architecture and weights to something that evaluates graphs. Knows no files.
namespace adatom::gnn {

/// A dense tensor in double, row major.
struct Tensor {
  std::vector<std::size_t> shape;
  std::vector<double> data;
};
using Tensors = std::map<std::string, Tensor>;

/// How a model file becomes a network that runs.
struct NetworkOptions {
  std::vector<int> elements;                            ///< atomic numbers of the tensors' Z axes, in order
  int heads = 1;                                        ///< size of the tensors' H axes
  int head = 0;                                         ///< the head that is evaluated
  std::vector<int> keep;                                ///< indices into `elements` that are kept, in this order; species of a graph index this list
  bool splines = true;                                  ///< tabulate radial functions
  const Tensors* detectors = nullptr;                   ///< of uncertainty, where the model has some and they are wanted
  double largest = std::numeric_limits<double>::max();  ///< of the numbers that the precision of the run can hold
  int knots = 0;                                        ///< of networks for training: intervals of the tables, 0 for as many as the first weights need
};

enum class Scalar { float32, float64, dual32, dual64 };

/// How a device multiplies the matrices of linear maps in single precision. The inputs of tf32 and bf16 are rounded to 11 and 8 significant bits, sums are
/// single; tensor cores do it several times as fast.
enum class Matmul { exact, tf32, bf16 };

struct EvaluatorCounters {
  double flops_per_step = 0.0;
  double bytes_per_step = 0.0;  ///< on a device: what its kernels read and write of its memory at least, every array once per kernel
  std::size_t workspace_bytes = 0;
  long launches_per_step = 0;  ///< of kernels, on a device
};

/// Gradients with respect to the arrays of a network, [id][entry].
using ArrayGradients = std::vector<std::vector<double>>;

/// What a loss says about the results of a graph: its derivatives, from which the weights' gradient follows.
struct LossGradient {
  const double* energies = nullptr;  ///< [n_receivers] dL/dE_i of the atom's energy
  const double* forces = nullptr;    ///< [n_nodes][3] dL/dF
  const double* strains = nullptr;   ///< null, or [structures][9] dL/d(dE/d(strain)), that is (1/V) dL/d(stress)
  const int* structure = nullptr;    ///< [n_nodes] index into `strains`
};

/// The cell of a structure, divided into bins for a search: potential/cell_grid.hpp. Vectors along which it is not periodic are of unit length.
struct SearchBox {
  double vectors[9], reciprocal[9];  ///< rows, angstrom
  double low[3], inverse_extent[3];  ///< what the bins divide, in fractional coordinates
  int bins[3], reach[3];             ///< neighbours are at most `reach` bins away; beyond 0 .. bins-1 begin periodic images
  int periodic[3];
};

/// Structures as they are, one after the other, for an evaluator that finds their neighbours itself.
struct StructureView {
  int structures = 0;
  const int* first_atom = nullptr;            ///< [structures + 1]
  const SearchBox* boxes = nullptr;           ///< [structures] for `range`
  double range = 0.0;                         ///< of a search, angstrom: cutoff and skin
  const int* species = nullptr;               ///< [atoms]
  const double* positions = nullptr;          ///< [atoms][3], angstrom
  const double* position_tangents = nullptr;  ///< as of Graph
  const double* feature_weights = nullptr;    ///< the same
};

/// Runs one network on graphs. Not thread safe; parallel inside.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  /// With the dual scalars `graph.position_tangents` must be set, and `result.force_tangents` is computed.
  virtual void evaluate(const Graph& graph, GraphResult& result, Halo* halo) = 0;

  /// Whether it finds neighbours itself, that is whether evaluate_structures works.
  virtual bool finds_neighbours() const { return false; }
  /// evaluate() for structures, without a graph. `revision` changes whenever anything but positions and boxes does, 0: never keep; lists are kept while cells
  /// stay and atoms move by less than half of what `range` is above the cutoff.
  virtual void evaluate_structures(const StructureView&, std::uint64_t /*revision*/, GraphResult&) { throw std::logic_error("this evaluator needs a graph"); }

  /// dL/d(array) for a loss of the energies, forces and strain derivatives of the graph, all terms together, by one pass in dual arithmetic (arXiv
  /// 2206.07697 trains by two nested reverse passes instead): positions move along -dL/dF and dL/ds, the adjoint of each energy is 1 + e dL/dE; then the
  /// tangent of the adjoint of an array is the gradient. Bitwise the same for any number of threads. For dual scalars and networks assembled for training;
  /// throws std::logic_error for others.
  virtual void weight_gradient(const Graph& graph, const LossGradient& loss, ArrayGradients& gradient) = 0;

  /// To be called when the network's weights have changed.
  virtual void refresh() = 0;

  virtual EvaluatorCounters counters() const = 0;
  virtual void set_threads(int threads) = 0;  ///< 0: as OpenMP decides
};

/// The assembled network: independent of precision and instruction set. Opaque here; see gnn/network.hpp.
struct Network;

/// `architecture_json` and `tensors` as docs/model_file.md describes them. Throws std::runtime_error that names what is missing, unused,
/// of the wrong shape, or not supported.
std::shared_ptr<const Network> build_network(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options);

/// Loads the CPU backend (a shared object beside this library) for the best instruction set that this machine has, or for the one that the
/// environment variable ADATOM_CPU names (v2, v3, v4). Throws std::runtime_error if there is none.
std::unique_ptr<Evaluator> make_cpu_evaluator(std::shared_ptr<const Network> network, Scalar scalar);

/// Loads the CUDA backend (a shared object beside this library) for the first device that CUDA_VISIBLE_DEVICES leaves. Throws std::runtime_error that says
/// what is missing: the backend, a driver that is new enough, a device, compute capability 8.0.
std::unique_ptr<Evaluator> make_cuda_evaluator(std::shared_ptr<const Network> network, Scalar scalar, Matmul matmul = Matmul::exact);

/// Name of that device, e.g. "cuda (NVIDIA H200)". Throws as make_cuda_evaluator.
std::string cuda_backend_name();

/// Name of the backend that make_cpu_evaluator uses, e.g. "cpu-v4".
std::string cpu_backend_name();

/// Multiply-add peak of the machine with the instruction set in use, floating-point operations per second of `threads` threads (0: as OpenMP decides);
/// measured, takes 0.1 s.
double cpu_fma_peak(bool single_precision, int threads);

/// c = a b (or c += a b) for dense matrices, row major: a [m][k], b [k][n], c [m][n]. With the instruction set in use; the same bits for any machine that has
/// it.
void cpu_multiply(int m, int k, int n, const double* a, const double* b, double* c, bool accumulate);

double cutoff(const Network& network);        ///< angstrom
int features(const Network& network);         ///< scalar features of a node, over all layers
int members(const Network& network);          ///< of the ensemble; 0 without detectors
int whitened(const Network& network);         ///< whitened features of a node; 0 without detectors
std::string summary(const Network& network);  ///< one line for people

}  // namespace adatom::gnn
