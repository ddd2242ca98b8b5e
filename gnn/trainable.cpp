// SPDX-License-Identifier: MIT
#include "gnn/trainable.hpp"

#include <algorithm>
#include <stdexcept>

#include "gnn/builder/build.hpp"
#include "gnn/threads.hpp"

namespace adatom::gnn {

TrainableNetwork::TrainableNetwork(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options)
    : assembly_(std::make_unique<Assembly>(tensors)) {
  if (!options.splines) throw std::invalid_argument("a network for training has tables of its radial functions: NetworkOptions::splines must be true");
  network_ = std::make_shared<Network>(build(architecture_json, tensors, options, assembly_.get()));
  values_.resize(assembly_->size());
  for (const auto& [name, tensor] : tensors) {
    tensors_.push_back({name, tensor.shape, assembly_->offset(tensor), tensor.data.size()});
    std::copy(tensor.data.begin(), tensor.data.end(), values_.begin() + static_cast<std::ptrdiff_t>(tensors_.back().offset));
  }
  assign(values_.data(), 1);
}

TrainableNetwork::~TrainableNetwork() = default;

std::shared_ptr<const Network> TrainableNetwork::network() const { return network_; }

void TrainableNetwork::assign(const double* values, int threads) {
  if (values != values_.data()) std::copy(values, values + values_.size(), values_.begin());
  const int tables = static_cast<int>(assembly_->tables.size());
  parallel_for(gnn::threads(), threads, tables + 1, 1, [&](std::int64_t k, std::int64_t, int) {
    if (k < tables) {
      assembly_->tables[tables - 1 - k]->forward(values_.data());  // those of the last layer are the largest
    } else {
      for (const auto& step : assembly_->copies) step->forward(values_.data());
    }
  });
  for (const auto& step : assembly_->species) step->forward(values_.data());
}

void TrainableNetwork::add_gradient(ArrayGradients arrays, double* gradient, int threads) const {
  for (const auto& step : assembly_->species) step->reverse(values_.data(), arrays, gradient);
  const int tables = static_cast<int>(assembly_->tables.size());
  parallel_for(gnn::threads(), threads, tables + 1, 1, [&](std::int64_t k, std::int64_t, int) {
    if (k < tables) {
      assembly_->tables[tables - 1 - k]->reverse(values_.data(), arrays, gradient);
    } else {
      for (const auto& step : assembly_->copies) step->reverse(values_.data(), arrays, gradient);
    }
  });
}

}  // namespace adatom::gnn
