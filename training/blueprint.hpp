// SPDX-License-Identifier: MIT
// What the families of models share when a new one is laid out: irreps, paths, radial functions, lists of tensors. Not for users of new_model.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gnn/irreps.hpp"
#include "training/architecture.hpp"
#include "training/options.hpp"

namespace adatom::training {

/// An architecture, and the shape and first values of each tensor.
struct Blueprint {
  struct TensorPlan {
    std::vector<std::size_t> shape;
    double deviation = 1.0;      ///< the parameter (tensor = scale * parameter) is drawn from normals of this standard deviation; 0: it starts as zero
    std::vector<double> values;  ///< of tensors that are given; else empty
  };
  nlohmann::ordered_json architecture;
  std::map<std::string, TensorPlan> tensors;

  void add(const std::string& name, std::vector<std::size_t> shape, double deviation = 1.0) { tensors[name] = {std::move(shape), deviation, {}}; }
  void add_values(const std::string& name, std::vector<double> values) { tensors[name] = {{values.size()}, 0.0, std::move(values)}; }
  /// Matrices `NAME.{irrep}` for the irreps that both have; `count` 0: [in, out], else [count, in, out].
  void add_linear(const std::string& name, const gnn::Irreps& in, const gnn::Irreps& out, std::size_t count = 0);
};

/// One path of a convolution.
struct Path {
  int entry, l;  ///< of irreps_conv; of the edge harmonics
  gnn::Irrep out;
  int channels;
};

/// All couplings of `conv` with the edge harmonics that lead to an irrep of `targets`, sorted by irrep; the order of mace-torch and sevenn.
std::vector<Path> convolution_paths(const gnn::Irreps& conv, const std::vector<gnn::Irrep>& harmonics, const gnn::Irreps& targets);
nlohmann::ordered_json path_list(const std::vector<Path>& paths);
gnn::Irreps path_irreps(const std::vector<Path>& paths);  ///< of the convolution's result

/// Degrees 0..l_max, with parity (-1)^l or all even.
std::vector<gnn::Irrep> edge_harmonics(int l_max, bool parity);

/// Adds `radial_mlp` of a layer, and returns its description.
nlohmann::ordered_json add_radial_mlp(Blueprint& blueprint, const std::string& layer, int basis_size, const std::vector<int>& hidden,
                                      const std::vector<Path>& paths, const std::string& activation);

/// pi n / r_max, n = 1..size: the zeros of the functions' numerators at the cutoff.
std::vector<double> bessel_frequencies(double r_max, int size);

/// The value of an irreps option; refuses what cannot be parsed.
gnn::Irreps parse_irreps(const Options& options, const std::string& key, const std::string& text);

/// The options of each family, and what follows from them.
Blueprint mace_blueprint(Options& options, const ModelData& data);
Blueprint nequip_blueprint(Options& options, const ModelData& data);

}  // namespace adatom::training
