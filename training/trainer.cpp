// SPDX-License-Identifier: MIT
#include "training/trainer.hpp"

#include <algorithm>

#include "datasets/random.hpp"
#include "training/trainer_implementation.hpp"

namespace adatom::training {

using datasets::Frame;
using nlohmann::json;

Trainer::Implementation::Implementation(const RunConfig& run, std::shared_ptr<Communicator> processes)
    : config(run), communicator(processes ? processes : std::make_shared<Communicator>()) {
  start_clock();
  data = read_data(config);
  make_model();
  const auto size = static_cast<std::int64_t>(model->size());
  parameters = torch::zeros({size}, torch::kFloat64);
  model->parameters(training::data(parameters));
  ema = parameters.clone();
  best = parameters.clone();
  gradient = torch::zeros_like(parameters);
  trained = torch::ones_like(parameters);
  std::vector<ParameterBlock> blocks = model->blocks();
  freeze(blocks);
  optimizer = make_optimizer(config.optimizer, blocks);
  loss = Loss(config.loss);
  learning_rate = config.optimizer.learning_rate;
  std::filesystem::create_directories(folder());
}

void Trainer::Implementation::make_model() {
  ModelFile file;
  if (config.model.contains("file")) {
    file = read_model(config.model.at("file").get<std::string>());
  } else {
    const double cutoff = resolved_options(config.model).at("r_max");
    file = new_model(config.model, describe_data(data, config.data, cutoff), config.seed);
  }
  head_names = file.heads;
  for (const std::string& head : data.heads)
    if (std::find(file.heads.begin(), file.heads.end(), head) == file.heads.end() && !(head == "Default" && file.heads.size() == 1))
      throw std::invalid_argument("the data has configurations of head '" + head + "', which the model does not have");
  model = std::make_unique<TrainingModel>(file, data.elements, config.precision, config.threads);
}

void Trainer::Implementation::freeze(std::vector<ParameterBlock>& blocks) {
  for (const std::string& prefix : config.frozen) {
    bool found = false;
    for (ParameterBlock& b : blocks)
      if (b.name.rfind(prefix, 0) == 0) {
        found = true;
        b.decays = false;
        trained.narrow(0, static_cast<std::int64_t>(b.offset), static_cast<std::int64_t>(b.size)).zero_();
      }
    if (!found) throw std::invalid_argument("'frozen' has '" + prefix + "', with which the name of no trained tensor begins");
  }
}

Trainer::Trainer(const RunConfig& config, std::shared_ptr<Communicator> communicator, bool resume)
    : p_(std::make_unique<Implementation>(config, std::move(communicator))) {
  Implementation& p = *p_;
  if (resume && std::filesystem::exists(p.checkpoint())) p.load_checkpoint();
  p.log({{"event", "start"}, {"config", resolved(config)}, {"parameters", p.model->size()}, {"train", p.data.train.frames.size()},
         {"valid", p.data.valid.frames.size()}, {"epoch", p.epoch}});
}

Trainer::~Trainer() = default;

void Trainer::run(const std::function<bool(int, int, int)>& progress, const std::function<bool(const EpochReport&)>& report) {
  Implementation& p = *p_;
  const RunConfig& config = p.config;
  const std::size_t n = p.data.train.frames.size(), size = config.batch_size;
  const int steps = static_cast<int>((n + size - 1) / size);
  bool go_on = true;
  while (go_on && p.epoch < config.epochs) {
    if (config.stage_two.start > 0 && p.epoch >= config.stage_two.start && !p.stage_two) p.begin_stage_two();
    const std::vector<std::size_t> order = datasets::shuffled(n, datasets::scatter(config.seed) + static_cast<std::uint64_t>(p.epoch));
    while (p.steps_of_epoch < steps) {
      const std::size_t first = p.steps_of_epoch * size, last = std::min(first + size, n);
      p.train_loss += p.train_step({order.begin() + static_cast<std::ptrdiff_t>(first), order.begin() + static_cast<std::ptrdiff_t>(last)});
      ++p.steps_of_epoch;
      if (p.any(progress && !progress(p.epoch, p.steps_of_epoch, steps))) {
        p.save_checkpoint();
        p.log({{"event", "interrupted"}, {"epoch", p.epoch}, {"steps_of_epoch", p.steps_of_epoch}, {"seconds", p.seconds()}});
        return;
      }
      if (p.out_of_time()) {
        go_on = false;
        break;
      }
    }
    const torch::Tensor with = p.evaluated();
    EpochReport r;
    r.epoch = p.epoch, r.epochs = config.epochs, r.learning_rate = p.learning_rate, r.train_loss = p.train_loss / p.steps_of_epoch;
    r.valid = p.evaluate(p.data.valid, with);
    p.model->assign(training::data(p.parameters));
    r.best = r.valid.loss < p.best_loss;
    if (r.best) {
      p.best_loss = r.valid.loss;
      p.best.copy_(with);
      p.epochs_without_better = 0;
    } else {
      ++p.epochs_without_better;
    }
    p.schedule(r.valid.loss);
    ++p.epoch;
    p.steps_of_epoch = 0, p.train_loss = 0;
    r.seconds = p.seconds();
    json event = describe(r);
    event["event"] = "epoch";
    p.log(event);
    if (p.any(report && !report(r))) go_on = false;
    if (config.stop_patience > 0 && p.epochs_without_better >= config.stop_patience) go_on = false;
    if (p.epoch % config.checkpoint_every == 0 || !go_on || p.epoch == config.epochs) p.save_checkpoint();
  }
  p.save_model();
  p.log({{"event", "end"}, {"epoch", p.epoch}, {"seconds", p.seconds()}, {"best_validation_loss", p.best_loss}});
}

json describe(const EpochReport& r) {
  return {{"epoch", r.epoch}, {"epochs", r.epochs}, {"learning_rate", r.learning_rate}, {"train_loss", r.train_loss}, {"seconds", r.seconds},
          {"valid", describe(r.valid)}, {"best", r.best}};
}

Errors Trainer::test(const FrameSet& frames) {
  Implementation& p = *p_;
  FrameSet copy = frames;
  for (Frame& f : copy.frames)
    if (f.head.empty()) f.head = "Default";
  const Errors e = p.evaluate(copy, p.best);
  p.model->assign(training::data(p.parameters));
  return e;
}

const TrainingModel& Trainer::model() const { return *p_->model; }
std::string Trainer::model_path() const { return (p_->folder() / "model.safetensors").string(); }

}  // namespace adatom::training
