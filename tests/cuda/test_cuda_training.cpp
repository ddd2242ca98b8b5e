// SPDX-License-Identifier: MIT
// A run of training on the CUDA backend gives the losses of one on the CPU.
#include "training/trainer.hpp"
// LibTorch and Catch2 both have a macro of this name.
#undef CHECK
#include <catch2/catch.hpp>

using namespace adatom::training;
using nlohmann::json;

namespace {

struct Run {
  std::vector<double> train, valid;
};

Run run(const std::string& device, const json& model) {
  const std::string data = ADATOM_TEST_DATA, folder = ADATOM_TEST_OUTPUT "/" + model.at("family").get<std::string>() + "-" + device;
  const json config = {
      {"model", model},
      {"output", folder},
      {"threads", 1},
      {"seed", 3},
      {"precision", "double"},
      {"device", device},
      {"data", {{"train", {data + "/3bpa_sample.extxyz"}}, {"isolated_atoms", data + "/3bpa_isolated_atoms.extxyz"}, {"valid_fraction", 0.8}}},
      {"loss", {{"energy", 15.0}, {"forces", 1000.0}}},
      {"optimizer", {{"name", "adam"}}},
      {"training", {{"epochs", 2}, {"batch_size", 3}}},
  };
  Run losses;
  Trainer trainer(parse_config(config), nullptr, false);
  trainer.run({}, [&](const EpochReport& epoch) {
    losses.train.push_back(epoch.train_loss);
    losses.valid.push_back(epoch.valid.loss);
    return true;
  });
  return losses;
}

}  // namespace

TEST_CASE("a run of training has the losses of the CPU") {
  for (const json& model : {json{{"family", "mace"}, {"channels", 16}, {"max_L", 1}, {"l_max", 2}, {"correlation", 2}, {"r_max", 4.0}, {"radial_mlp", {16}}},
                            json{{"family", "nequip"}, {"channels", 16}, {"l_max", 1}, {"layers", 2}, {"r_max", 3.5}, {"radial_mlp", {16}}}}) {
    INFO(model.dump());
    const Run cpu = run("cpu", model), cuda = run("cuda", model);
    REQUIRE(cpu.train.size() == 2);
    REQUIRE(cuda.train.size() == cpu.train.size());
    CHECK(cpu.train[1] < cpu.train[0]);
    for (std::size_t k = 0; k < cpu.train.size(); ++k) {
      CHECK(cuda.train[k] == Approx(cpu.train[k]).epsilon(1e-9));
      CHECK(cuda.valid[k] == Approx(cpu.valid[k]).epsilon(1e-9));
    }
  }
}
