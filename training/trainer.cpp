// SPDX-License-Identifier: MIT
#include "training/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "datasets/random.hpp"
#include "training/optimizer.hpp"

namespace adatom::training {
namespace {

using datasets::Frame;
using nlohmann::json;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double* data(torch::Tensor& t) { return t.data_ptr<double>(); }
torch::Tensor zeros(std::size_t n) { return torch::zeros({static_cast<std::int64_t>(n)}, torch::kFloat64); }

json describe(const Errors& e) {
  return {{"loss", e.loss}, {"energy_rmse", e.energy_rmse}, {"energy_mae", e.energy_mae}, {"energy_per_atom_rmse", e.energy_per_atom_rmse},
          {"energy_per_atom_mae", e.energy_per_atom_mae}, {"force_rmse", e.force_rmse}, {"force_mae", e.force_mae}, {"stress_rmse", e.stress_rmse}};
}

}  // namespace

Errors errors(const ErrorSums& s) {
  const auto root = [](double square, double n) { return n > 0 ? std::sqrt(square / n) : 0.0; };
  const auto mean = [](double sum, double n) { return n > 0 ? sum / n : 0.0; };
  Errors e;
  e.loss = s.loss;
  e.energy_rmse = root(s.energy_square, s.energies), e.energy_mae = mean(s.energy_absolute, s.energies);
  e.energy_per_atom_rmse = root(s.energy_per_atom_square, s.energies), e.energy_per_atom_mae = mean(s.energy_per_atom_absolute, s.energies);
  e.force_rmse = root(s.force_square, s.forces), e.force_mae = mean(s.force_absolute, s.forces);
  e.stress_rmse = root(s.stress_square, s.stresses);
  return e;
}

struct Trainer::Implementation {
  RunConfig config;
  std::shared_ptr<Communicator> communicator;
  RunData data;
  std::unique_ptr<TrainingModel> model;
  std::unique_ptr<Optimizer> optimizer;
  Loss loss{{}};
  torch::Tensor parameters, ema, best, gradient, trained;  // trained: 1 for parameters that are not frozen

  // Where the run is; all of it is in a checkpoint.
  int epoch = 0, step = 0;          // next epoch; steps so far
  int steps_of_epoch = 0;           // done of an epoch that was interrupted
  double train_loss = 0;            // sum over those
  double learning_rate = 0, best_loss = INFINITY, plateau_loss = INFINITY, seconds_before = 0;
  int plateau_epochs = 0, epochs_without_better = 0;
  bool stage_two = false;
  double started = now();

  /// All processes see the clock of the first.
  bool out_of_time() {
    if (config.seconds <= 0) return false;
    double over = seconds() > config.seconds;
    communicator->broadcast(&over, 1);
    return over > 0;
  }
  /// Whether it is true on any process, on all of them.
  bool any(bool here) {
    double count = here;
    communicator->sum(&count, 1);
    return count > 0;
  }
  double seconds() const { return seconds_before + now() - started; }
  std::filesystem::path folder() const { return config.output; }
  std::filesystem::path checkpoint() const { return folder() / "checkpoint.safetensors"; }

  void log(json event) {
    if (communicator->rank() != 0) return;
    std::ofstream out(folder() / "log.jsonl", std::ios::app);
    out << event.dump() << "\n";
    if (!out) throw std::runtime_error("cannot write " + (folder() / "log.jsonl").string() + ": is the disk full?");
  }

  // ------------------------------------------------------------------------------------------------ batches
  /// Runs body(batch, head, counts) over the configurations of a global batch that belong to this process, one head at a time. If it fails on any process all save
  /// a checkpoint together, and throw.
  template <class Body>
  void for_heads(const FrameSet& set, const std::vector<std::size_t>& chosen, Body body) {
    LabelCounts counts;  // of the global batch: every process knows all labels
    for (const std::size_t k : chosen) {
      const Frame& f = set.frames[k];
      counts.energies += f.energy.has_value();
      counts.force_components += 3.0 * static_cast<double>(f.forces.size());
      counts.stress_components += f.stress ? 9.0 : 0.0;
    }
    std::exception_ptr failure;
    for (std::size_t h = 0; h < data.heads.size() && !failure; ++h) {
      std::vector<const Frame*> mine;
      std::vector<std::size_t> numbers;
      for (std::size_t k = 0; k < chosen.size(); ++k)
        if (static_cast<int>(k) % communicator->size() == communicator->rank() && set.frames[chosen[k]].head == data.heads[h]) {
          mine.push_back(&set.frames[chosen[k]]);
          numbers.push_back(chosen[k]);
        }
      if (mine.empty()) continue;
      TrainingBatch& batch = batch_;
      try {
        batch.assign(mine, model->elements(), model->cutoff(), config.threads);
        body(batch, model_head(data.heads[h]), counts);
      } catch (const NotFinite& error) {
        failure = std::make_exception_ptr(
            std::runtime_error(set.origins[numbers[error.configuration]] + ": " + error.what() + " in epoch " + std::to_string(epoch) + ", step " +
                               std::to_string(step) + "; its labels may be wrong, or the learning rate (now " + std::to_string(learning_rate) +
                               ") too high. The checkpoint before this step is in " + folder().string()));
      } catch (...) {
        failure = std::current_exception();
      }
    }
    if (any(failure != nullptr)) {
      save_checkpoint();
      if (failure) std::rethrow_exception(failure);
      throw std::runtime_error("another process failed in epoch " + std::to_string(epoch) + ", step " + std::to_string(step) + ": its message says why");
    }
  }
  int model_head(const std::string& name) const {
    const auto found = std::find(head_names.begin(), head_names.end(), name);
    return found == head_names.end() ? 0 : static_cast<int>(found - head_names.begin());
  }
  TrainingBatch batch_;
  std::vector<std::string> head_names;  // of the model

