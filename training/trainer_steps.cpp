// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "training/errors.hpp"
#include "training/trainer_implementation.hpp"

namespace adatom::training {

using datasets::Frame;

namespace {

void count(const Frame& f, LabelCounts& counts) {
  counts.energies += f.energy.has_value();
  counts.force_components += 3.0 * static_cast<double>(f.forces.size());
  counts.stress_components += f.stress ? 9.0 : 0.0;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

void Trainer::Implementation::start_clock() { started_ = now(); }
double Trainer::Implementation::seconds() const { return seconds_before + now() - started_; }

bool Trainer::Implementation::out_of_time() {
  if (config.seconds <= 0) return false;
  double over = seconds() > config.seconds;
  communicator->broadcast(&over, 1);
  return over > 0;
}

bool Trainer::Implementation::any(bool here) {
  double count = here;
  communicator->sum(&count, 1);
  return count > 0;
}

int Trainer::Implementation::model_head(const std::string& name) const {
  const auto found = std::find(head_names.begin(), head_names.end(), name);
  return found == head_names.end() ? 0 : static_cast<int>(found - head_names.begin());
}

void Trainer::Implementation::for_heads(const FrameSet& set, const std::vector<std::size_t>& chosen, const Body& body) {
  LabelCounts counts;  // of the global batch: every process knows all labels
  for (const std::size_t k : chosen) count(set.frames[k], counts);
  for (const std::string& head : data.heads) {
    std::vector<const Frame*> mine;
    std::vector<std::size_t> numbers;
    for (std::size_t k = 0; k < chosen.size(); ++k)
      if (static_cast<int>(k) % communicator->size() == communicator->rank() && set.frames[chosen[k]].head == head) {
        mine.push_back(&set.frames[chosen[k]]);
        numbers.push_back(chosen[k]);
      }
    if (mine.empty()) continue;
    batch_.assign(mine, model->elements(), model->cutoff(), config.threads);
    try {
      body(batch_, model_head(head), counts);
    } catch (const NotFinite& error) {
      save_checkpoint();
      throw std::runtime_error(set.origins[numbers[error.configuration]] + ": " + error.what() + " in epoch " + std::to_string(epoch) + ", step " +
                               std::to_string(step) + "; its labels may be wrong, or the learning rate (now " + std::to_string(learning_rate) +
                               ") too high. The checkpoint before this step is in " + folder().string());
    }
  }
}

Errors Trainer::Implementation::evaluate(const FrameSet& set, const torch::Tensor& with) {
  model->assign(with.data_ptr<double>());
  // Errors are sums; the loss is that of the whole set as one batch.
  LabelCounts all;
  for (const Frame& f : set.frames) count(f, all);
  ErrorCollector errors(model->elements(), head_names);
  for (std::size_t first = 0; first < set.frames.size(); first += config.valid_batch_size) {
    std::vector<std::size_t> chosen;
    for (std::size_t k = first; k < std::min(first + config.valid_batch_size, set.frames.size()); ++k) chosen.push_back(k);
    for_heads(set, chosen, [&](const TrainingBatch& batch, int head, const LabelCounts&) {
      const ErrorSums sums = model->evaluate(batch, head, loss, all);
      errors.add(batch, model->predictions(), head, sums);
    });
  }
  errors.reduce(*communicator);
  return errors.errors();
}

double Trainer::Implementation::train_step(const std::vector<std::size_t>& chosen) {
  gradient.zero_();
  double total = 0.0;
  for_heads(data.train, chosen, [&](const TrainingBatch& batch, int head, const LabelCounts& counts) {
    total += model->gradient(batch, head, loss, counts, training::data(gradient)).loss;
  });
  communicator->sum(training::data(gradient), model->size());
  communicator->sum(&total, 1);
  gradient.mul_(trained);
  const double norm = gradient.norm().item<double>();
  if (!std::isfinite(norm)) {
    save_checkpoint();
    throw std::runtime_error("the gradient is not finite in epoch " + std::to_string(epoch) + ", step " + std::to_string(step) +
                             ": try a lower learning rate; the checkpoint before this step is in " + folder().string());
  }
  if (config.clip_gradient > 0 && norm > config.clip_gradient) gradient.mul_(config.clip_gradient / norm);
  const double warm = config.schedule.warmup_steps > 0 ? std::min(1.0, (step + 1.0) / config.schedule.warmup_steps) : 1.0;
  optimizer->step(parameters, gradient, learning_rate * warm);
  ++step;
  if (config.ema_decay > 0) {
    // As torch_ema: while few steps are done the average forgets faster.
    const double decay = std::min(config.ema_decay, (1.0 + step) / (10.0 + step));
    ema.mul_(decay).add_(optimizer->evaluated(parameters), 1.0 - decay);
  }
  model->assign(training::data(parameters));
  return total;
}

void Trainer::Implementation::schedule(double valid_loss) {
  const ScheduleOptions& s = config.schedule;
  if (stage_two || s.type == "constant") return;
  if (s.type == "exponential") learning_rate *= s.factor;
  if (s.type == "cosine")
    learning_rate = s.smallest + 0.5 * (config.optimizer.learning_rate - s.smallest) * (1.0 + std::cos(M_PI * (epoch + 1.0) / config.epochs));
  if (s.type == "plateau") {
    if (valid_loss < plateau_loss * (1.0 - 1e-4))
      plateau_loss = valid_loss, plateau_epochs = 0;
    else if (++plateau_epochs > s.patience)
      learning_rate *= s.factor, plateau_epochs = 0;
  }
  learning_rate = std::max(learning_rate, s.smallest);
}

void Trainer::Implementation::begin_stage_two() {
  stage_two = true;
  learning_rate = config.stage_two.learning_rate;
  loss.options().energy = config.stage_two.energy;
  loss.options().forces = config.stage_two.forces;
  loss.options().stress = config.stage_two.stress;
  best_loss = plateau_loss = INFINITY;  // of another loss
}

}  // namespace adatom::training
