// SPDX-License-Identifier: MIT
#include "training/config.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

#include "gnn/brief.hpp"
#include "training/architecture.hpp"

namespace adatom::training {
namespace {

using nlohmann::json;

std::string where_it_belongs(const std::string& table, const std::string& key);

/// Binds the keys of one table to values; the same description reads and writes.
class Table {
 public:
  Table(const json* from, json* to, std::string name) : from_(from), to_(to), name_(std::move(name)) {
    if (from_ && !from_->is_object()) throw std::invalid_argument("'" + name_ + "' is " + gnn::brief(*from_) + ", expected a table");
  }

  template <class T>
  void bind(const std::string& key, T& value, const std::function<std::string(const T&)>& complaint = {}) {
    keys_.insert(key);
    if (from_ && from_->contains(key)) {
      try {
        check_kind<T>(from_->at(key));
        value = from_->at(key).get<T>();
      } catch (const json::exception&) {
        throw std::invalid_argument("'" + full(key) + "' is " + gnn::brief(from_->at(key)) + ", expected " + kind<T>());
      }
      if (complaint)
        if (const std::string what = complaint(value); !what.empty())
          throw std::invalid_argument("'" + full(key) + "' is " + gnn::brief(from_->at(key)) + ", expected " + what);
    }
    if (to_) (*to_)[key] = value;
  }
  template <class E>
  void choose(const std::string& key, E& value, const std::vector<std::pair<std::string, E>>& choices) {
    std::string text, all;
    for (const auto& [name, e] : choices) {
      if (e == value) text = name;
      all += (all.empty() ? "" : ", ") + name;
    }
    bind<std::string>(key, text, [&](const std::string& s) {
      for (const auto& [name, e] : choices)
        if (name == s) return value = e, std::string();
      return "one of " + all;
    });
  }
  void table(const std::string& key, const std::function<void(Table&)>& body) {
    keys_.insert(key);
    const json empty = json::object();
    const json* from = from_ ? from_->contains(key) ? &from_->at(key) : &empty : nullptr;
    json made = json::object();
    Table inner(from, to_ ? &made : nullptr, full(key));
    body(inner);
    inner.finish();
    if (to_) (*to_)[key] = made;
  }
  bool reads() const { return from_; }
  bool has(const std::string& key) const { return from_ && from_->contains(key); }
  void finish() const {
    if (!from_) return;
    std::string known;
    for (const std::string& k : keys_) known += (known.empty() ? "" : ", ") + k;
    for (const auto& [key, value] : from_->items())
      if (!keys_.count(key)) throw std::invalid_argument("unknown key '" + full(key) + "'" + where_it_belongs(name_, key) + "; known are " + known);
  }

 private:
  std::string full(const std::string& key) const { return name_.empty() ? key : name_ + "." + key; }
  template <class T>
  static void check_kind(const json& value) {  // nlohmann converts numbers to each other and to booleans
    bool fits = true;
    if constexpr (std::is_same_v<T, bool>)
      fits = value.is_boolean();
    else if constexpr (std::is_integral_v<T>)
      fits = in_range<T>(value);
    else if constexpr (std::is_floating_point_v<T>)
      fits = value.is_number() && std::isfinite(value.get<double>());
    if (!fits) throw json::type_error::create(302, "kind", nullptr);
  }
  template <class T>
  static bool in_range(const json& value) {  // nlohmann cuts off the digits that an int has no room for
    if (!value.is_number_integer()) return false;
    return value.is_number_unsigned() ? std::in_range<T>(value.get<std::uint64_t>()) : std::in_range<T>(value.get<std::int64_t>());
  }
  template <class T>
  static std::string kind() {
    if constexpr (std::is_same_v<T, bool>) return "true or false";
    if constexpr (std::is_same_v<T, std::uint64_t>) return "a whole number from 0";
    if constexpr (std::is_same_v<T, int>) return "a whole number of at most " + std::to_string(std::numeric_limits<int>::max());
    if constexpr (std::is_floating_point_v<T>) return "a number";
    if constexpr (std::is_same_v<T, std::string>) return "a text";
    if constexpr (std::is_same_v<T, std::vector<std::string>>) return "a list of texts";
    return "a table of numbers";
  }

