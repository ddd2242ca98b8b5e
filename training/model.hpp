// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <vector>

#include "adatom/potential.hpp"
#include "gnn/trainable.hpp"
#include "potential/model_file.hpp"
#include "training/loss.hpp"
#include "training/parameters.hpp"

namespace adatom::training {

enum class TrainingPrecision { single, full };

/// A tensor that is trained, as a block of the vector of parameters: tensor = scale * parameters.
struct ParameterBlock {
  std::string name;
  std::vector<std::size_t> shape;
  std::size_t offset = 0, size = 0;  ///< in the vector of parameters
  std::size_t tensor = 0;            ///< where it begins in the vector of all tensors
  double scale = 1.0;
  bool decays = false;  ///< weight decay acts on it
};

/// A model under training: parameters in double, networks of all its heads, evaluators in the precision of the run.
class TrainingModel {
 public:
  /// `elements`: atomic numbers that the data has (a subset of the model's); others keep their weights. `threads` 0: OMP_NUM_THREADS, or as many as there are CPUs. Throws
  /// std::runtime_error that says why for a device that cannot be used.
  TrainingModel(const ModelFile& file, const std::vector<int>& elements, TrainingPrecision precision, Device device, int threads, int knots = 0);

  const std::vector<ParameterBlock>& blocks() const { return blocks_; }
  std::size_t size() const { return size_; }  ///< parameters
  int heads() const { return static_cast<int>(networks_.size()); }
  double cutoff() const { return file_.cutoff; }
  const std::vector<int>& elements() const { return elements_; }  ///< the species of batches
  int threads() const { return threads_; }

  void parameters(double* to) const;      ///< [size()]
  void assign(const double* parameters);  ///< [size()]

  /// Loss and errors of a batch of one head.
  ErrorSums evaluate(const TrainingBatch& batch, int head, Loss& loss, const LabelCounts& counts);
  /// Energies of the structures of a batch, eV; NotFinite where one is not. Valid until the next call.
  const std::vector<double>& energies(const TrainingBatch& batch, int head);
  /// Of the last evaluate or gradient.
  const Predictions& predictions() const { return predictions_; }
  /// As evaluate, and adds dL/d(parameters) to `gradient`, [size()].
  ErrorSums gradient(const TrainingBatch& batch, int head, Loss& loss, const LabelCounts& counts, double* gradient);

  /// The model with the present weights.
  ModelFile file() const;
  std::size_t workspace_bytes() const;

 private:
  struct Head {
    std::unique_ptr<gnn::TrainableNetwork> network;
    std::unique_ptr<gnn::Evaluator> plain, dual;
    bool plain_stale = true, dual_stale = true;
  };
  gnn::Evaluator& plain(Head& head);

  ModelFile file_;
  std::vector<int> elements_;
  int threads_;
  std::vector<ParameterBlock> blocks_;
  std::size_t size_ = 0;
  std::vector<double> values_;  // of all tensors
  std::vector<Head> networks_;
  Predictions predictions_;
};

}  // namespace adatom::training
