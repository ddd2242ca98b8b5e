// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <string>
#include <vector>

#include "datasets/frame.hpp"
#include "potential/batch.hpp"

namespace adatom::training {

/// Some labelled configurations of one head as one graph.
class TrainingBatch {
 public:
  /// `elements`: the model's, in its order. Throws std::invalid_argument for an element that it does not have, and as Batch::assign.
  void assign(const std::vector<const datasets::Frame*>& frames, const std::vector<int>& elements, double cutoff, int threads);

  const Graph& graph() const { return graph_; }
  const std::vector<int>& structure() const { return structure_; }  ///< [atoms] configuration of each atom
  std::size_t size() const { return frames_.size(); }               ///< configurations
  std::size_t atoms() const { return structure_.size(); }
  const datasets::Frame& frame(std::size_t k) const { return *frames_[k]; }
  double volume(std::size_t k) const { return volumes_[k]; }  ///< angstrom^3; 0 for a cell without

 private:
  std::vector<const datasets::Frame*> frames_;
  std::vector<Structure> structures_;
  std::vector<int> species_, structure_;
  std::vector<double> volumes_;
  Batch batch_;
  Graph graph_;
  std::uint64_t revision_ = 0;
};

}  // namespace adatom::training
