// SPDX-License-Identifier: MIT
// From the architecture and the tensors of a model file to the network that is evaluated: constants folded, matrices padded and merged, radial functions in
// tables. The members are in the files of what they build: linear.cpp, radial.cpp, layer.cpp, update.cpp, and the rest in builder.cpp.
#pragma once
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "gnn/builder/build.hpp"
#include "gnn/builder/channels.hpp"
#include "gnn/builder/magnitudes.hpp"
#include "gnn/builder/spec.hpp"
#include "gnn/builder/tensors.hpp"
#include "gnn/coupling.hpp"
#include "gnn/radial_table.hpp"

namespace adatom::gnn {

using nlohmann::json;

/// Throws std::runtime_error for a name that is not known.
Activation activation_of(const Spec& spec, const std::string& key);

class Builder {
 public:
  /// With `assembly` the network is one for training, and the steps that assemble it again are left there.
  Builder(const json& architecture, const Tensors& tensors, const NetworkOptions& options, Assembly* assembly)
      : architecture_(architecture, "architecture"),
        tensors_(tensors),
        weights_(tensors),
        options_(options),
        all_(options.elements.size()),
        assembly_(assembly) {}

  Network build();

 private:
  /// A path of a layer's convolution as the file has it.
  struct PathSpec {
    int entry, l2;  ///< of irreps_conv; of the edge
    Irrep out;
  };
  /// Channels of each path, and as many padded.
  using PathChannels = std::vector<std::pair<int, int>>;

  void build_energies();
  void build_embedding();
  void read_edge_harmonics();
  void summarize(const json& layers);
  Irreps irreps_of(const Spec& spec, const std::string& key) const { return spec.irreps(key, max_edge_l, weights_.count()); }

  // layer.cpp
  void build_layer(const Spec& spec, std::size_t t);
  std::vector<PathSpec> read_paths(const Spec& spec, const Irreps& conv) const;
  void build_readout(Layer& layer, const Spec& spec, const std::string& name, const Channels& out);

  // linear.cpp
  /// y = x W for one irrep; `tensor` is [in, out] or [count, in, out], of which the matrices of the kept elements are taken.
  LinearPart linear_part(const Tensor& tensor, Irrep ir, const Channels& in, const Channels& out);
  /// All irreps that `in` and `out` share; `NAME.{irrep}` and `NAME.bias`.
  LinearMap linear_map(const std::string& name, const Channels& in, const Channels& out, bool per_element = false);
  /// a followed by b, where b has one matrix per element or one for all.
  static LinearMap merge(const LinearMap& a, const LinearMap& b);
  /// `map` applied to every species' embedding.
  void apply_to_species(LinearMap map, const Channels& in, int size, std::vector<std::vector<double>>& y, int& id);
  /// First layer: the sender's features u_z are constants, so radial matrix, u_z and the linear map of the message are one matrix per pair of elements.
  void build_element_linear(Layer& layer, const Channels& in, const Channels& conv, const LinearMap& linear, const std::vector<PathSpec>& specs,
                            const std::vector<int>& path_start);

  // radial.cpp
  void build_radial();
  std::vector<MlpLayer> mlp(const std::string& name, int count, int first_in, bool layer_norm);
  /// phi(r) of a pair of species: the activations that enter the MLP's last matrix.
  RadialFunctions hidden_functions(const Layer& layer) const;
  void build_radial_mlp(Layer& layer, const Spec& spec, const std::string& name, const PathChannels& path_channels);
  void build_tables(Layer& layer, bool first);
  /// Tables that are made again from the MLP's tensors, with as many knots as the weights of now need unless the options say how many.
  void assemble_tables(Layer& layer, int mlp_layers, const std::string& name, const PathChannels& path_channels);
  /// Where the second derivative of the radial functions jumps; 0 for nowhere.
  double kink() const { return network_.radial.cutoff.type == CutoffFunction::Type::xplor ? network_.radial.cutoff.r_on : 0.0; }

  // update.cpp
  void build_contraction(Layer& layer, int correlation, const std::string& name, const Irreps& message_irreps, const Irreps& out_irreps, const Channels& out);
  ContractionComponent component(const std::vector<SymmetricCoupling>& couplings, const std::vector<const Tensor*>& weights, int m, int mul, int out,
                                 Contraction& contraction);
  /// Channels of the gate's input: per irrep the scalars, then the gates of each gated entry.
  Channels gate_channels(const Spec& spec, const Irreps& out_irreps, const Irreps& message_irreps, const std::string& name) const;
  void build_gate(Layer& layer, const Spec& spec, const Channels& message, const Channels& out, const Irreps& out_irreps);

  // For training.
  /// Copies entries of a tensor, times factors, to an array, now and whenever the network is assembled again.
  class Copy {
   public:
    /// The array must not change its size or place any more (a vector may be moved). `id`: see Matrix; null where the gradient belongs to another array.
    Copy(Builder& builder, std::vector<double>& array, int* id) : array_(array), assembly_(builder.assembly_) {
      if (!assembly_) return;
      auto step = std::make_unique<CopyStep>(array.data(), id ? * id = builder.new_array(array.size()) : -1);
      step_ = step.get();
      assembly_->copies.push_back(std::move(step));
    }
    /// For an array whose number is known.
    Copy(Builder& builder, std::vector<double>& array, const Tensor& tensor, std::size_t from, int* id) : Copy(builder, array, id) {
      for (std::size_t k = 0; k < array.size(); ++k) add(k, tensor, from + k);
    }
    void add(std::size_t to, const Tensor& tensor, std::size_t from, double factor = 1.0) {
      array_[to] += factor * tensor.data[from];
      if (step_) step_->add(to, assembly_->offset(tensor) + from, factor);
    }

   private:
    std::vector<double>& array_;
    Assembly* assembly_;
    CopyStep* step_ = nullptr;
  };
  int new_array(std::size_t size) {
    network_.array_sizes.push_back(size);
    return static_cast<int>(network_.array_sizes.size()) - 1;
  }

  static constexpr double spline_tolerance = 1e-6;  // relative to the largest radial function: what float32 sums of them cannot tell apart

  Spec architecture_;
  const Tensors& tensors_;
  Weights weights_;
  const NetworkOptions& options_;
  std::size_t all_;
  Assembly* assembly_;
  Network network_;
  std::array<int, max_edge_l + 1> edge_parity_{};  // of each degree of the edge harmonics, 0: they do not have it
  Channels features_;                              // of the last layer so far
  std::vector<std::vector<double>> embedding_;
  std::vector<std::size_t> embedding_offset_;  // in the tensors, for training
  ReducedFunctions reduced_;
};

}  // namespace adatom::gnn
