// SPDX-License-Identifier: MIT
#include "training/epoch_plan.hpp"

#include "datasets/random.hpp"

namespace adatom::training {

EpochPlan::EpochPlan(const FrameSet& set, const RunConfig& config, int epoch)
    : order_(datasets::shuffled(set.size(), datasets::scatter(config.seed) + static_cast<std::uint64_t>(epoch))), first_{0} {
  const auto within = [](std::size_t n, int limit) { return limit == 0 || n <= static_cast<std::size_t>(limit); };
  std::size_t atoms = 0, edges = 0;
  for (std::size_t k = 0; k < order_.size(); ++k) {
    const FrameInfo& info = set.info(order_[k]);
    const std::size_t size = k - first_.back();
    if (size > 0 &&
        !(within(size + 1, config.batch_size) && within(atoms + info.atoms, config.batch_atoms) && within(edges + info.edges, config.batch_edges))) {
      first_.push_back(k);
      atoms = edges = 0;
    }
    atoms += info.atoms, edges += info.edges;
  }
  first_.push_back(order_.size());
}

std::vector<std::size_t> EpochPlan::batch(int step) const {
  return {order_.begin() + static_cast<std::ptrdiff_t>(first_[step]), order_.begin() + static_cast<std::ptrdiff_t>(first_[step + 1])};
}

}  // namespace adatom::training
