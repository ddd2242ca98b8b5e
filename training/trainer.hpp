// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "training/communicator.hpp"
#include "training/config.hpp"
#include "training/errors.hpp"
#include "training/frames.hpp"
#include "training/model.hpp"
#include "training/parity.hpp"

namespace adatom::training {

/// What is told of an epoch.
struct EpochReport {
  int epoch = 0, epochs = 0;                              ///< which, counted from 1; of how many
  double learning_rate = 0, train_loss = 0, seconds = 0;  ///< seconds: since the run began, over all its parts
  Errors valid;
  bool best = false;  ///< a better validation loss than any before
};
nlohmann::json describe(const EpochReport& report);  ///< for logs

/// A run of training: from a configuration and data to a model file.
///
/// In the folder `output`: log.jsonl (one JSON object per event), checkpoint.safetensors, and at the end model.safetensors (the weights with the
/// best validation loss, or as RunConfig::keep says). All files appear whole.
class Trainer {
 public:
  /// Continues from the checkpoint in the output folder if `resume`. Throws as the parts that it is made of, and where another run works in the folder.
  Trainer(const RunConfig& config, std::shared_ptr<Communicator> communicator, bool resume);
  ~Trainer();

  /// Trains to the end, and writes the model; returns true then. `progress` is called after each step with the epoch, counted from 1, the number of its
  /// steps done and of all its steps: if it returns false the run stops there with a checkpoint, and returns false. `report` is called after each epoch; if it returns false the run ends.
  bool run(const std::function<bool(int epoch, int step, int steps)>& progress, const std::function<bool(const EpochReport&)>& report);

  /// Errors of the kept weights on the configurations of file k of data.test.
  Errors test(std::size_t k);
  /// Labels and predictions of the kept weights on a sample of the validation set (k = -1) or of file k of data.test, and the size of the whole set.
  /// Of all processes, on all of them.
  std::pair<Parity, std::size_t> parity(int k, std::size_t most_atoms);
  nlohmann::json kept_errors() const;                ///< of the kept weights on the validation set; null before the first epoch
  const std::vector<std::string>& warnings() const;  ///< what looks wrong with the data but may be right

  /// Of a model that was read, by head, on a sample of the training configurations before the first epoch: `configurations`,
  /// `energy_per_atom_mean_error` (prediction minus label) and `energy_per_atom_rmse`, eV/atom.
  const nlohmann::json& begins() const;
  void close();  ///< lets another run use the output folder; the destructor does too

  const TrainingModel& model() const;
  std::string model_path() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> p_;
};

}  // namespace adatom::training
