// SPDX-License-Identifier: MIT
#include "training/model.hpp"

#include <omp.h>

#include <algorithm>
#include <limits>

namespace adatom::training {

TrainingModel::TrainingModel(const ModelFile& file, const std::vector<int>& elements, TrainingPrecision precision, Device device, int threads, int knots)
    : file_(file), threads_(threads > 0 ? threads : omp_get_max_threads()) {
  gnn::NetworkOptions options;
  options.elements = file.elements;
  options.heads = static_cast<int>(file.heads.size());
  options.knots = knots;
  if (precision == TrainingPrecision::single) options.largest = std::numeric_limits<float>::max();
  for (std::size_t k = 0; k < file.elements.size(); ++k)
    if (std::find(elements.begin(), elements.end(), file.elements[k]) != elements.end()) {
      options.keep.push_back(static_cast<int>(k));
      elements_.push_back(file.elements[k]);
    }
  for (int h = 0; h < options.heads; ++h) {
    options.head = h;
    Head head;
    head.network = std::make_unique<gnn::TrainableNetwork>(file.architecture, file.tensors, options);
    const bool single = precision == TrainingPrecision::single;
    const auto make = [&](gnn::Scalar scalar) {
      auto made = device == Device::cuda ? gnn::make_cuda_evaluator(head.network->network(), scalar) : gnn::make_cpu_evaluator(head.network->network(), scalar);
      made->set_threads(threads);
      return made;
    };
    head.plain = make(single ? gnn::Scalar::float32 : gnn::Scalar::float64);
    head.dual = make(single ? gnn::Scalar::dual32 : gnn::Scalar::dual64);
    networks_.push_back(std::move(head));
  }
  values_ = networks_.front().network->values();
  const auto roles = tensor_roles(file);
  for (const auto& t : networks_.front().network->tensors()) {
    const TensorRole& role = roles.at(t.name);
    if (!role.trainable) continue;
    blocks_.push_back({t.name, t.shape, size_, t.size, t.offset, role.scale, role.decays});
    size_ += t.size;
  }
}

void TrainingModel::parameters(double* to) const {
  for (const ParameterBlock& b : blocks_)
    for (std::size_t k = 0; k < b.size; ++k) to[b.offset + k] = values_[b.tensor + k] / b.scale;
}

void TrainingModel::assign(const double* parameters) {
  for (const ParameterBlock& b : blocks_)
    for (std::size_t k = 0; k < b.size; ++k) values_[b.tensor + k] = parameters[b.offset + k] * b.scale;
  for (Head& h : networks_) {
    h.network->assign(values_.data(), threads_);
    h.plain_stale = h.dual_stale = true;
  }
}

gnn::Evaluator& TrainingModel::plain(Head& head) {
  if (head.plain_stale) head.plain->refresh();
  head.plain_stale = false;
  return *head.plain;
}

ErrorSums TrainingModel::evaluate(const TrainingBatch& batch, int head, Loss& loss, const LabelCounts& counts) {
  bool stresses = false;
  for (std::size_t k = 0; k < batch.size(); ++k) stresses = stresses || batch.frame(k).stress;
  predict(plain(networks_[head]), batch, stresses, predictions_);
  return loss(batch, predictions_, counts, nullptr);
}

ErrorSums TrainingModel::gradient(const TrainingBatch& batch, int head, Loss& loss, const LabelCounts& counts, double* gradient) {
  Head& h = networks_[head];
  predict(plain(h), batch, loss.needs_strains(batch), predictions_);
  gnn::LossGradient derivatives;
  const ErrorSums sums = loss(batch, predictions_, counts, &derivatives);
  if (h.dual_stale) h.dual->refresh();
  h.dual_stale = false;
  gnn::ArrayGradients arrays;
  h.dual->weight_gradient(batch.graph(), derivatives, arrays);
  std::vector<double> of_tensors(values_.size(), 0.0);
  h.network->add_gradient(std::move(arrays), of_tensors.data(), threads_);
  for (const ParameterBlock& b : blocks_)
    for (std::size_t k = 0; k < b.size; ++k) gradient[b.offset + k] += b.scale * of_tensors[b.tensor + k];
  return sums;
}

ModelFile TrainingModel::file() const {
  ModelFile file = file_;
  for (const auto& t : networks_.front().network->tensors())
    std::copy_n(values_.begin() + static_cast<std::ptrdiff_t>(t.offset), t.size, file.tensors.at(t.name).data.begin());
  return file;
}

std::size_t TrainingModel::workspace_bytes() const {
  std::size_t bytes = 0;
  for (const Head& h : networks_) bytes += h.plain->counters().workspace_bytes + h.dual->counters().workspace_bytes;
  return bytes;
}

}  // namespace adatom::training
