// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "gnn/evaluator.hpp"

namespace adatom::gnn {

class Assembly;

/// A network whose weights change. All tensors of the model file are one vector; the network follows from it.
class TrainableNetwork {
 public:
  struct TensorInfo {
    std::string name;
    std::vector<std::size_t> shape;
    std::size_t offset, size;  ///< in the vector
  };

  /// Throws as build_network.
  TrainableNetwork(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options);
  ~TrainableNetwork();

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const std::vector<double>& values() const { return values_; }  ///< all tensors

  /// What evaluators are made for. They see new values after Evaluator::refresh.
  std::shared_ptr<const Network> network() const;

  /// Assembles the network from other values of the tensors, [values().size()].
  void assign(const double* values, int threads = 1);

  /// Adds to `gradient`, [values().size()], what follows from gradients with respect to the arrays of the network (Evaluator::weight_gradient).
  /// Tensors that no array depends on (atomic energies, scale, shift, frequencies, radii) get nothing.
  void add_gradient(ArrayGradients arrays, double* gradient, int threads = 1) const;

 private:
  std::shared_ptr<Network> network_;
  std::unique_ptr<Assembly> assembly_;
  std::vector<TensorInfo> tensors_;
  std::vector<double> values_;
};

}  // namespace adatom::gnn
