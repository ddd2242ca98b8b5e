// SPDX-License-Identifier: MIT
#include "potential/batch.hpp"

#include <stdexcept>
#include <string>

#include "adatom/neighbor_list.hpp"
#include "gnn/threads.hpp"

namespace adatom {

void Batch::assign(const std::vector<Structure>& structures, std::size_t begin, std::size_t end, double cutoff, int threads) {
  const std::size_t n = end - begin;
  std::vector<NeighborList> lists(n, NeighborList(cutoff));
  // A single structure is shared by the threads, several are dealt out to them.
  gnn::Threads& team = gnn::threads();
  const int outer = n == 1 ? 1 : (threads > 0 ? threads : team.usual());
  std::vector<std::string> failures(n);
  gnn::parallel_for(team, outer, static_cast<std::int64_t>(n), 1, [&](std::int64_t k, std::int64_t, int) {
    try {
      lists[k].update(structures[begin + k], n == 1 ? threads : 1);
    } catch (const std::invalid_argument& error) {
      failures[k] = error.what();
    }
  });
  for (std::size_t k = 0; k < n; ++k)
    if (!failures[k].empty()) throw std::invalid_argument("structure " + std::to_string(begin + k) + " (counted from 0) of the batch: " + failures[k]);

  first_edge_.assign(1, 0);
  sender_.clear(), shift_.clear(), shifts_.clear(), positions_.clear();
  for (const NeighborList& list : lists) {
    const int first_node = static_cast<int>(positions_.size()), first_shift = static_cast<int>(shifts_.size());
    const std::int64_t first_edge = first_edge_.back();
    for (std::size_t i = 1; i < list.first_edge().size(); ++i) first_edge_.push_back(first_edge + list.first_edge()[i]);
    for (const int sender : list.sender()) sender_.push_back(first_node + sender);
    for (const int shift : list.shift()) shift_.push_back(first_shift + shift);
    shifts_.insert(shifts_.end(), list.shifts().begin(), list.shifts().end());
    positions_.insert(positions_.end(), list.positions().begin(), list.positions().end());
  }
}

Graph Batch::graph() const {
  Graph graph;
  graph.n_receivers = graph.n_nodes = static_cast<int>(positions_.size());
  graph.first_edge = first_edge_.data();
  graph.sender = sender_.data();
  graph.shift = shift_.data();
  graph.shifts = shifts_.empty() ? nullptr : shifts_.front().data();
  graph.positions = positions_.empty() ? nullptr : positions_.front().data();
  return graph;
}

std::size_t Batch::bytes() const {
  return first_edge_.capacity() * sizeof(std::int64_t) + (sender_.capacity() + shift_.capacity()) * sizeof(int) +
         (shifts_.capacity() + positions_.capacity()) * sizeof(Vector3);
}

}  // namespace adatom
