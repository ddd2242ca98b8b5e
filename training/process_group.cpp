// SPDX-License-Identifier: MIT
#include "training/process_group.hpp"

#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/torch.h>

namespace adatom::training {
namespace {

class ProcessGroup final : public Communicator {
 public:
  explicit ProcessGroup(c10::intrusive_ptr<c10d::ProcessGroup> group) : group_(std::move(group)) {}
  int rank() const override { return group_->getRank(); }
  int size() const override { return group_->getSize(); }

  void sum(double* values, std::size_t n) override {
    std::vector<torch::Tensor> tensors{torch::from_blob(values, {static_cast<std::int64_t>(n)}, torch::kFloat64)};
    group_->allreduce(tensors)->wait();
  }
  void broadcast(double* values, std::size_t n) override {
    std::vector<torch::Tensor> tensors{torch::from_blob(values, {static_cast<std::int64_t>(n)}, torch::kFloat64)};
    group_->broadcast(tensors)->wait();
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
};

}  // namespace

std::shared_ptr<Communicator> process_group(const std::string& name) { return std::make_shared<ProcessGroup>(c10d::resolve_process_group(name)); }

}  // namespace adatom::training
