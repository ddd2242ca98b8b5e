// SPDX-License-Identifier: MIT
// Every tensor is a matrix [all axes but the last][last axis], or one for each element or head, where the first of three axes counts those. For a matrix with the
// gradient G, L and R are moving averages of G G^T and G^T G, and Q_L, Q_R their eigenvectors: Adam's second moment is kept of Q_L^T G Q_R. Matrices of one shape are
// worked on together, since most of them are small. Each process owns some of the matrices, moves their parameters, and tells the others.
#include "training/soap.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace adatom::training {
namespace {

// The eigenvectors of a matrix that is singular, as the first averages are, are not defined, and would differ between numbers of processes, which round
// differently. A small part of a fixed diagonal matrix defines the first ones; a small multiple of one keeps power iteration well conditioned, and changes no
// eigenvector.
constexpr double first_diagonal = 1e-1, later_diagonal = 1e-3;
// Directions in which gradients are this small a part of a matrix's root mean square are rounding, which Adam would blow up.
constexpr double noise = 1e-6;

torch::Tensor mean_diagonal(const torch::Tensor& moments) { return moments.diagonal(0, 1, 2).mean(1).view({-1, 1, 1}).add(1e-300); }

/// Eigenvectors of symmetric matrices, [matrices][n][n], those of large eigenvalues first.
torch::Tensor eigenvectors(const torch::Tensor& moments) {
  const std::int64_t n = moments.size(1);
  const torch::Tensor diagonal = torch::linspace(first_diagonal, 0.0, n, torch::kFloat64).diag();
  const auto [values, vectors] = torch::linalg_eigh(moments / mean_diagonal(moments) + diagonal);
  return vectors.flip({2}).contiguous();
}

/// Matrices of one shape; all tensors begin with an axis that counts them.
struct Group {
  std::int64_t rows, columns;
  std::vector<std::int64_t> ids, offsets;  // of the matrices: place among all, and in the vector of parameters
  torch::Tensor where;                     // [matrices * rows * columns] in the vector of parameters
  torch::Tensor left, right;               // moments; undefined for sides that keep their own basis
  torch::Tensor left_basis, right_basis;

  void allocate(bool left_side, bool right_side) {
    const auto n = static_cast<std::int64_t>(ids.size());
    where = (torch::tensor(offsets, torch::kInt64).view({n, 1}) + torch::arange(rows * columns, torch::kInt64)).flatten();
    if (left_side) left = torch::zeros({n, rows, rows}, torch::kFloat64), left_basis = torch::zeros_like(left);
    if (right_side) right = torch::zeros({n, columns, columns}, torch::kFloat64), right_basis = torch::zeros_like(right);
  }

