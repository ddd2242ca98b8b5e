// SPDX-License-Identifier: MIT
// How the arrays of a network that is trained follow from the tensors of its model file: forwards for values, backwards for gradients.
//
// All tensors together are one vector t. Each step writes some arrays of the network from t and from arrays that earlier steps wrote. Evaluators give the
// gradient of a loss with respect to the arrays; the steps, taken from last to first, turn it into the gradient with respect to t.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "gnn/network.hpp"

namespace adatom::gnn {

class AssemblyStep {
 public:
  virtual ~AssemblyStep() = default;
  virtual void forward(const double* tensors) = 0;
  /// Adds to `gradient`, [all tensors], and to `arrays` of earlier steps.
  virtual void reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const = 0;
};

/// Entries of an array that are sums of (factor * entry of a tensor); the others stay as they are.
class CopyStep final : public AssemblyStep {
 public:
  /// `id` -1: the array follows from the same tensors as another one that has the gradient.
  CopyStep(double* array, int id) : array_(array), id_(id) {}
  void add(std::size_t to, std::size_t from, double factor) {
    if (!runs_.empty()) {
      Run& r = runs_.back();
      if (to == r.to + r.count && from == r.from + r.count && factor == r.factor) {
        ++r.count;
        return;
      }
    }
    runs_.push_back({to, from, 1, factor});
  }
  void forward(const double* tensors) override {
    for (const Run& r : runs_) std::fill_n(array_ + r.to, r.count, 0.0);
    for (const Run& r : runs_)
      for (std::size_t k = 0; k < r.count; ++k) array_[r.to + k] += r.factor * tensors[r.from + k];
  }
  void reverse(const double*, ArrayGradients& arrays, double* gradient) const override {
    if (id_ < 0) return;
    const double* from = arrays[id_].data();
    for (const Run& r : runs_)
      for (std::size_t k = 0; k < r.count; ++k) gradient[r.from + k] += r.factor * from[r.to + k];
  }

 private:
  struct Run {  // of neighbouring entries: channels, mostly
    std::size_t to, from, count;
    double factor;
  };
  double* array_;
  int id_;
  std::vector<Run> runs_;
};

/// Features that depend on the element alone: y_z = map_z(x_z) for the scalars x_z of each species' embedding.
class SpeciesStep final : public AssemblyStep {
 public:
  LinearMap map;
  std::vector<int> channels;           ///< of the map's input, for each entry of x_z
  std::vector<std::size_t> embedding;  ///< [species] where x_z begins in t
  std::vector<double*> y;              ///< [species][size]
  std::size_t size = 0;
  int id = -1;  ///< of y, one species after the other

  void forward(const double* tensors) override;
  void reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const override;

 private:
  static bool of_scalars(const LinearPart& part) { return part.ir == Irrep{0, 1}; }
  static const Matrix& matrix(const LinearPart& part, std::size_t z) { return part.matrices[part.matrices.size() > 1 ? z : 0]; }
};

/// The steps of a network, and where each tensor lies in t.
class Assembly {
 public:
  explicit Assembly(const Tensors& tensors) {
    for (const auto& [name, tensor] : tensors) {
      offsets_[&tensor] = size_;
      size_ += tensor.data.size();
    }
  }
  std::size_t size() const { return size_; }
  std::size_t offset(const Tensor& tensor) const { return offsets_.at(&tensor); }

  // In the order in which they are taken. Steps of the first two lists need no other; no two tables come from the same tensor.
  std::vector<std::unique_ptr<AssemblyStep>> copies, tables, species;

 private:
  std::map<const Tensor*, std::size_t> offsets_;  // of the tensors that the network is first assembled from
  std::size_t size_ = 0;
};

}  // namespace adatom::gnn
