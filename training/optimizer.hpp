// SPDX-License-Identifier: MIT
// Optimisers on the vector of parameters, a one-dimensional torch tensor in double.
#pragma once
#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "training/communicator.hpp"
#include "training/model.hpp"
#include "training/optimizer_options.hpp"

namespace adatom::training {

class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks);
  virtual ~Optimizer() = default;

  /// One step of `parameters` along `gradient`; `rate`: the learning rate of now.
  virtual void step(torch::Tensor& parameters, const torch::Tensor& gradient, double rate) = 0;

  /// What a model is evaluated with: the parameters, or (schedule_free) their average.
  virtual torch::Tensor evaluated(const torch::Tensor& parameters) const { return parameters; }

  /// Copies of everything that the next step depends on, by name, whole on all processes, which call it together.
  virtual std::map<std::string, torch::Tensor> state();
  /// The same names and shapes, filled with zeros.
  virtual std::map<std::string, torch::Tensor> blank_state() const;
  /// Sets the state; `state` has the names and shapes that blank_state() gives.
  virtual void restore(const std::map<std::string, torch::Tensor>& state);

 protected:
  static torch::Tensor zeros(std::int64_t n);
  static std::int64_t count(const std::vector<ParameterBlock>& blocks);

  OptimizerOptions options_;
  torch::Tensor decay_;                          // weight decay of each parameter
  torch::Tensor steps_;                          // number of steps so far
  std::map<std::string, torch::Tensor*> state_;  // what all processes have alike
};

/// `communicator`: the processes among which an optimiser may divide its work. Throws std::invalid_argument, naming the optimisers there are, for an unknown name.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks,
                                          std::shared_ptr<Communicator> communicator);

}  // namespace adatom::training
