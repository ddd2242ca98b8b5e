// SPDX-License-Identifier: MIT
#include <cmath>
#include <fstream>
#include <stdexcept>

#include "training/trainer_implementation.hpp"

namespace adatom::training {

using nlohmann::json;

void Trainer::Implementation::log(const json& event) {
  if (communicator->rank() != 0) return;
  std::ofstream out(folder() / "log.jsonl", std::ios::app);
  out << event.dump() << "\n";
  if (!out) throw std::runtime_error("cannot write " + (folder() / "log.jsonl").string() + ": is the disk full?");
}

json Trainer::Implementation::state() const {
  return {{"epoch", epoch}, {"step", step}, {"steps_of_epoch", steps_of_epoch}, {"train_loss", train_loss},
          {"learning_rate", learning_rate}, {"best_loss", std::isfinite(best_loss) ? json(best_loss) : json()},
          {"plateau_loss", std::isfinite(plateau_loss) ? json(plateau_loss) : json()}, {"plateau_epochs", plateau_epochs},
          {"epochs_without_better", epochs_without_better}, {"stage_two", stage_two}, {"seconds", seconds()}};
}

/// The model file's form, with the tensors of the optimiser beside those of the model.
void Trainer::Implementation::save_checkpoint() {
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
  for (const auto& [name, tensor] : optimizer->state()) put("optimizer." + name, *tensor);
  write_model(checkpoint(), file);
}

void Trainer::Implementation::load_checkpoint() {
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
  for (auto& [name, tensor] : optimizer->state()) get("optimizer." + name, *tensor);
  epoch = s.at("epoch"), step = s.at("step"), steps_of_epoch = s.at("steps_of_epoch"), train_loss = s.at("train_loss");
  if (s.at("stage_two")) begin_stage_two();
  learning_rate = s.at("learning_rate");
  best_loss = s.at("best_loss").is_null() ? INFINITY : s.at("best_loss").get<double>();
  plateau_loss = s.at("plateau_loss").is_null() ? INFINITY : s.at("plateau_loss").get<double>();
  plateau_epochs = s.at("plateau_epochs"), epochs_without_better = s.at("epochs_without_better"), seconds_before = s.at("seconds");
  model->assign(training::data(parameters));
}

void Trainer::Implementation::save_model() {
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

}  // namespace adatom::training
