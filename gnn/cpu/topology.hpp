// SPDX-License-Identifier: MIT
// How the atoms of a graph are shared out: chunks of receivers, and for each chunk the nodes that its edges touch ("slots").
//
// The reverse pass adds to nodes that other threads work on as well. So each chunk adds into rows of its own, one per touched node, and afterwards
// each node sums its rows in the order of the chunks. Chunks depend on the number of atoms, never on the number of threads: results are the same
// bit for bit for any number of threads, without atomics.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "adatom/graph.hpp"

namespace adatom::gnn::cpu {

struct Topology {
  struct Chunk {
    int first, last;          ///< receivers [first, last)
    std::int64_t first_slot;  ///< slots [first_slot, next chunk's first_slot)
  };
  std::vector<Chunk> chunks;
  std::vector<int> slot_node;            ///< [slots] node
  std::vector<int> edge_slot;            ///< [edges] slot of the sender, counted from the chunk's first
  std::vector<int> receiver_slot;        ///< [receivers] slot of the receiver itself
  std::vector<std::int64_t> node_first;  ///< [nodes + 1] into node_slot
  std::vector<std::int64_t> node_slot;   ///< slots of each node, ascending
  int longest = 0;                       ///< largest number of edges of a receiver
  std::uint64_t revision = 0;

  std::int64_t slots() const { return static_cast<std::int64_t>(slot_node.size()); }

  void build(const Graph& g) {
    revision = g.revision;
    chunks.clear();
    slot_node.clear();
    edge_slot.resize(static_cast<std::size_t>(g.n_receivers ? g.first_edge[g.n_receivers] : 0));
    receiver_slot.resize(g.n_receivers);
    longest = 0;
    const int size = std::clamp(static_cast<int>(std::ceil(std::sqrt(double(g.n_receivers)))), 4, 256);
    std::vector<int> slot_of(g.n_nodes, -1);
    for (int first = 0; first < g.n_receivers; first += size) {
      const int last = std::min(first + size, g.n_receivers);
      const std::int64_t first_slot = slots();
      const auto touch = [&](int node) {
        if (slot_of[node] < 0) {
          slot_of[node] = static_cast<int>(slots() - first_slot);
          slot_node.push_back(node);
        }
        return slot_of[node];
      };
      for (int i = first; i < last; ++i) {
        receiver_slot[i] = touch(i);
        longest = std::max(longest, static_cast<int>(g.first_edge[i + 1] - g.first_edge[i]));
        for (std::int64_t e = g.first_edge[i]; e < g.first_edge[i + 1]; ++e) edge_slot[e] = touch(g.sender[e]);
      }
      for (std::int64_t s = first_slot; s < slots(); ++s) slot_of[slot_node[s]] = -1;
      chunks.push_back({first, last, first_slot});
    }
    node_first.assign(g.n_nodes + 1, 0);
    for (const int node : slot_node) ++node_first[node + 1];
    for (int n = 0; n < g.n_nodes; ++n) node_first[n + 1] += node_first[n];
    node_slot.resize(slot_node.size());
    std::vector<std::int64_t> next(node_first.begin(), node_first.end() - 1);
    for (std::int64_t s = 0; s < slots(); ++s) node_slot[next[slot_node[s]]++] = s;
  }

  std::int64_t end_slot(std::size_t chunk) const { return chunk + 1 < chunks.size() ? chunks[chunk + 1].first_slot : slots(); }

  std::size_t bytes() const {
    return chunks.capacity() * sizeof(Chunk) + (slot_node.capacity() + edge_slot.capacity() + receiver_slot.capacity()) * sizeof(int) +
           (node_first.capacity() + node_slot.capacity()) * sizeof(std::int64_t);
  }
};

}  // namespace adatom::gnn::cpu
