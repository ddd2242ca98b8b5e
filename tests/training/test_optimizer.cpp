// SPDX-License-Identifier: MIT
// Optimisers against LibTorch's own, and SOAP on problems whose answer is known.
#include "training/optimizer.hpp"
// LibTorch and Catch2 both have a macro of this name.
#undef CHECK
#include <catch2/catch.hpp>

using namespace adatom::training;

namespace {

torch::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed) {
  return torch::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), torch::TensorOptions(torch::kFloat64));
}

/// Two matrices and a tensor of two matrices.
std::vector<ParameterBlock> some_blocks() {
  return {{"a", {6, 4}, 0, 24, 0, 1.0, true}, {"b", {2, 3, 5}, 24, 30, 24, 1.0, false}, {"c", {7}, 54, 7, 54, 1.0, true}};
}

std::unique_ptr<Optimizer> make(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks) {
  return make_optimizer(options, blocks, std::make_shared<Communicator>());
}

/// Steps until |A (W - W*) B|^2 has fallen by 1e-6; A and B have a condition of 30, their axes are not those of W.
int steps_to_solve(const OptimizerOptions& options) {
  const std::int64_t rows = 12, columns = 8;
  const auto operand = [](std::int64_t n, std::uint64_t seed) {
    const torch::Tensor q = std::get<0>(torch::linalg_qr(random({n, n}, seed)));
    return q.matmul(torch::logspace(0.0, -1.5, n, 10.0, torch::kFloat64).diag()).matmul(q.t());
  };
  const torch::Tensor A = operand(rows, 1), B = operand(columns, 2), goal = random({rows, columns}, 3);
  const auto optimizer = make(options, {{"w", {12, 8}, 0, 96, 0, 1.0, false}});
  torch::Tensor w = torch::zeros({rows * columns}, torch::kFloat64);
  double first = 0.0;
  for (int step = 0; step < 5000; ++step) {
    const torch::Tensor residual = A.matmul(w.view({rows, columns}) - goal).matmul(B);
    const double loss = residual.square().sum().item<double>();
    if (step == 0) first = loss;
    if (loss < 1e-6 * first) return step;
    optimizer->step(w, (2.0 * A.t().matmul(residual).matmul(B.t())).flatten(),
                    options.learning_rate * 0.5 * (1.0 + std::cos(M_PI * std::min(step, 1500) / 1501.0)));
  }
  return 5000;
}

}  // namespace

TEST_CASE("Adam and AdamW are those of LibTorch", "[optimizer]") {
  const bool amsgrad = GENERATE(false, true), decoupled = GENERATE(false, true);
  OptimizerOptions options;
  options.name = decoupled ? "adamw" : "adam";
  options.learning_rate = 0.03, options.weight_decay = 0.2, options.amsgrad = amsgrad;
  const auto blocks = std::vector<ParameterBlock>{{"w", {5, 3}, 0, 15, 0, 1.0, true}};
  const auto own = make(options, blocks);
  torch::Tensor w = random({15}, 4), theirs = w.clone().set_requires_grad(true);
  torch::optim::Adam adam({theirs}, torch::optim::AdamOptions(0.03).weight_decay(0.2).amsgrad(amsgrad));
  torch::optim::AdamW adamw({theirs}, torch::optim::AdamWOptions(0.03).weight_decay(0.2).amsgrad(amsgrad));
  for (std::uint64_t step = 0; step < 20; ++step) {
    const torch::Tensor g = random({15}, 10 + step) * std::exp(-0.1 * static_cast<double>(step));
    own->step(w, g, 0.03);
    theirs.mutable_grad() = g;
    if (decoupled)
      adamw.step();
    else
      adam.step();
    CHECK((w - theirs.detach()).abs().max().item<double>() < 1e-14);
  }
}

TEST_CASE("SOAP solves an ill-conditioned problem whose axes are not those of the tensor in fewer steps than Adam", "[optimizer]") {
  OptimizerOptions soap, adam;
  soap.name = "soap", soap.beta1 = adam.beta1 = 0.95, soap.beta2 = adam.beta2 = 0.95, soap.learning_rate = adam.learning_rate = 0.05;
  adam.amsgrad = false;
  CHECK(2 * steps_to_solve(soap) < steps_to_solve(adam));
}

TEST_CASE("an optimiser goes on from its state with the same bits", "[optimizer]") {
  OptimizerOptions options;
  options.name = GENERATE("adam", "adamw", "schedule_free", "soap");
  options.precondition_every = 3;
  const auto blocks = some_blocks();
  const auto first = make(options, blocks), second = make(options, blocks);
  torch::Tensor w = random({61}, 5), copy;
  for (std::uint64_t step = 0; step < 20; ++step) {
    if (step == 11) {
      copy = w.clone();
      second->restore(first->state());
    }
    const torch::Tensor g = random({61}, 30 + step);
    first->step(w, g, 0.01);
    if (step >= 11) second->step(copy, g, 0.01);
  }
  CHECK(torch::equal(w, copy));
}
