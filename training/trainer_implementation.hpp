// SPDX-License-Identifier: MIT
// The parts of a run, for the files that share it: trainer.cpp (from the configuration to the end), trainer_steps.cpp (batches, steps, evaluation),
// trainer_checkpoint.cpp (what is written to the output folder). Not for users of Trainer.
#pragma once
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "training/folder_lock.hpp"
#include "training/optimizer.hpp"
#include "training/trainer.hpp"

namespace adatom::training {

inline double* data(torch::Tensor& t) { return t.data_ptr<double>(); }

struct Trainer::Implementation {
  Implementation(const RunConfig& run, std::shared_ptr<Communicator> processes, bool resume);

  RunConfig config;
  std::unique_ptr<FolderLock> lock;  // of the output folder, by the first process
  std::shared_ptr<Communicator> communicator;
  RunData data;
  std::vector<std::string> head_names;  // of the model
  std::unique_ptr<TrainingModel> model;
  std::unique_ptr<Optimizer> optimizer;
  Loss loss{{}};
  torch::Tensor parameters, ema, kept, gradient;  // kept: what the run is for
  torch::Tensor trained, held;                    // trained: 1, or 0 for parameters that stay; held: their values, and 0
  bool holds = false;                             // whether there are such parameters
  ModelFile original;                             // before training

  // Where the run is; all of it is in a checkpoint.
  int epoch = 0, step = 0;  // next epoch; steps so far
  int steps_of_epoch = 0;   // done of an epoch that was interrupted
  double train_loss = 0;    // sum over those
  double learning_rate = 0, best_loss = INFINITY, plateau_loss = INFINITY, seconds_before = 0;
  int plateau_epochs = 0, epochs_without_better = 0;
  bool stage_two = false;
  nlohmann::json kept_errors;                        // of the validation set, of the kept weights
  nlohmann::json begins = nlohmann::json::object();  // of a model that was read: errors before the first epoch, by head

  // Construction
  void prepare_output(bool resume);
  void make_model();
  std::vector<double> fingerprints();
  std::vector<double> energy_errors(const std::vector<std::size_t>& chosen);
  std::vector<std::string> heads_with_new_energies() const;
  bool fits_energies(const std::string& head) const;
  void take_atomic_energies(ModelFile& file);
  void fit_atomic_energies();  ///< of all processes
  void compare_energies();     ///< of all processes
  void count_edges(double cutoff);
  void freeze(std::vector<ParameterBlock>& blocks);
  void hold_absent_elements(const std::vector<ParameterBlock>& blocks);

  // Steps
  /// The configurations of one head in a global batch that belong to this process.
  struct Part {
    const TrainingBatch& batch;
    int head;
    const LabelCounts& counts;                ///< of the global batch
    const std::vector<std::size_t>& numbers;  ///< of the configurations in their set
  };
  void for_parts(const FrameSet& set, const std::vector<std::size_t>& chosen, const std::function<void(const Part& part)>& body);
  void for_parts_of_all(const FrameSet& set, const std::vector<std::size_t>& chosen, const std::function<void(const Part& part)>& body);
  int model_head(const std::string& name) const;
  Errors evaluate(const FrameSet& set, const torch::Tensor& with);
  Parity parity(const FrameSet& set, std::size_t most_atoms);  ///< of the kept weights
  double train_step(const std::vector<std::size_t>& chosen);
  torch::Tensor evaluated() const { return config.ema_decay > 0 ? ema : optimizer->evaluated(parameters); }
  void schedule(double valid_loss);
  void begin_stage_two();
  /// Runs body, which must not fail between two communications. If it fails on any process, throws on all of them with the reason, after all ran `before`.
  void together(const std::function<void()>& body, const std::function<void()>& before = {});
  bool any(bool here);  ///< whether it is true on any process, on all of them
  bool out_of_patience() const { return config.stop_patience > 0 && epochs_without_better >= config.stop_patience; }
  double time_used();               ///< part of training.seconds, 0 without a limit; all processes see the clock of the first
  void follow_cosine(double done);  ///< `done`: part of the run
  void start_clock();
  double seconds() const;  ///< since the run began, over all its parts

  // What is written
  std::filesystem::path folder() const { return config.output; }
  std::filesystem::path checkpoint() const { return folder() / "checkpoint.safetensors"; }
  void log(const nlohmann::json& event);
  ModelFile model_file() const;  ///< the model with its present weights; those that stay have the bits that they had
  nlohmann::json state() const;
  nlohmann::json whole_config() const;  ///< with the options of a new model that have defaults
  void require_same_run(const nlohmann::json& then) const;
  void save_checkpoint();  ///< all processes together
  void load_checkpoint();
  void save_model();

 private:
  TrainingBatch batch_;
  std::vector<datasets::Frame> frames_;  // of a batch that is read from the disk
  double started_ = 0;
};

}  // namespace adatom::training
