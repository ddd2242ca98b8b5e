// SPDX-License-Identifier: MIT
#include "training/optimizer.hpp"

#include <cmath>
#include <stdexcept>

#include "training/soap.hpp"

namespace adatom::training {

torch::Tensor Optimizer::zeros(std::int64_t n) { return torch::zeros({n}, torch::kFloat64); }

std::int64_t Optimizer::count(const std::vector<ParameterBlock>& blocks) {
  return blocks.empty() ? 0 : static_cast<std::int64_t>(blocks.back().offset + blocks.back().size);
}

namespace {

/// Adam (arXiv 1412.6980) with AMSGrad (arXiv 1904.09237); `decoupled`: AdamW (arXiv 1711.05101). As torch.optim.
class Adam final : public Optimizer {
 public:
  Adam(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks, bool decoupled)
      : Optimizer(options, blocks), decoupled_(decoupled), m_(zeros(count(blocks))), v_(zeros(count(blocks))), largest_(zeros(count(blocks))) {
    state_["first_moment"] = &m_;
    state_["second_moment"] = &v_;
    if (options.amsgrad) state_["largest_second_moment"] = &largest_;
  }

  void step(torch::Tensor& p, const torch::Tensor& gradient, double rate) override {
    const double t = steps_.add_(1.0).item<double>();
    torch::Tensor g = gradient;
    if (options_.weight_decay != 0.0) {
      if (decoupled_)
        p.sub_(decay_ * p, rate);
      else
        g = gradient + decay_ * p;
    }
    m_.mul_(options_.beta1).add_(g, 1.0 - options_.beta1);
    v_.mul_(options_.beta2).addcmul_(g, g, 1.0 - options_.beta2);
    if (options_.amsgrad) torch::maximum_out(largest_, largest_, v_);
    const double c1 = 1.0 - std::pow(options_.beta1, t), c2 = 1.0 - std::pow(options_.beta2, t);
    const torch::Tensor denominator = ((options_.amsgrad ? largest_ : v_) / c2).sqrt_().add_(options_.epsilon);
    p.addcdiv_(m_, denominator, -rate / c1);
  }

 private:
  bool decoupled_;
  torch::Tensor m_, v_, largest_;
};

/// Schedule-free AdamW (arXiv 2405.15682): gradients are taken at y = (1 - beta1) z + beta1 x, x is the average of z that models are evaluated with.
class ScheduleFree final : public Optimizer {
 public:
  ScheduleFree(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks)
      : Optimizer(options, blocks), v_(zeros(count(blocks))), z_(zeros(count(blocks))), weight_(zeros(1)), largest_rate_(zeros(1)) {
    state_["second_moment"] = &v_;
    state_["z"] = &z_;
    state_["weight_sum"] = &weight_;
    state_["largest_rate"] = &largest_rate_;
  }

  void step(torch::Tensor& y, const torch::Tensor& gradient, double rate) override {
    if (steps_.item<double>() == 0.0) z_.copy_(y);
    const double t = steps_.add_(1.0).item<double>(), b = options_.beta1;
    v_.mul_(options_.beta2).addcmul_(gradient, gradient, 1.0 - options_.beta2);
    const torch::Tensor denominator = (v_ / (1.0 - std::pow(options_.beta2, t))).sqrt_().add_(options_.epsilon);
    const torch::Tensor direction = gradient / denominator + decay_ * y;
    const double largest = std::max(largest_rate_.item<double>(), rate), weight = largest * largest, sum = weight_.item<double>() + weight;
    largest_rate_.fill_(largest);
    weight_.fill_(sum);
    const double c = sum > 0 ? weight / sum : 0.0;
    torch::Tensor x = evaluated(y);
    z_.sub_(direction, rate);
    x.mul_(1.0 - c).add_(z_, c);
    y.copy_(z_ * (1.0 - b) + x * b);
  }

  torch::Tensor evaluated(const torch::Tensor& y) const override {
    if (weight_.item<double>() == 0.0) return y.clone();
    return (y - z_ * (1.0 - options_.beta1)) / options_.beta1;
  }

 private:
  torch::Tensor v_, z_, weight_, largest_rate_;
};

}  // namespace

Optimizer::Optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks)
    : options_(options), decay_(zeros(count(blocks))), steps_(zeros(1)) {
  for (const ParameterBlock& b : blocks)
    if (b.decays) decay_.narrow(0, static_cast<std::int64_t>(b.offset), static_cast<std::int64_t>(b.size)).fill_(options.weight_decay);
  state_["steps"] = &steps_;
}

std::map<std::string, torch::Tensor> Optimizer::state() {
  std::map<std::string, torch::Tensor> all;
  for (const auto& [name, tensor] : state_) all[name] = tensor->clone();
  return all;
}

std::map<std::string, torch::Tensor> Optimizer::blank_state() const {
  std::map<std::string, torch::Tensor> all;
  for (const auto& [name, tensor] : state_) all[name] = torch::zeros_like(*tensor);
  return all;
}

void Optimizer::restore(const std::map<std::string, torch::Tensor>& state) {
  for (auto& [name, tensor] : state_) tensor->copy_(state.at(name));
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks,
                                          std::shared_ptr<Communicator> communicator) {
  if (options.name == "adam") return std::make_unique<Adam>(options, blocks, false);
  if (options.name == "adamw") return std::make_unique<Adam>(options, blocks, true);
  if (options.name == "schedule_free") return std::make_unique<ScheduleFree>(options, blocks);
  if (options.name == "soap") return make_soap(options, blocks, std::move(communicator));
  throw std::invalid_argument("optimizer.name is '" + options.name + "', expected adam, adamw, schedule_free or soap");
}

}  // namespace adatom::training
