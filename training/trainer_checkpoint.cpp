// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "adatom/elements.hpp"
#include "gnn/brief.hpp"
#include "potential/atomic_file.hpp"
#include "training/trainer_implementation.hpp"

namespace adatom::training {

using nlohmann::json;

/// Before anything is read or computed: can results be written? A new run begins a new log.
void Trainer::Implementation::prepare_output(bool resume) {
  if (communicator->rank() != 0) return;
  std::error_code error;
  std::filesystem::create_directories(folder(), error);
  if (error || !std::filesystem::is_directory(folder()))
    throw std::runtime_error("cannot make the output folder '" + folder().string() + "': " + (error ? error.message() : "a file of this name is there") +
                             "; set 'output' to a folder that you may write to");
  const AtomicFile probe(checkpoint());  // throws where no file can be written
  lock = std::make_unique<FolderLock>(folder());
  if (!resume) std::ofstream(folder() / "log.jsonl");
}

void Trainer::Implementation::log(const json& event) {
  if (communicator->rank() != 0) return;
  const std::filesystem::path file = folder() / "log.jsonl";
  errno = 0;
  std::ofstream out(file, std::ios::app);
  out << event.dump() << "\n" << std::flush;
  if (!out)
    throw std::runtime_error("cannot write '" + file.string() + "': " + std::strerror(errno) + "; free some space, then go on with the checkpoint beside it");
}

ModelFile Trainer::Implementation::model_file() const {
  ModelFile file = model->file();
  if (!holds) return file;
  const double* is_trained = trained.data_ptr<double>();
  for (const ParameterBlock& b : model->blocks())
    for (std::size_t k = 0; k < b.size; ++k)
      if (is_trained[b.offset + k] == 0.0) file.tensors.at(b.name).data[k] = original.tensors.at(b.name).data[k];
  return file;
}

json Trainer::Implementation::state() const {
  return {{"epoch", epoch},
          {"step", step},
          {"steps_of_epoch", steps_of_epoch},
          {"train_loss", train_loss},
          {"learning_rate", learning_rate},
          {"best_loss", std::isfinite(best_loss) ? json(best_loss) : json()},
          {"plateau_loss", std::isfinite(plateau_loss) ? json(plateau_loss) : json()},
          {"plateau_epochs", plateau_epochs},
          {"epochs_without_better", epochs_without_better},
          {"stage_two", stage_two},
          {"seconds", seconds()},
          {"best_errors", kept_errors}};
}

namespace {

/// For a model, which others read: of an absolute path the file and its folder; where they lie on this machine concerns nobody, and hashes say what they are.
json without_places(json value) {
  if (value.is_structured())
    for (json& item : value) item = without_places(std::move(item));
  if (!value.is_string()) return value;
  const std::filesystem::path path = value.get<std::string>();
  return path.is_absolute() ? json((path.parent_path().filename() / path.filename()).string()) : value;
}

}  // namespace

json Trainer::Implementation::whole_config() const {
  json whole = resolved(config);
  if (!config.model.contains("file")) whole["model"] = resolved_options(config.model);
  return whole;
}

/// The model file's form, with the tensors of the optimiser beside those of the model.
void Trainer::Implementation::save_checkpoint() {
  const auto optimizer_state = optimizer->state();  // together with all processes
  if (communicator->rank() != 0) return;
  ModelFile file = model_file();
  json provenance = json::parse(file.provenance);
  provenance["checkpoint"] = {{"adatom", ADATOM_VERSION}, {"config", whole_config()}, {"data", data.provenance}, {"state", state()}};
  file.provenance = provenance.dump();
  const auto put = [&](const std::string& name, const torch::Tensor& t) {
    gnn::Tensor& to = file.tensors["checkpoint." + name];
    for (const std::int64_t n : t.sizes()) to.shape.push_back(static_cast<std::size_t>(n));
    const torch::Tensor flat = t.contiguous();
    to.data.assign(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
  };
  put("parameters", parameters), put("ema", ema), put("best", kept);
  for (const auto& [name, tensor] : optimizer_state) put("optimizer." + name, tensor);
  write_model(checkpoint(), file);
}

namespace {

/// For messages: files with what is known of them.
std::string list(const json& files) {
  std::string text;
  for (const json& f : files)
    text += (text.empty() ? "" : ", ") + f.at("file").get<std::string>() + " (" +
            (f.contains("configurations") ? f.at("configurations").dump() + " configurations, " : "") + f.at("hash").get<std::string>() + ")";
  return text.empty() ? "nothing" : gnn::shortened(text);
}

/// Those of `files` that are not among `others`; all where that leaves none.
json apart(const json& files, const json& others) {
  json result = json::array();
  for (const json& f : files)
    if (std::none_of(others.begin(), others.end(), [&](const json& other) { return other.at("hash") == f.at("hash"); })) result.push_back(f);
  return result.empty() ? files : result;
}

json without_names(json files) {
  for (json& f : files) f.erase("file");
  return files;
}

/// What is not the same in two models, in words.
std::string difference(const ModelFile& before, const ModelFile& now) {
  const json a = json::parse(before.architecture), b = json::parse(now.architecture), changes = json::diff(a, b);
  if (!changes.empty()) {
    // The shortest path is nearest to an option; normalization_constant follows from others.
    const auto rank = [](const std::string& path) { return path.size() + (path.find("normalization") == path.npos ? 0 : 1000); };
    std::string where = changes.front().at("path");
    for (const json& change : changes)
      if (const std::string path = change.at("path"); rank(path) < rank(where)) where = path;
    const auto value = [at = json::json_pointer(where)](const json& of) { return of.contains(at) ? gnn::brief(of.at(at)) : "absent"; };
    return where.substr(1) + " was " + value(a) + ", now it is " + value(b);
  }
  if (before.heads != now.heads) return "heads were " + gnn::brief(json(before.heads)) + ", now they are " + gnn::brief(json(now.heads));
  return "elements were " + element_names(before.elements) + ", now they are " + element_names(now.elements);
}

}  // namespace

/// A checkpoint goes on with what it was begun with. With other data, say, weights would be tested on what they have seen.
void Trainer::Implementation::require_same_run(const json& then) const {
  for (const char* role : {"train", "valid", "isolated_atoms", "model"}) {
    const json before = then.at("data").value(role, json::array()), now = data.provenance.value(role, json::array());
    if (without_names(before) != without_names(now))
      throw std::runtime_error(checkpoint().string() + " is of a run with other data: " + role + " was " + list(apart(before, now)) + ", now it is " +
                               list(apart(now, before)) +
                               "; start a new run in another output folder (with model.file it can begin with the weights of this one)");
  }
  const json mine = whole_config();
  for (const std::string key :
       {"/seed", "/data/keys", "/data/atomic_energies", "/data/atomic_energy_of", "/training/batch_size", "/training/batch_atoms", "/training/batch_edges",
        "/training/ema_decay", "/loss/shape", "/loss/energy", "/loss/forces", "/loss/stress", "/loss/delta", "/optimizer/learning_rate", "/optimizer/name"}) {
    const json::json_pointer at(key);
    const json before = then.at("config").value(at, json()), now = mine.value(at, json());
    if (before == now || now.is_null()) continue;                           // null: an option that changes nothing now
    const std::string change = json::diff(before, now).front().at("path");  // of a table: the first option that differs
    std::string name = (key + change).substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    const auto value = [at = json::json_pointer(change)](const json& of) { return of.contains(at) ? gnn::brief(of.at(at)) : "absent"; };
    throw std::runtime_error(checkpoint().string() + " is of a run with another configuration: '" + name + "' was " + value(before) + ", now it is " +
                             value(now) + "; set it back, or start a new run in another output folder");
  }
}

void Trainer::Implementation::load_checkpoint() try {
  const ModelFile file = read_model(checkpoint());
  const json provenance = json::parse(file.provenance);
  if (!provenance.contains("checkpoint")) throw std::runtime_error(checkpoint().string() + " is a model, not a checkpoint of a run");
  const json& then = provenance.at("checkpoint");
  const json& s = then.at("state");
  require_same_run(then);
  const ModelFile& mine = original;
  if (file.architecture != mine.architecture || file.elements != mine.elements || file.heads != mine.heads)
    throw std::runtime_error(checkpoint().string() + " is of another architecture than the configuration: its " + difference(file, mine) +
                             "; set it back, or start a new run in another output folder");
  const auto get = [&](const std::string& name, torch::Tensor& t) {
    const auto found = file.tensors.find("checkpoint." + name);
    if (found == file.tensors.end() || found->second.data.size() != static_cast<std::size_t>(t.numel()))
      throw std::runtime_error(checkpoint().string() + " is of another architecture or optimiser than the configuration: 'checkpoint." + name + "' has " +
                               (found == file.tensors.end() ? "no" : std::to_string(found->second.data.size())) + " numbers, expected " +
                               std::to_string(t.numel()) + "; start a new run in another output folder");
    std::copy(found->second.data.begin(), found->second.data.end(), t.data_ptr<double>());
  };
  get("parameters", parameters), get("ema", ema), get("best", kept);
  auto optimizer_state = optimizer->blank_state();
  for (auto& [name, tensor] : optimizer_state) get("optimizer." + name, tensor);
  optimizer->restore(optimizer_state);
  const auto wrong = [&](const std::string& key) {
    throw std::runtime_error(checkpoint().string() + " is damaged: '" + key + "' of its state is " + gnn::brief(s.at(key)) +
                             "; resume from a copy, or start a new run in another output folder");
  };
  const auto number = [&](const std::string& key) {
    const json& value = s.at(key);
    if (!value.is_number() || !std::isfinite(value.get<double>())) wrong(key);
    return value.get<double>();
  };
  const auto count = [&](const std::string& key) {
    if (!s.at(key).is_number_unsigned() || number(key) > 2e9) wrong(key);
    return s.at(key).get<int>();
  };
  epoch = count("epoch"), step = count("step"), steps_of_epoch = count("steps_of_epoch"), train_loss = number("train_loss");
  if (s.at("stage_two")) begin_stage_two();
  learning_rate = number("learning_rate");
  best_loss = s.at("best_loss").is_null() ? INFINITY : number("best_loss");
  plateau_loss = s.at("plateau_loss").is_null() ? INFINITY : number("plateau_loss");
  kept_errors = s.at("best_errors");
  plateau_epochs = count("plateau_epochs"), epochs_without_better = count("epochs_without_better"), seconds_before = number("seconds");
  model->assign(training::data(parameters));
} catch (const json::exception& error) {
  throw std::runtime_error(checkpoint().string() + " is damaged, or from another version (" + gnn::reason(error) +
                           "); resume from a copy, or start a new run in another output folder");
}

void Trainer::Implementation::save_model() {
  model->assign(training::data(kept));
  if (communicator->rank() == 0) {
    ModelFile file = model_file();
    json provenance = json::parse(file.provenance);
    json training = {{"adatom", ADATOM_VERSION},
                     {"seed", config.seed},
                     {"epochs", epoch},
                     {"steps", step},
                     {"seconds", seconds()},
                     {"best_validation_loss", best_loss},
                     {"validation", kept_errors},
                     {"data", data.provenance},
                     {"config", without_places(whole_config())}};
    if (provenance.contains("training")) training["from"] = provenance["training"];  // of the model that this one was fine-tuned from
    provenance["training"] = training;
    file.provenance = provenance.dump();
    write_model(folder() / "model.safetensors", file);
  }
  model->assign(training::data(parameters));
}

}  // namespace adatom::training
