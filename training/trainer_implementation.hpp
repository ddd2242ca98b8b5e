// SPDX-License-Identifier: MIT
// The parts of a run, for the files that share it: trainer.cpp (from the configuration to the end), trainer_steps.cpp (batches, steps, evaluation),
// trainer_checkpoint.cpp (what is written to the output folder). Not for users of Trainer.
#pragma once
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "training/optimizer.hpp"
#include "training/trainer.hpp"

namespace adatom::training {

inline double* data(torch::Tensor& t) { return t.data_ptr<double>(); }

struct Trainer::Implementation {
  Implementation(const RunConfig& run, std::shared_ptr<Communicator> processes);

  RunConfig config;
  std::shared_ptr<Communicator> communicator;
  RunData data;
  std::vector<std::string> head_names;  // of the model
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

  // Construction
  void make_model();
  void freeze(std::vector<ParameterBlock>& blocks);

  // Steps
  using Body = std::function<void(const TrainingBatch& batch, int head, const LabelCounts& counts)>;
  /// Runs body over the configurations of a global batch that belong to this process, one head at a time; counts are those of the global batch.
  void for_heads(const FrameSet& set, const std::vector<std::size_t>& chosen, const Body& body);
  int model_head(const std::string& name) const;
  Errors evaluate(const FrameSet& set, const torch::Tensor& with);
  double train_step(const std::vector<std::size_t>& chosen);
  torch::Tensor evaluated() const { return config.ema_decay > 0 ? ema : optimizer->evaluated(parameters); }
  void schedule(double valid_loss);
  void begin_stage_two();
  bool any(bool here);   ///< whether it is true on any process, on all of them
  bool out_of_time();    ///< all processes see the clock of the first
  void start_clock();
  double seconds() const;  ///< since the run began, over all its parts

  // What is written
  std::filesystem::path folder() const { return config.output; }
  std::filesystem::path checkpoint() const { return folder() / "checkpoint.safetensors"; }
  void log(const nlohmann::json& event);
  nlohmann::json state() const;
  void save_checkpoint();
  void load_checkpoint();
  void save_model();

 private:
  TrainingBatch batch_;
  double started_ = 0;
};

}  // namespace adatom::training
