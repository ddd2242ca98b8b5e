// SPDX-License-Identifier: MIT
#include "training/process_group.hpp"

#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/torch.h>

namespace adatom::training {
namespace {

class ProcessGroup final : public Communicator {
 public:
  ProcessGroup(c10::intrusive_ptr<c10d::ProcessGroup> group, bool on_device) : group_(std::move(group)), on_device_(on_device) {}
  int rank() const override { return group_->getRank(); }
  int size() const override { return group_->getSize(); }

  void sum(double* values, std::size_t n) override {
    const bool moves = on_device_ && n >= device_numbers;
    torch::Tensor here = torch::from_blob(values, {static_cast<std::int64_t>(n)}, torch::kFloat64);
    std::vector<torch::Tensor> tensors{moves ? here.to(torch::kCUDA) : here};
    group_->allreduce(tensors)->wait();
    if (moves) here.copy_(tensors.front());
  }
  void broadcast(double* values, std::size_t n) override {
    std::vector<torch::Tensor> tensors{torch::from_blob(values, {static_cast<std::int64_t>(n)}, torch::kFloat64)};
    group_->broadcast(tensors)->wait();
  }

 private:
  static constexpr std::size_t device_numbers = 1 << 14;  // below, Gloo is there before the copies are
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  bool on_device_;
};

}  // namespace

std::shared_ptr<Communicator> process_group(const std::string& name, bool on_device) {
  return std::make_shared<ProcessGroup>(c10d::resolve_process_group(name), on_device);
}

}  // namespace adatom::training
