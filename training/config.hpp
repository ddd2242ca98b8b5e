// SPDX-License-Identifier: MIT
// One run of training as it is configured: docs/training.md describes every key. The command reads TOML and hands it over as JSON.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "datasets/frame_source.hpp"
#include "training/loss.hpp"
#include "training/model.hpp"
#include "training/optimizer_options.hpp"

namespace adatom::training {

struct DataOptions {
  std::vector<std::string> train, valid, test;     ///< extxyz files, training caches, and what `open` opens
  double valid_fraction = 0.1;                     ///< of `train`, where `valid` is empty
  std::string atomic_energies = "auto";            ///< isolated, least_squares, zero, given, auto (docs/training.md)
  std::string isolated_atoms;                      ///< file with isolated atoms; empty: those in `train`
  std::map<std::string, double> atomic_energy_of;  ///< by symbol, instead of the above
  datasets::LabelKeys keys;
  /// Opens files that are neither extxyz nor training caches; null where there is nothing that does. Not part of the configuration's text.
  std::function<std::unique_ptr<datasets::FrameSource>(const std::string& path, const datasets::LabelKeys& keys)> open;
};

struct ScheduleOptions {
  std::string type = "plateau";  ///< plateau, exponential, cosine, constant
  double factor = 0.8;           ///< plateau: of each reduction; exponential: per epoch
  int patience = 50;             ///< plateau: epochs without a better validation loss
  int warmup_steps = 0;          ///< steps in which the learning rate grows to its value
  double smallest = 1e-6;        ///< learning rate below which it does not fall
};

struct StageTwoOptions {
  int start = 0;  ///< epoch; 0: no second stage
  double learning_rate = 1e-3, energy = 1000.0, forces = 100.0, stress = 10.0;
};

struct RunConfig {
  nlohmann::json model;             ///< {"file": ..., "heads": {NEW: OLD}} to go on from, or the options of new_model
  std::vector<std::string> frozen;  ///< beginnings of names of tensors that stay as they are
  DataOptions data;
  LossOptions loss;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  StageTwoOptions stage_two;
  double ema_decay = 0.99;               ///< 0: none
  double clip_gradient = 10.0;           ///< largest norm; 0: none
  int batch_size = 10;                   ///< most configurations of a batch; 0: any number, where another limit is given
  int batch_atoms = 0, batch_edges = 0;  ///< most atoms and edges of a batch; 0: any number
  int valid_batch_size = 32;
  int epochs = 100;
  double seconds = 0.0;       ///< wall-clock after which the run ends as if by itself; 0: no limit
  std::string keep = "best";  ///< weights that the run is for: "best" of the validation loss, or "last"
  int stop_patience = 0;      ///< epochs without a better validation loss; 0: never
  int checkpoint_every = 1;   ///< epochs
  std::uint64_t seed = 1;
  TrainingPrecision precision = TrainingPrecision::single;
  Device device = Device::cpu;
  int threads = 0;
  std::string output = "run";  ///< folder
};

/// Throws std::invalid_argument for keys that are unknown, of the wrong type, out of range or that contradict each other: the message has the key, its
/// value and what is expected.
RunConfig parse_config(const nlohmann::json& json);

/// Everything as it is, defaults included.
nlohmann::json resolved(const RunConfig& config);

}  // namespace adatom::training