  /// Calls f(name, tensor) for what is kept of each matrix but its parameters' moments.
  template <class F>
  void each(F f) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto k = static_cast<std::int64_t>(i);
      const std::string id = std::to_string(ids[i]);
      if (left.defined()) f("left." + id, left[k]), f("left_basis." + id, left_basis[k]);
      if (right.defined()) f("right." + id, right[k]), f("right_basis." + id, right_basis[k]);
    }
  }
  torch::Tensor of(const torch::Tensor& all) const { return all.index_select(0, where).view({-1, rows, columns}); }
  void put(torch::Tensor& all, const torch::Tensor& matrices) const { all.index_copy_(0, where, matrices.flatten()); }

  void gather(const torch::Tensor& g, double beta) {
    const torch::Tensor t = g.transpose(1, 2);
    if (left.defined()) left.baddbmm_(g, t, beta, 1.0 - beta);
    if (right.defined()) right.baddbmm_(t, g, beta, 1.0 - beta);
  }
  torch::Tensor turn(torch::Tensor x) const {
    if (left.defined()) x = left_basis.transpose(1, 2).bmm(x);
    if (right.defined()) x = x.bmm(right_basis);
    return x;
  }
  torch::Tensor turn_back(torch::Tensor x) const {
    if (left.defined()) x = left_basis.bmm(x);
    if (right.defined()) x = x.bmm(right_basis.transpose(1, 2));
    return x;
  }
  void set_bases() {
    if (left.defined()) left_basis = eigenvectors(left);
    if (right.defined()) right_basis = eigenvectors(right);
  }
  /// One step of power iteration with the columns sorted by what they estimate; v, [matrices][rows][columns], is sorted with them.
  torch::Tensor refine_bases(torch::Tensor v) {
    const auto refine = [&](const torch::Tensor& moment, torch::Tensor& basis, bool by_rows) {
      const std::int64_t n = moment.size(1);
      const torch::Tensor product = moment.bmm(basis);
      const torch::Tensor order = (basis * product).sum(1).argsort(/*stable=*/true, /*dim=*/1, /*descending=*/true);  // [matrices][n]
      v = by_rows ? v.gather(1, order.unsqueeze(2).expand({-1, -1, columns})) : v.gather(2, order.unsqueeze(1).expand({-1, rows, -1}));
      const torch::Tensor columns_of = order.unsqueeze(1).expand({-1, n, -1});
      basis = std::get<0>(torch::linalg_qr((product + later_diagonal * mean_diagonal(moment) * basis).gather(2, columns_of)));
    };
    if (left.defined()) refine(left, left_basis, true);
    if (right.defined()) refine(right, right_basis, false);
    return v;
  }
};

