// SPDX-License-Identifier: MIT
#include "training/trainer.hpp"

#include <algorithm>
#include <set>

#include "adatom/elements.hpp"
#include "datasets/xxhash.hpp"
#include "training/data_checks.hpp"
#include "training/epoch_plan.hpp"
#include "training/heads.hpp"
#include "training/trainer_implementation.hpp"

namespace adatom::training {

using nlohmann::json;

Trainer::Implementation::Implementation(const RunConfig& run, std::shared_ptr<Communicator> processes, bool resume)
    : config(run), communicator(processes ? processes : std::make_shared<Communicator>()) {
  start_clock();
  together([&] {
    prepare_output(resume);
    data = read_data(config);
    make_model();
  });
  together([&, all = fingerprints()] {
    if (all.front() != all[communicator->rank()])
      throw std::runtime_error("this process reads other data than process 0: are the files the same on all machines?");
  });
  if (config.model.contains("file")) {
    fit_atomic_energies();
    compare_energies();
  }
  const auto size = static_cast<std::int64_t>(model->size());
  parameters = torch::zeros({size}, torch::kFloat64);
  model->parameters(training::data(parameters));
  ema = parameters.clone();
  kept = parameters.clone();
  gradient = torch::zeros_like(parameters);
  trained = torch::ones_like(parameters);
  std::vector<ParameterBlock> blocks = model->blocks();
  freeze(blocks);
  hold_absent_elements(blocks);
  if (trained.sum().item<double>() == 0)
    throw std::invalid_argument("'frozen' holds all " + std::to_string(size) + " parameters that data.train could change, so that nothing would be trained");
  held = parameters * (1.0 - trained);
  holds = (trained == 0.0).any().item<bool>();
  optimizer = make_optimizer(config.optimizer, blocks, communicator);
  loss = Loss(config.loss);
  learning_rate = config.optimizer.learning_rate;
  together([&] {
    if (!resume || !std::filesystem::exists(checkpoint())) return;
    load_checkpoint();
    if (epoch < config.epochs && steps_of_epoch > EpochPlan(data.train, config, epoch).steps())
      throw std::runtime_error(checkpoint().string() + " is damaged: 'steps_of_epoch' of its state is " + std::to_string(steps_of_epoch) +
                               ", more than an epoch has; start a new run in another output folder");
  });
}

/// What each process has read, as a number.
std::vector<double> Trainer::Implementation::fingerprints() {
  std::vector<double> all(communicator->size(), 0.0);
  const std::string text = data.provenance.dump();
  all[communicator->rank()] = static_cast<double>(datasets::xxhash64(text.data(), text.size()) >> 12);  // a double holds 52 bits
  communicator->sum(all.data(), all.size());
  return all;
}

void Trainer::Implementation::make_model() {
  ModelFile file;
  if (config.model.contains("file")) {
    const std::string path = config.model.at("file");
    file = read_model(path);
    if (json::parse(file.provenance).contains("checkpoint"))
      throw std::invalid_argument(path + " is the checkpoint of a run of training, expected a model, such as the model.safetensors of that run");
    if (!file.uncertainty.empty())
      data.warnings.push_back(path +
                              " has detectors of uncertainty, which belong to its weights: the model of this run has none until `adatom calibrate` adds them");
    file.uncertainty.clear();
    file.detectors.clear();
    data.provenance["model"] = json::array({json{{"file", std::filesystem::path(path).filename().string()}, {"hash", datasets::file_hash(path)}}});
    add_heads(file, config.model.value("heads", std::map<std::string, std::string>()));
    for (const int z : data.elements)
      if (std::find(file.elements.begin(), file.elements.end(), z) == file.elements.end())
        throw std::invalid_argument("the data has " + element_symbol(z) + ", which " + path + " does not know; it has " + element_names(file.elements));
    head_names = file.heads;
    take_atomic_energies(file);
    count_edges(file.cutoff);
  } else {
    count_edges(resolved_options(config.model).at("r_max"));
    file = new_model(config.model, describe_data(data, config.data), config.seed);
  }
  head_names = file.heads;
  for (const std::string& head : data.heads) model_head(head);
  original = file;
  model = std::make_unique<TrainingModel>(file, data.elements, config.precision, config.device, config.threads);
}

void Trainer::Implementation::count_edges(double cutoff) {
  data.train.count_edges(cutoff, config.threads);
  data.valid.count_edges(cutoff, config.threads);
  for (FrameSet& set : data.tests) set.count_edges(cutoff, config.threads);
  check_edges(data.train, cutoff);
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

/// Weights of elements that the training configurations do not have keep their values; without this, weight decay would wear them away.
void Trainer::Implementation::hold_absent_elements(const std::vector<ParameterBlock>& blocks) {
  std::set<int> present;
  for (std::size_t h = 0; h < data.train.heads().size(); ++h) present.insert(data.train.elements(h).begin(), data.train.elements(h).end());
  const std::size_t n = original.elements.size();
  for (const ParameterBlock& b : blocks) {
    std::size_t axis = 0;
    if (b.name == "embedding")
      axis = b.shape.size() - 2;
    else if (b.name.find(".contraction.") == b.name.npos && b.name.find(".skip.") == b.name.npos)
      continue;
    if (b.shape.at(axis) != n) continue;  // the same weights for all elements
    std::size_t row = 1;
    for (std::size_t k = axis + 1; k < b.shape.size(); ++k) row *= b.shape[k];
    for (std::size_t at = 0; at < b.size; at += row) {
      if (!present.count(original.elements[at / row % n])) trained.narrow(0, static_cast<std::int64_t>(b.offset + at), static_cast<std::int64_t>(row)).zero_();
    }
  }
}

Trainer::Trainer(const RunConfig& config, std::shared_ptr<Communicator> communicator, bool resume)
    : p_(std::make_unique<Implementation>(config, std::move(communicator), resume)) {
  Implementation& p = *p_;
  p.together([&] {
    for (const std::string& warning : p.data.warnings) p.log({{"event", "warning"}, {"message", warning}});
    p.log({{"event", "start"},
           {"config", p.whole_config()},
           {"data", p.data.provenance},
           {"parameters", p.model->size()},
           {"train", p.data.train.size()},
           {"valid", p.data.valid.size()},
           {"begins", p.begins},
           {"epochs_done", p.epoch}});
  });
}

Trainer::~Trainer() = default;

bool Trainer::run(const std::function<bool(int, int, int)>& progress, const std::function<bool(const EpochReport&)>& report) {
  Implementation& p = *p_;
  const RunConfig& config = p.config;
  bool go_on = !p.out_of_patience();  // of a run that is resumed after it had ended
  while (go_on && p.epoch < config.epochs) {
    if (config.stage_two.start > 0 && p.epoch >= config.stage_two.start && !p.stage_two) p.begin_stage_two();
    const EpochPlan plan(p.data.train, config, p.epoch);
    while (p.steps_of_epoch < plan.steps()) {
      p.train_loss += p.train_step(plan.batch(p.steps_of_epoch));
      ++p.steps_of_epoch;
      if (p.any(progress && !progress(p.epoch + 1, p.steps_of_epoch, plan.steps()))) {
        p.together([&] {
          p.save_checkpoint();
          p.log({{"event", "interrupted"}, {"epoch", p.epoch + 1}, {"steps_of_epoch", p.steps_of_epoch}, {"seconds", p.seconds()}});
        });
        return false;
      }
      if (const double used = p.time_used(); used > 1) {
        go_on = false;
        break;
      } else if (used > static_cast<double>(p.epoch) / config.epochs) {
        p.follow_cosine(used);
      }
    }
    const torch::Tensor with = p.evaluated();
    EpochReport r;
    r.epoch = p.epoch + 1, r.epochs = config.epochs, r.learning_rate = p.learning_rate, r.train_loss = p.train_loss / p.steps_of_epoch;
    r.valid = p.evaluate(p.data.valid, with);
    p.model->assign(training::data(p.parameters));
    r.best = r.valid.loss < p.best_loss;
    p.epochs_without_better = r.best ? 0 : p.epochs_without_better + 1;
    if (r.best) p.best_loss = r.valid.loss;
    if (r.best || (config.keep == "last" && std::isfinite(r.valid.loss))) {
      p.kept_errors = describe(r.valid);
      p.kept.copy_(with);
    }
    p.schedule(r.valid.loss);
    ++p.epoch;
    p.steps_of_epoch = 0, p.train_loss = 0;
    r.seconds = p.seconds();
    json event = describe(r);
    event["event"] = "epoch";
    p.together([&] { p.log(event); }, [&] { p.save_checkpoint(); });
    if (p.any(report && !report(r))) go_on = false;
    if (p.out_of_patience()) {
      if (config.stage_two.start > 0 && !p.stage_two)
        p.begin_stage_two();  // its turn comes earlier
      else
        go_on = false;
    }
    if (p.epoch % config.checkpoint_every == 0 || !go_on || p.epoch == config.epochs) p.together([&] { p.save_checkpoint(); });
  }
  p.together([&] {
    p.save_model();
    p.log({{"event", "end"}, {"epochs_done", p.epoch}, {"seconds", p.seconds()}, {"best_validation_loss", p.best_loss}});
  });
  return true;
}

json describe(const EpochReport& r) {
  return {{"epoch", r.epoch},           {"epochs", r.epochs}, {"learning_rate", r.learning_rate}, {"train_loss", r.train_loss}, {"seconds", r.seconds},
          {"valid", describe(r.valid)}, {"best", r.best}};
}

Errors Trainer::test(std::size_t k) {
  Implementation& p = *p_;
  const Errors e = p.evaluate(p.data.tests.at(k), p.kept);
  p.model->assign(training::data(p.parameters));
  return e;
}

std::pair<Parity, std::size_t> Trainer::parity(int k, std::size_t most_atoms) {
  const FrameSet& set = k < 0 ? p_->data.valid : p_->data.tests.at(k);
  return {p_->parity(set, most_atoms), set.size()};
}

json Trainer::kept_errors() const { return p_->kept_errors; }
const TrainingModel& Trainer::model() const { return *p_->model; }
const std::vector<std::string>& Trainer::warnings() const { return p_->data.warnings; }
const json& Trainer::begins() const { return p_->begins; }
void Trainer::close() { p_->lock.reset(); }
std::string Trainer::model_path() const { return (p_->folder() / "model.safetensors").string(); }

}  // namespace adatom::training