  const json* from_;
  json* to_;
  std::string name_;
  std::set<std::string> keys_;
};

std::string positive(const double& x) { return x > 0 ? "" : "a positive number"; }
std::string not_negative(const double& x) { return x >= 0 ? "" : "zero or more"; }
std::string fraction(const double& x) { return x >= 0 && x < 1 ? "" : "a number from 0 to below 1"; }
std::string at_least_one(const int& x) { return x >= 1 ? "" : "1 or more"; }
std::string whole(const int& x) { return x >= 0 ? "" : "0 or more"; }

void describe(Table& t, RunConfig& c) {
  t.bind("model", c.model);
  t.bind("seed", c.seed);
  t.choose<TrainingPrecision>("precision", c.precision, {{"single", TrainingPrecision::single}, {"double", TrainingPrecision::full}});
  t.choose<Device>("device", c.device, {{"cpu", Device::cpu}, {"cuda", Device::cuda}});
  t.bind<int>("threads", c.threads, whole);
  t.bind("output", c.output);
  t.bind("frozen", c.frozen);
  t.table("data", [&](Table& d) {
    d.bind("train", c.data.train);
    d.bind("valid", c.data.valid);
    d.bind("test", c.data.test);
    d.bind<double>("valid_fraction", c.data.valid_fraction, fraction);
    d.bind<std::string>("atomic_energies", c.data.atomic_energies, [](const std::string& s) {
      return s == "auto" || s == "isolated" || s == "least_squares" || s == "zero" || s == "given" || s == "model"
                 ? ""
                 : "auto, isolated, least_squares, zero, given or model";
    });
    d.bind("isolated_atoms", c.data.isolated_atoms);
    d.bind("atomic_energy_of", c.data.atomic_energy_of);
    d.table("keys", [&](Table& k) {
      datasets::LabelKeys& keys = c.data.keys;
      k.bind("energy", keys.energy), k.bind("forces", keys.forces), k.bind("stress", keys.stress), k.bind("virial", keys.virial);
      k.bind("config_type", keys.config_type), k.bind("head", keys.head), k.bind("weight", keys.weight);
      for (const char* label : {"energy", "forces", "stress", "virial"})
        if (k.has(label)) keys.named.insert(label);
    });
  });
  t.table("loss", [&](Table& l) {
    l.choose<LossShape>("shape", c.loss.shape,
                        {{"l2", LossShape::l2}, {"l1", LossShape::l1}, {"huber", LossShape::huber}, {"universal", LossShape::universal}});
    l.bind<double>("energy", c.loss.energy, not_negative);
    l.bind<double>("forces", c.loss.forces, not_negative);
    l.bind<double>("stress", c.loss.stress, not_negative);
    l.bind<double>("delta", c.loss.delta, positive);
  });
  t.table("optimizer", [&](Table& o) {
    o.bind<std::string>("name", c.optimizer.name, [](const std::string& s) {
      return s == "adam" || s == "adamw" || s == "schedule_free" || s == "soap" ? "" : "adam, adamw, schedule_free or soap";
    });
    o.bind<double>("learning_rate", c.optimizer.learning_rate, positive);
    o.bind<double>("beta1", c.optimizer.beta1, fraction);
    o.bind<double>("beta2", c.optimizer.beta2, fraction);
    o.bind<double>("epsilon", c.optimizer.epsilon, positive);
    o.bind<double>("weight_decay", c.optimizer.weight_decay, not_negative);
    o.bind("amsgrad", c.optimizer.amsgrad);
    o.bind<int>("precondition_every", c.optimizer.precondition_every, at_least_one);
    o.bind<int>("largest_dimension", c.optimizer.largest_dimension, at_least_one);
  });
  t.table("schedule", [&](Table& s) {
    s.bind<std::string>("type", c.schedule.type, [](const std::string& x) {
      return x == "plateau" || x == "exponential" || x == "cosine" || x == "constant" ? "" : "plateau, exponential, cosine or constant";
    });
    s.bind<double>("factor", c.schedule.factor, [](const double& x) { return x > 0 && x <= 1 ? "" : "a number above 0, at most 1"; });
    s.bind<int>("patience", c.schedule.patience, at_least_one);
    s.bind<int>("warmup_steps", c.schedule.warmup_steps, whole);
    s.bind<double>("smallest", c.schedule.smallest, not_negative);
  });
  t.table("stage_two", [&](Table& s) {
    s.bind<int>("start", c.stage_two.start, whole);
    s.bind<double>("learning_rate", c.stage_two.learning_rate, positive);
    s.bind<double>("energy", c.stage_two.energy, not_negative);
    s.bind<double>("forces", c.stage_two.forces, not_negative);
    s.bind<double>("stress", c.stage_two.stress, not_negative);
  });
  t.table("training", [&](Table& s) {
    s.bind<int>("epochs", c.epochs, at_least_one);
    s.bind<int>("batch_atoms", c.batch_atoms, whole);
    s.bind<int>("batch_edges", c.batch_edges, whole);
    if (s.reads() && !s.has("batch_size") && (c.batch_atoms > 0 || c.batch_edges > 0)) c.batch_size = 0;
    s.bind<int>("batch_size", c.batch_size, whole);
    s.bind<int>("valid_batch_size", c.valid_batch_size, at_least_one);
    s.bind<double>("ema_decay", c.ema_decay, fraction);
    s.bind<double>("clip_gradient", c.clip_gradient, not_negative);
    s.bind<double>("seconds", c.seconds, not_negative);
    s.bind<std::string>("keep", c.keep, [](const std::string& x) { return x == "best" || x == "last" ? "" : "best or last"; });
    s.bind<int>("stop_patience", c.stop_patience, whole);
    s.bind<int>("checkpoint_every", c.checkpoint_every, at_least_one);
  });
}

json all_options(const RunConfig& config) {
  RunConfig copy = config;
  json document = json::object();
  Table table(nullptr, &document, "");
  describe(table, copy);
  return document;
}

/// What users of other codes call a key, and what it is here.
const std::map<std::string, std::string> other_names = {{"training.patience", "training.stop_patience, or schedule.patience for the learning rate"},
                                                        {"training.lr", "optimizer.learning_rate"},
                                                        {"optimizer.lr", "optimizer.learning_rate"},
                                                        {"training.max_epochs", "training.epochs"},
                                                        {"training.max_num_epochs", "training.epochs"},
                                                        {"training.ema", "training.ema_decay"},
                                                        {"training.optimizer", "optimizer.name"},
                                                        {"training.scheduler", "schedule.type"},
                                                        {"training.swa", "stage_two.start"},
                                                        {"data.energy_key", "data.keys.energy"},
                                                        {"data.forces_key", "data.keys.forces"},
                                                        {"data.E0s", "data.atomic_energies"}};

/// Adds the names of all keys of a document whose last part is `key`.
void find_key(const json& document, const std::string& key, const std::string& table, std::vector<std::string>& found) {
  for (const auto& [name, value] : document.items()) {
    const std::string full = table.empty() ? name : table + "." + name;
    if (name == key) found.push_back(full);
    if (value.is_object()) find_key(value, key, full, found);
  }
}

/// For a key that its table does not know: where it is known, in words; "" if nowhere.
std::string where_it_belongs(const std::string& table, const std::string& key) {
  if (const auto other = other_names.find(table + "." + key); other != other_names.end()) return ": it is " + other->second;
  json document = all_options(RunConfig());
  document["model"] = json::object();
  std::vector<std::string> found;
  find_key(document, key, "", found);
  for (const char* family : {"mace", "nequip"})
    if (table != "model" && found.empty()) find_key(resolved_options({{"family", family}}), key, "model", found);
  std::string text;
  for (const std::string& name : found) {
    const std::size_t dot = name.rfind('.');
    text += (text.empty() ? ": '" + key + "' belongs to " : " or ") + (dot == name.npos ? "the top level" : "[" + name.substr(0, dot) + "]");
  }
  return text;
}

/// Options of a new model: those that are keys of other tables are told so.
void check_model(const json& model) {
  try {
    resolved_options(model);
  } catch (const std::invalid_argument& error) {
    const std::string text = error.what();
    for (const auto& [key, value] : model.items())
      if (text.find("model: " + key + " = ") == 0 && text.find("no such option") != text.npos)
        if (const std::string where = where_it_belongs("model", key); !where.empty()) throw std::invalid_argument("unknown key 'model." + key + "'" + where);
    throw;
  }
}

/// Options that change nothing beside the others, by their place in a document, and why.
std::vector<std::pair<json::json_pointer, std::string>> idle_options(const RunConfig& config) {
  std::vector<std::pair<json::json_pointer, std::string>> found;
  const auto idle = [&](bool is, const std::string& because, const char* table, std::initializer_list<const char*> keys) {
    if (!is) return;
    for (const char* key : keys) found.emplace_back(json::json_pointer() / std::string(table) / std::string(key), because);
  };
  idle(config.loss.shape == LossShape::l2, "loss.shape is l2", "loss", {"delta"});
  idle(config.loss.shape == LossShape::l1, "loss.shape is l1", "loss", {"delta"});
  const std::string& optimizer = config.optimizer.name;
  idle(optimizer != "adam" && optimizer != "adamw", "optimizer.name is " + optimizer, "optimizer", {"amsgrad"});
  idle(optimizer != "soap", "optimizer.name is " + optimizer, "optimizer", {"precondition_every", "largest_dimension"});
  const std::string &schedule = config.schedule.type, type = "schedule.type is " + schedule;
  idle(schedule != "plateau", type, "schedule", {"patience"});
  idle(schedule != "plateau" && schedule != "exponential", type, "schedule", {"factor"});
  idle(schedule == "constant", type, "schedule", {"smallest"});
  idle(config.stage_two.start == 0, "stage_two.start is 0, which means no second stage", "stage_two", {"learning_rate", "energy", "forces", "stress"});
  return found;
}

/// As users write it.
std::string dotted(const json::json_pointer& at) {
  std::string name = at.to_string().substr(1);
  std::replace(name.begin(), name.end(), '/', '.');
  return name;
}

}  // namespace

RunConfig parse_config(const json& document) {
  RunConfig config;
  Table table(&document, nullptr, "");
  describe(table, config);
  table.finish();
  if (!config.model.is_object()) throw std::invalid_argument("'model' is missing, expected a table: 'file', or 'family' and its options");
  if (!config.model.contains("file") && !config.model.contains("family"))
    throw std::invalid_argument("'model' has neither 'file' (to go on from a model) nor 'family' (of a new one: mace or nequip)");
  if (config.model.contains("file")) {
    if (config.model.size() > 1 + config.model.count("heads"))
      throw std::invalid_argument("'model' has 'file' and options of a new model: a model that is read keeps its architecture, remove the options or 'file'");
    if (!config.model.at("file").is_string()) throw std::invalid_argument("'model.file' is " + gnn::brief(config.model.at("file")) + ", expected a text");
    const json heads = config.model.value("heads", json::object());
    bool fits = heads.is_object();
    for (const json& from : heads) fits = fits && from.is_string();
    if (!fits) throw std::invalid_argument("'model.heads' is " + gnn::brief(heads) + ", expected a table: for each new head the head that it begins as");
  } else {
    check_model(config.model);
    if (config.data.atomic_energies == "model")
      throw std::invalid_argument("'data.atomic_energies' is \"model\", but there is no 'model.file' whose atomic energies could stay");
  }
  if (config.data.train.empty()) throw std::invalid_argument("'data.train' is empty, expected a list of files");
  if (config.data.atomic_energies == "given" && config.data.atomic_energy_of.empty())
    throw std::invalid_argument("'data.atomic_energies' is \"given\", but 'data.atomic_energy_of' is empty");
  if (!config.data.valid.empty() && config.data.valid_fraction > 0 && document.at("data").contains("valid_fraction"))
    throw std::invalid_argument("'data.valid_fraction' is given beside 'data.valid', whose files validate alone: remove one of the two");
  if (std::count(config.frozen.begin(), config.frozen.end(), ""))
    throw std::invalid_argument("'frozen' has an empty text, with which every name begins: nothing would be trained; name tensors, or remove it");
  if (config.loss.energy + config.loss.forces + config.loss.stress == 0)
    throw std::invalid_argument("'loss.energy', 'loss.forces' and 'loss.stress' are all 0, so that there is nothing to learn from: give one a weight");
  if (const StageTwoOptions& two = config.stage_two; two.start > 0 && two.energy + two.forces + two.stress == 0)
    throw std::invalid_argument("'stage_two.energy', '.forces' and '.stress' are all 0, so that there is nothing to learn from: give one a weight");
  for (const auto& [at, because] : idle_options(config))
    if (document.contains(at)) throw std::invalid_argument("'" + dotted(at) + "' has no effect, since " + because + ": remove it, or change that");
  if (config.batch_size == 0 && config.batch_atoms == 0 && config.batch_edges == 0)
    throw std::invalid_argument("'training.batch_size' is 0, expected 1 or more where there is neither 'training.batch_atoms' nor 'training.batch_edges'");
  if (config.stage_two.start >= config.epochs && config.stage_two.start > 0)
    throw std::invalid_argument("'stage_two.start' is " + std::to_string(config.stage_two.start) + ", expected less than training.epochs, " +
                                std::to_string(config.epochs));
  return config;
}

json resolved(const RunConfig& config) {
  json document = all_options(config);
  // What is left is a configuration that could be run again.
  if (!config.data.valid.empty()) document["data"].erase("valid_fraction");
  for (const auto& [at, because] : idle_options(config)) document.at(at.parent_pointer()).erase(at.back());
  return document;
}

}  // namespace adatom::training