class Soap final : public Optimizer {
 public:
  Soap(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks, std::shared_ptr<Communicator> communicator)
      : Optimizer(options, blocks), communicator_(std::move(communicator)), m_(zeros(count(blocks))), v_(zeros(count(blocks))) {
    state_["first_moment"] = &m_;
    for (const ParameterBlock& b : blocks) {
      const std::size_t matrices = b.shape.size() == 3 ? b.shape[0] : 1, columns = b.shape.empty() ? 1 : b.shape.back();
      const std::size_t rows = b.size / matrices / columns;
      for (std::size_t k = 0; k < matrices; ++k)
        matrices_.push_back({static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns), static_cast<std::int64_t>(b.offset + k * rows * columns)});
    }
    divide();
  }

  void step(torch::Tensor& p, const torch::Tensor& gradient, double rate) override {
    const double t = steps_.add_(1.0).item<double>();
    if (t == 1.0) {  // the first gradient only sets the bases up
      for (Group& s : groups_) s.gather(s.of(gradient), 0.0), s.set_bases();
      return;
    }
    const double n = t - 1.0, c1 = 1.0 - std::pow(options_.beta1, n), c2 = 1.0 - std::pow(options_.beta2, n);
    const bool refines = static_cast<std::int64_t>(n) % options_.precondition_every == 0;
    m_.mul_(options_.beta1).add_(gradient, 1.0 - options_.beta1);
    torch::Tensor moves = torch::zeros_like(p);
    for (Group& s : groups_) {
      const torch::Tensor own = s.of(gradient), g = s.turn(own), m = s.turn(s.of(m_));
      torch::Tensor v = s.of(v_);
      v.mul_(options_.beta2).addcmul_(g, g, 1.0 - options_.beta2);
      const torch::Tensor spread = (v / c2).sqrt(), floor = spread.square().mean({1, 2}, true).sqrt().mul_(noise).add_(options_.epsilon);
      s.put(moves, s.turn_back(m / c1 / (spread + floor)));
      s.gather(own, options_.beta2);
      s.put(v_, refines ? s.refine_bases(v) : v);
    }
    share(moves);
    p.sub_(moves, rate);
    if (options_.weight_decay != 0.0) p.sub_(decay_ * p, rate);
  }

  std::map<std::string, torch::Tensor> blank_state() const override {
    std::map<std::string, torch::Tensor> all = Optimizer::blank_state();
    all["second_moment"] = torch::zeros_like(v_);
    for (std::size_t k = 0; k < matrices_.size(); ++k) {
      const Matrix& m = matrices_[k];
      const auto add = [&](const char* name, std::int64_t n) {
        if (turns(m, n)) all[name + std::to_string(k)] = torch::zeros({n, n}, torch::kFloat64);
      };
      add("left.", m.rows), add("left_basis.", m.rows);
      add("right.", m.columns), add("right_basis.", m.columns);
    }
    return all;
  }

  std::map<std::string, torch::Tensor> state() override {
    std::map<std::string, torch::Tensor> all = blank_state();
    all.at("second_moment").copy_(v_);
    for (Group& s : groups_) s.each([&](const std::string& name, torch::Tensor part) { all.at(name).copy_(part); });
    const auto common = Optimizer::state();
    for (auto& [name, tensor] : all) {
      if (const auto same = common.find(name); same != common.end())
        tensor = same->second;
      else
        share(tensor);
    }
    return all;
  }

  void restore(const std::map<std::string, torch::Tensor>& state) override {
    Optimizer::restore(state);
    v_.zero_();
    for (Group& s : groups_) {
      s.put(v_, s.of(state.at("second_moment")));
      s.each([&](const std::string& name, torch::Tensor part) { part.copy_(state.at(name)); });
    }
  }

 private:
  struct Matrix {
    std::int64_t rows, columns, offset;
  };

  /// Whether a side of a matrix has a basis: vectors are left to Adam, as the paper does, and long sides keep their own.
  bool turns(const Matrix& m, std::int64_t side) const { return std::min(m.rows, m.columns) > 1 && side <= options_.largest_dimension; }

  /// Groups of the matrices of this process. The costliest go first, each to the process that has least to do.
  void divide() {
    const auto cost = [&](const Matrix& m) {
      const double r = static_cast<double>(m.rows), c = static_cast<double>(m.columns);
      return r * c * (2.0 + (turns(m, m.rows) ? 5.0 * r : 0.0) + (turns(m, m.columns) ? 5.0 * c : 0.0)) + (turns(m, m.rows) ? r * r * r : 0.0) +
             (turns(m, m.columns) ? c * c * c : 0.0);
    };
    std::vector<std::size_t> order(matrices_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return cost(matrices_[a]) > cost(matrices_[b]); });
    std::vector<double> load(communicator_->size(), 0.0);
    std::vector<std::size_t> mine;
    for (const std::size_t k : order) {
      const auto least = std::min_element(load.begin(), load.end());
      *least += cost(matrices_[k]);
      if (least - load.begin() == communicator_->rank()) mine.push_back(k);
    }
    std::sort(mine.begin(), mine.end());
    for (const std::size_t k : mine) {
      const Matrix& m = matrices_[k];
      auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) { return g.rows == m.rows && g.columns == m.columns; });
      if (group == groups_.end()) group = groups_.insert(groups_.end(), Group{m.rows, m.columns, {}, {}, {}, {}, {}, {}, {}});
      group->ids.push_back(static_cast<std::int64_t>(k));
      group->offsets.push_back(m.offset);
    }
    for (Group& s : groups_) s.allocate(turns({s.rows, s.columns, 0}, s.rows), turns({s.rows, s.columns, 0}, s.columns));
  }

  /// What each process has of a tensor that is zero elsewhere, on all processes.
  void share(torch::Tensor& t) const {
    if (communicator_->size() > 1) communicator_->sum(t.data_ptr<double>(), static_cast<std::size_t>(t.numel()));
  }

  std::shared_ptr<Communicator> communicator_;
  torch::Tensor m_, v_;  // v_: zero for the matrices of others
  std::vector<Matrix> matrices_;
  std::vector<Group> groups_;
};

}  // namespace

std::unique_ptr<Optimizer> make_soap(const OptimizerOptions& options, const std::vector<ParameterBlock>& blocks, std::shared_ptr<Communicator> communicator) {
  return std::make_unique<Soap>(options, blocks, std::move(communicator));
}

}  // namespace adatom::training