  ErrorSums evaluate(const FrameSet& set, const torch::Tensor& with) {
    model->assign(with.data_ptr<double>());
    // Errors are sums; the loss is that of the whole set as one batch.
    LabelCounts all;
    for (const Frame& f : set.frames) {
      all.energies += f.energy.has_value();
      all.force_components += 3.0 * static_cast<double>(f.forces.size());
      all.stress_components += f.stress ? 9.0 : 0.0;
    }
    ErrorSums sums;
    for (std::size_t first = 0; first < set.frames.size(); first += config.valid_batch_size) {
      std::vector<std::size_t> chosen;
      for (std::size_t k = first; k < std::min(first + config.valid_batch_size, set.frames.size()); ++k) chosen.push_back(k);
      for_heads(set, chosen, [&](const TrainingBatch& batch, int head, const LabelCounts&) { sums += model->evaluate(batch, head, loss, all); });
    }
    communicator->sum(reinterpret_cast<double*>(&sums), sizeof sums / sizeof(double));
    return sums;
  }

  // ------------------------------------------------------------------------------------------------ steps
  double train_step(const std::vector<std::size_t>& chosen) {
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
  torch::Tensor evaluated() const { return config.ema_decay > 0 ? ema : optimizer->evaluated(parameters); }

  void schedule(double valid_loss) {
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

  void begin_stage_two() {
    stage_two = true;
    learning_rate = config.stage_two.learning_rate;
    loss.options().energy = config.stage_two.energy;
    loss.options().forces = config.stage_two.forces;
    loss.options().stress = config.stage_two.stress;
    best_loss = plateau_loss = INFINITY;  // of another loss
  }

  // -------------------------------------------------------------------------------------------- checkpoints
  json state() const {
    return {{"epoch", epoch}, {"step", step}, {"steps_of_epoch", steps_of_epoch}, {"train_loss", train_loss},
            {"learning_rate", learning_rate}, {"best_loss", std::isfinite(best_loss) ? json(best_loss) : json()},
            {"plateau_loss", std::isfinite(plateau_loss) ? json(plateau_loss) : json()}, {"plateau_epochs", plateau_epochs},
            {"epochs_without_better", epochs_without_better}, {"stage_two", stage_two}, {"seconds", seconds()}};
  }

  /// The model file's form, with the tensors of the optimiser beside those of the model. All processes call it.
  void save_checkpoint() {
    const auto optimizer_state = optimizer->state();
    if (communicator->rank() != 0) return;
    ModelFile file = model->file();
    json provenance = json::parse(file.provenance);
    provenance["checkpoint"] = {{"config", resolved(config)}, {"state", state()}};
    file.provenance = provenance.dump();
    const auto put = [&](const std::string& name, const torch::Tensor& t) {
      gnn::Tensor& to = file.tensors["checkpoint." + name];
      for (const std::int64_t n : t.sizes()) to.shape.push_back(static_cast<std::size_t>(n));
      const torch::Tensor flat = t.contiguous();
      to.data.assign(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
    };
    put("parameters", parameters), put("ema", ema), put("best", best);
    for (const auto& [name, tensor] : optimizer_state) put("optimizer." + name, tensor);
    write_model(checkpoint(), file);
  }

  void load_checkpoint() {
    const ModelFile file = read_model(checkpoint());
    const json provenance = json::parse(file.provenance);
    if (!provenance.contains("checkpoint")) throw std::runtime_error(checkpoint().string() + " is a model, not a checkpoint of a run");
    const json& s = provenance.at("checkpoint").at("state");
    const auto get = [&](const std::string& name, torch::Tensor& t) {
      const auto found = file.tensors.find("checkpoint." + name);
      if (found == file.tensors.end() || found->second.data.size() != static_cast<std::size_t>(t.numel()))
        throw std::runtime_error(checkpoint().string() + " is of another architecture or optimiser than the configuration: 'checkpoint." + name +
                                 "' has " + (found == file.tensors.end() ? "no" : std::to_string(found->second.data.size())) + " numbers, expected " +
                                 std::to_string(t.numel()) + "; start in another output folder, or without resuming");
      std::copy(found->second.data.begin(), found->second.data.end(), t.data_ptr<double>());
    };
    get("parameters", parameters), get("ema", ema), get("best", best);
    auto optimizer_state = optimizer->state();
    for (auto& [name, tensor] : optimizer_state) get("optimizer." + name, tensor);
    optimizer->restore(optimizer_state);
    epoch = s.at("epoch"), step = s.at("step"), steps_of_epoch = s.at("steps_of_epoch"), train_loss = s.at("train_loss");
    if (s.at("stage_two")) begin_stage_two();
    learning_rate = s.at("learning_rate");
    best_loss = s.at("best_loss").is_null() ? INFINITY : s.at("best_loss").get<double>();
    plateau_loss = s.at("plateau_loss").is_null() ? INFINITY : s.at("plateau_loss").get<double>();
    plateau_epochs = s.at("plateau_epochs"), epochs_without_better = s.at("epochs_without_better"), seconds_before = s.at("seconds");
    model->assign(training::data(parameters));
  }

  void save_model() {
    model->assign(training::data(best));
    if (communicator->rank() == 0) {
      ModelFile file = model->file();
      json provenance = json::parse(file.provenance);
      provenance["training"] = {{"config", resolved(config)}, {"train_hash", data.train.hash}, {"valid_hash", data.valid.hash}, {"seed", config.seed},
                                {"epochs", epoch}, {"steps", step}, {"seconds", seconds()}, {"best_validation_loss", best_loss}};
      file.provenance = provenance.dump();
      write_model(folder() / "model.safetensors", file);
    }
    model->assign(training::data(parameters));
  }
};

Trainer::Trainer(const RunConfig& config, std::shared_ptr<Communicator> communicator, bool resume) : p_(std::make_unique<Implementation>()) {
  Implementation& p = *p_;
  p.config = config;
  p.communicator = communicator ? communicator : std::make_shared<Communicator>();
  p.data = read_data(config);
  ModelFile file;
  if (config.model.contains("file")) {
    file = read_model(config.model.at("file").get<std::string>());
  } else {
    const double cutoff = resolved_options(config.model).at("r_max");
    file = new_model(config.model, describe_data(p.data, config.data, cutoff), config.seed);
  }
  p.head_names = file.heads;
  for (const std::string& head : p.data.heads)
    if (std::find(file.heads.begin(), file.heads.end(), head) == file.heads.end() && !(head == "Default" && file.heads.size() == 1))
      throw std::invalid_argument("the data has configurations of head '" + head + "', which the model does not have");
  p.model = std::make_unique<TrainingModel>(file, p.data.elements, config.precision, config.threads);
  p.parameters = zeros(p.model->size());
  p.model->parameters(training::data(p.parameters));
  p.ema = p.parameters.clone();
  p.best = p.parameters.clone();
  p.gradient = zeros(p.model->size());
  p.trained = torch::ones_like(p.parameters);
  std::vector<ParameterBlock> blocks = p.model->blocks();
  for (const std::string& prefix : config.frozen) {
    bool found = false;
    for (ParameterBlock& b : blocks)
      if (b.name.rfind(prefix, 0) == 0) {
        found = true;
        b.decays = false;
        p.trained.narrow(0, static_cast<std::int64_t>(b.offset), static_cast<std::int64_t>(b.size)).zero_();
      }
    if (!found) throw std::invalid_argument("'frozen' has '" + prefix + "', with which the name of no trained tensor begins");
  }
  p.optimizer = make_optimizer(config.optimizer, blocks, p.communicator);
  p.loss = Loss(config.loss);
  p.learning_rate = config.optimizer.learning_rate;
  std::filesystem::create_directories(p.folder());
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
    r.valid = errors(p.evaluate(p.data.valid, with));
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
    p.log({{"event", "epoch"}, {"epoch", r.epoch}, {"learning_rate", r.learning_rate}, {"train_loss", r.train_loss}, {"seconds", r.seconds},
           {"valid", describe(r.valid)}, {"best", r.best}});
    if (p.any(report && !report(r))) go_on = false;
    if (config.stop_patience > 0 && p.epochs_without_better >= config.stop_patience) go_on = false;
    if (p.epoch % config.checkpoint_every == 0 || !go_on || p.epoch == config.epochs) p.save_checkpoint();
  }
  p.save_model();
  p.log({{"event", "end"}, {"epoch", p.epoch}, {"seconds", p.seconds()}, {"best_validation_loss", p.best_loss}});
}

Errors Trainer::test(const FrameSet& frames) {
  Implementation& p = *p_;
  FrameSet copy = frames;
  for (Frame& f : copy.frames)
    if (f.head.empty()) f.head = "Default";
  const Errors e = errors(p.evaluate(copy, p.best));
  p.model->assign(training::data(p.parameters));
  return e;
}

const TrainingModel& Trainer::model() const { return *p_->model; }
std::string Trainer::model_path() const { return (p_->folder() / "model.safetensors").string(); }

}  // namespace adatom::training
