// SPDX-License-Identifier: MIT
#pragma once
#include <string>

namespace adatom::training {

struct OptimizerOptions {
  std::string name = "adam";  ///< adam, adamw, schedule_free, soap
  double learning_rate = 0.01;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 5e-7;   ///< of the parameters that decay (TensorRole::decays)
  bool amsgrad = true;          ///< adam, adamw
  int precondition_every = 10;  ///< soap: steps between two changes of the basis
  int largest_dimension = 512;  ///< soap: sides of a matrix that are longer are left in their own basis
};

}  // namespace adatom::training
