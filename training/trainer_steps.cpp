// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <exception>
#include <numeric>
#include <stdexcept>

#include "training/errors.hpp"
#include "training/trainer_implementation.hpp"

namespace adatom::training {

using datasets::Frame;

namespace {

LabelCounts count_labels(const FrameSet& set, const std::vector<std::size_t>& chosen) {
  LabelCounts counts;
  for (const std::size_t k : chosen) {
    const FrameInfo& info = set.info(k);
    counts.energies += info.energy;
    counts.force_components += info.forces ? 3.0 * info.atoms : 0.0;
    counts.stress_components += info.stress ? 9.0 : 0.0;
  }
  return counts;
}

std::vector<std::size_t> all_of(const FrameSet& set) {
  std::vector<std::size_t> all(set.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

void Trainer::Implementation::start_clock() { started_ = now(); }
double Trainer::Implementation::seconds() const { return seconds_before + now() - started_; }

double Trainer::Implementation::time_used() {
  if (config.seconds <= 0) return 0;
  double used = seconds() / config.seconds;
  communicator->broadcast(&used, 1);
  return used;
}

bool Trainer::Implementation::any(bool here) {
  double count = here;
  communicator->sum(&count, 1);
  return count > 0;
}

int Trainer::Implementation::model_head(const std::string& name) const {
  if (head_names.size() == 1 && name == "Default") return 0;
  const auto found = std::find(head_names.begin(), head_names.end(), name);
  if (found != head_names.end()) return static_cast<int>(found - head_names.begin());
  std::string names;
  for (const std::string& head : head_names) names += (names.empty() ? "'" : ", '") + head + "'";
  throw std::invalid_argument("the data has configurations of head '" + name + "', which the model does not have; it has " + names +
                              ". model.heads adds heads to a model that is read");
}

void Trainer::Implementation::together(const std::function<void()>& body, const std::function<void()>& before) {
  std::exception_ptr failure;
  std::string reason;
  try {
    body();
  } catch (const std::exception& error) {
    failure = std::current_exception();
    reason = error.what();
  }
  const int rank = communicator->rank(), size = communicator->size();
  std::vector<double> failed(size, 0.0);
  failed[rank] = failure != nullptr;
  communicator->sum(failed.data(), failed.size());
  const int first = static_cast<int>(std::find(failed.begin(), failed.end(), 1.0) - failed.begin());
  if (first == size) return;
  std::string also;
  if (before) {
    try {
      before();
    } catch (const std::exception& error) {
      also = std::string("; nor could a checkpoint be written: ") + error.what();
    }
  }
  // Its reason travels as numbers: the communicator knows nothing else.
  std::vector<double> text(2000, 0.0);
  if (rank == first) std::copy_n(reason.begin(), std::min(reason.size(), text.size()), text.begin());
  communicator->sum(text.data(), text.size());
  if (failure && also.empty()) std::rethrow_exception(failure);
  if (failure) throw std::runtime_error(reason + also);
  reason.assign(text.begin(), std::find(text.begin(), text.end(), 0.0));
  throw std::runtime_error("process " + std::to_string(first) + " of " + std::to_string(size) + ": " + reason);
}

void Trainer::Implementation::for_parts(const FrameSet& set, const std::vector<std::size_t>& chosen, const std::function<void(const Part&)>& body) {
  const LabelCounts counts = count_labels(set, chosen);  // every process knows all labels
  for (std::size_t head = 0; head < set.heads().size(); ++head) {
    std::vector<std::size_t> numbers;
    for (std::size_t k = 0; k < chosen.size(); ++k)
      if (static_cast<int>(k) % communicator->size() == communicator->rank() && set.info(chosen[k]).head == head) numbers.push_back(chosen[k]);
    if (numbers.empty()) continue;
    if (frames_.size() < numbers.size()) frames_.resize(numbers.size());
    std::vector<const Frame*> mine;
    for (std::size_t k = 0; k < numbers.size(); ++k) mine.push_back(&set.get(numbers[k], frames_[k]));
    batch_.assign(mine, model->elements(), model->cutoff(), config.threads);
    try {
      body({batch_, model_head(set.heads()[head]), counts, numbers});
    } catch (const NotFinite& error) {
      throw std::runtime_error(set.origin(numbers[error.configuration]) + ": " + error.what() + " in epoch " + std::to_string(epoch + 1) + ", step " +
                               std::to_string(step + 1) + "; its labels may be wrong, or the learning rate (now " + std::to_string(learning_rate) +
                               ") too high. A checkpoint from before this step is in " + folder().string());
    }
  }
}

void Trainer::Implementation::for_parts_of_all(const FrameSet& set, const std::vector<std::size_t>& chosen, const std::function<void(const Part&)>& body) {
  const std::size_t size = config.valid_batch_size;
  for (std::size_t first = 0; first < chosen.size(); first += size)
    for_parts(set, {chosen.begin() + first, chosen.begin() + std::min(first + size, chosen.size())}, body);
}

Errors Trainer::Implementation::evaluate(const FrameSet& set, const torch::Tensor& with) {
  model->assign(with.data_ptr<double>());
  const std::vector<std::size_t> all = all_of(set);
  const LabelCounts counts = count_labels(set, all);  // errors are sums; the loss is that of the whole set as one batch
  ErrorCollector errors(model->elements(), head_names);
  together(
      [&] {
        for_parts_of_all(set, all, [&](const Part& part) {
          const ErrorSums sums = model->evaluate(part.batch, part.head, loss, counts);
          errors.add(part.batch, model->predictions(), part.head, sums);
        });
      },
      [&] { save_checkpoint(); });
  errors.reduce(*communicator);
  return errors.errors();
}

Parity Trainer::Implementation::parity(const FrameSet& set, std::size_t most_atoms) {
  model->assign(training::data(kept));
  const std::vector<std::size_t> chosen = sample(set, most_atoms);
  const ModelFile& file = original;
  std::vector<std::vector<double>> energies(file.heads.size());  // of isolated atoms, [head][species]
  for (std::size_t head = 0; head < energies.size(); ++head)
    for (std::size_t z = 0; z < file.elements.size(); ++z)
      if (std::count(model->elements().begin(), model->elements().end(), file.elements[z]))
        energies[head].push_back(file.tensors.at("atomic_energies").data[head * file.elements.size() + z]);
  ParityCollector collector(set, chosen, energies, model->elements());
  const LabelCounts counts = count_labels(set, chosen);
  for_parts_of_all(set, chosen, [&](const Part& part) {
    model->evaluate(part.batch, part.head, loss, counts);
    collector.add(part.batch, model->predictions(), part.head, part.numbers);
  });
  collector.reduce(*communicator);
  model->assign(training::data(parameters));
  return collector.parity();
}

double Trainer::Implementation::train_step(const std::vector<std::size_t>& chosen) {
  gradient.zero_();
  double total = 0.0;
  together(
      [&] {
        for_parts(data.train, chosen,
                  [&](const Part& part) { total += model->gradient(part.batch, part.head, loss, part.counts, training::data(gradient)).loss; });
      },
      [&] { save_checkpoint(); });
  communicator->sum(training::data(gradient), model->size());
  communicator->sum(&total, 1);
  gradient.mul_(trained);
  const double norm = gradient.norm().item<double>();
  if (!std::isfinite(norm)) {
    save_checkpoint();
    throw std::runtime_error("the gradient is not finite in epoch " + std::to_string(epoch + 1) + ", step " + std::to_string(step + 1) +
                             ": try a lower learning rate; a checkpoint from before this step is in " + folder().string());
  }
  if (config.clip_gradient > 0 && norm > config.clip_gradient) gradient.mul_(config.clip_gradient / norm);
  const double warm = config.schedule.warmup_steps > 0 ? std::min(1.0, (step + 1.0) / config.schedule.warmup_steps) : 1.0;
  optimizer->step(parameters, gradient, learning_rate * warm);
  if (holds) parameters.mul_(trained).add_(held);
  ++step;
  if (config.ema_decay > 0) {
    // As torch_ema: while few steps are done the average forgets faster.
    const double decay = std::min(config.ema_decay, (1.0 + step) / (10.0 + step));
    ema.mul_(decay).add_(optimizer->evaluated(parameters), 1.0 - decay);
  }
  model->assign(training::data(parameters));
  return total;
}

/// The clock counts where it is ahead of the epochs, so that the rate has fallen when the time is over.
void Trainer::Implementation::follow_cosine(double done) {
  const ScheduleOptions& s = config.schedule;
  if (stage_two || s.type != "cosine") return;
  learning_rate = s.smallest + 0.5 * (config.optimizer.learning_rate - s.smallest) * (1.0 + std::cos(M_PI * std::min(done, 1.0)));
  learning_rate = std::max(learning_rate, s.smallest);
}

void Trainer::Implementation::schedule(double valid_loss) {
  const ScheduleOptions& s = config.schedule;
  if (stage_two || s.type == "constant") return;
  if (s.type == "exponential") learning_rate *= s.factor;
  if (s.type == "cosine") follow_cosine(std::max((epoch + 1.0) / config.epochs, time_used()));
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
  epochs_without_better = plateau_epochs = 0;
}

}  // namespace adatom::training
