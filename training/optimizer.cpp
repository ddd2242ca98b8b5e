// SPDX-License-Identifier: MIT
#include "training/optimizer.hpp"

#include <cmath>
#include <stdexcept>

namespace adatom::training {
namespace {

torch::Tensor zeros(std::int64_t n) { return torch::zeros({n}, torch::kFloat64); }

std::int64_t count(const std::vector<ParameterBlock>& blocks) {
  return blocks.empty() ? 0 : static_cast<std::int64_t>(blocks.back().offset + blocks.back().size);
}

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
    const double warm = options_.warmup_steps > 0 ? std::min(1.0, t / options_.warmup_steps) : 1.0;
    const double now = rate * warm;
    v_.mul_(options_.beta2).addcmul_(gradient, gradient, 1.0 - options_.beta2);
    const torch::Tensor denominator = (v_ / (1.0 - std::pow(options_.beta2, t))).sqrt_().add_(options_.epsilon);
    const torch::Tensor direction = gradient / denominator + decay_ * y;
    const double largest = std::max(largest_rate_.item<double>(), now), weight = largest * largest, sum = weight_.item<double>() + weight;
    largest_rate_.fill_(largest);
    weight_.fill_(sum);
    const double c = sum > 0 ? weight / sum : 0.0;
    torch::Tensor x = evaluated(y);
    z_.sub_(direction, now);
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

/// SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's preconditioners. Every tensor is a matrix [all axes but the last][last axis], or one for each
/// element or head, where the first of three axes counts those; axes longer than `largest_dimension` keep their own basis.
class Soap final : public Optimizer {
 public:
  Soap(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks)
      : Optimizer(options, blocks), m_(zeros(count(blocks))), v_(zeros(count(blocks))) {
    state_["first_moment"] = &m_;
    state_["second_moment"] = &v_;
    for (const ParameterBlock& b : blocks) {
      const std::size_t matrices = b.shape.size() == 3 ? b.shape[0] : 1, columns = b.shape.empty() ? 1 : b.shape.back();
      const std::size_t rows = b.size / matrices / columns;
      for (std::size_t k = 0; k < matrices; ++k) matrices_.push_back(std::make_unique<MatrixState>(options, b.offset + k * rows * columns, rows, columns));
    }
    for (std::size_t k = 0; k < matrices_.size(); ++k) {
      const std::string at = std::to_string(k);
      MatrixState& s = *matrices_[k];
      if (s.left.defined()) state_["left." + at] = &s.left, state_["left_basis." + at] = &s.left_basis;
      if (s.right.defined()) state_["right." + at] = &s.right, state_["right_basis." + at] = &s.right_basis;
    }
  }

  void step(torch::Tensor& p, const torch::Tensor& gradient, double rate) override {
    const double t = steps_.add_(1.0).item<double>();
    if (t == 1.0) {  // the first gradient only sets the bases up
      for (auto& s : matrices_) s->gather(s->of(gradient), 0.0), s->set_basis();
      return;
    }
    const double n = t - 1.0, c1 = 1.0 - std::pow(options_.beta1, n), c2 = 1.0 - std::pow(options_.beta2, n);
    m_.mul_(options_.beta1).add_(gradient, 1.0 - options_.beta1);
    for (auto& s : matrices_) {
      const torch::Tensor g = s->turn(s->of(gradient)), m = s->turn(s->of(m_));
      torch::Tensor v = s->of(v_);
      v.mul_(options_.beta2).addcmul_(g, g, 1.0 - options_.beta2);
      s->of(p).sub_(s->turn_back(m / c1 / ((v / c2).sqrt_().add_(options_.epsilon))), rate);
    }
    if (options_.weight_decay != 0.0) p.sub_(decay_ * p, rate);
    for (auto& s : matrices_) {
      s->gather(s->of(gradient), options_.beta2);
      if (static_cast<std::int64_t>(n) % options_.precondition_every == 0) s->refine_basis(s->of(v_));
    }
  }

