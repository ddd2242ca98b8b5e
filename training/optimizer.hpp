// SPDX-License-Identifier: MIT
// Optimisers on the vector of parameters, a one-dimensional torch tensor in double.
#pragma once
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "training/model.hpp"

namespace adatom::training {

struct OptimizerOptions {
  std::string name = "adam";  ///< adam, adamw, schedule_free, soap
  double learning_rate = 0.01;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 5e-7;  ///< of the parameters that decay (TensorRole::decays)
  bool amsgrad = true;         ///< adam, adamw
  int precondition_every = 10; ///< soap: steps between two changes of the basis
  int largest_dimension = 512; ///< soap: sides of a matrix that are longer are left in their own basis
  int warmup_steps = 0;        ///< schedule_free: steps in which the learning rate grows to its value
};

class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks);
  virtual ~Optimizer() = default;

  /// One step of `parameters` along `gradient`; `rate`: the learning rate of now.
  virtual void step(torch::Tensor& parameters, const torch::Tensor& gradient, double rate) = 0;

  /// What a model is evaluated with: the parameters, or (schedule_free) their average.
  virtual torch::Tensor evaluated(const torch::Tensor& parameters) const { return parameters; }

  /// Everything that the next step depends on, by name; the tensors themselves, to be read or overwritten.
  std::map<std::string, torch::Tensor*>& state() { return state_; }

 protected:
  OptimizerOptions options_;
  torch::Tensor decay_;  // weight decay of each parameter
  torch::Tensor steps_;  // number of steps so far
  std::map<std::string, torch::Tensor*> state_;
};

/// Throws std::invalid_argument, naming the optimisers there are, for an unknown name.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks);

}  // namespace adatom::training