 private:
  struct MatrixState {
    std::int64_t offset, rows, columns;
    torch::Tensor left, right, left_basis, right_basis;  // moments of G G^T, G^T G and their eigenvectors; undefined for long axes

    MatrixState(const OptimizerOptions& o, std::size_t at, std::size_t r, std::size_t c)
        : offset(static_cast<std::int64_t>(at)), rows(static_cast<std::int64_t>(r)), columns(static_cast<std::int64_t>(c)) {
      const auto side = [&](std::int64_t n, torch::Tensor& moment, torch::Tensor& basis) {
        if (n <= 1 || n > o.largest_dimension) return;
        moment = torch::zeros({n, n}, torch::kFloat64);
        basis = torch::eye(n, torch::kFloat64);
      };
      side(rows, left, left_basis);
      side(columns, right, right_basis);
    }
    torch::Tensor of(const torch::Tensor& all) const { return all.narrow(0, offset, rows * columns).view({rows, columns}); }
    void gather(const torch::Tensor& g, double beta) {
      if (left.defined()) left.mul_(beta).add_(g.matmul(g.t()), 1.0 - beta);
      if (right.defined()) right.mul_(beta).add_(g.t().matmul(g), 1.0 - beta);
    }
    torch::Tensor turn(torch::Tensor x) const {
      if (left.defined()) x = left_basis.t().matmul(x);
      if (right.defined()) x = x.matmul(right_basis);
      return x;
    }
    torch::Tensor turn_back(torch::Tensor x) const {
      if (left.defined()) x = left_basis.matmul(x);
      if (right.defined()) x = x.matmul(right_basis.t());
      return x;
    }
    static torch::Tensor eigenvectors(const torch::Tensor& moment) {
      const std::int64_t n = moment.size(0);
      const auto [values, vectors] = torch::linalg_eigh(moment + 1e-30 * torch::eye(n, torch::kFloat64));
      return vectors.flip({1}).contiguous();
    }
    void set_basis() {
      if (left.defined()) left_basis.copy_(eigenvectors(left));
      if (right.defined()) right_basis.copy_(eigenvectors(right));
    }
    /// One step of power iteration with the columns sorted by what they estimate; v is sorted with them.
    void refine_basis(torch::Tensor v) {
      const auto refine = [&](const torch::Tensor& moment, torch::Tensor& basis, std::int64_t axis) {
        const torch::Tensor estimate = (basis.t().matmul(moment).matmul(basis)).diagonal();
        const torch::Tensor order = estimate.argsort(-1, true);
        v.copy_(v.index_select(axis, order));
        const auto [q, r] = torch::linalg_qr(moment.matmul(basis.index_select(1, order)));
        basis.copy_(q);
      };
      if (left.defined()) refine(left, left_basis, 0);
      if (right.defined()) refine(right, right_basis, 1);
    }
  };

  torch::Tensor m_, v_;
  std::vector<std::unique_ptr<MatrixState>> matrices_;
};

}  // namespace

Optimizer::Optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks)
    : options_(options), decay_(zeros(count(blocks))), steps_(zeros(1)) {
  for (const ParameterBlock& b : blocks)
    if (b.decays) decay_.narrow(0, static_cast<std::int64_t>(b.offset), static_cast<std::int64_t>(b.size)).fill_(options.weight_decay);
  state_["steps"] = &steps_;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks) {
  if (options.name == "adam") return std::make_unique<Adam>(options, blocks, false);
  if (options.name == "adamw") return std::make_unique<Adam>(options, blocks, true);
  if (options.name == "schedule_free") return std::make_unique<ScheduleFree>(options, blocks);
  if (options.name == "soap") return std::make_unique<Soap>(options, blocks);
  throw std::invalid_argument("optimizer.name is '" + options.name + "', expected adam, adamw, schedule_free or soap");
}

}  // namespace adatom::training
