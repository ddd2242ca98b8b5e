// SPDX-License-Identifier: MIT
// The order in which a device has nodes and edges (see DeviceGraph), made on the host when the neighbour list changes.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "adatom/graph.hpp"
#include "gnn/cuda/contract.hpp"

namespace adatom::gnn::cuda {

struct Topology {
  std::vector<int> node, species;     ///< [nodes] the caller's number; species
  std::vector<int> first_of_species;  ///< [species + 1] receivers
  std::vector<int> first_edge, sender, shift, receiver;
  std::vector<int> first_run, run_edge;
  std::vector<int> first_sent, sent_edge;
  std::vector<NodeGroup> groups;  ///< receivers of one species, up to four at a time
  std::uint64_t revision = 0;

  // Of a halo that has them: its shared rows, and where what comes back is added.
  std::vector<int> shared, target, first_packed, packed;

  void build_halo(const std::vector<int>& rows) {
    std::vector<int> own(node.size());
    for (std::size_t n = 0; n < node.size(); ++n) own[node[n]] = static_cast<int>(n);
    shared.clear();
    for (const int row : rows) shared.push_back(own[row]);
    packed.resize(shared.size());
    for (std::size_t k = 0; k < packed.size(); ++k) packed[k] = static_cast<int>(k);
    std::stable_sort(packed.begin(), packed.end(), [&](int a, int b) { return shared[a] < shared[b]; });
    target.clear(), first_packed.clear();
    for (std::size_t k = 0; k < packed.size(); ++k)
      if (k == 0 || shared[packed[k]] != target.back()) target.push_back(shared[packed[k]]), first_packed.push_back(static_cast<int>(k));
    first_packed.push_back(static_cast<int>(packed.size()));
  }

  int edges() const { return static_cast<int>(sender.size()); }

  /// Only what species tell: of lists that are made on the device.
  void build_species(const int* of_atoms, int atoms, int species_count) {
    first_of_species.assign(species_count + 1, 0);
    for (int i = 0; i < atoms; ++i) ++first_of_species[of_atoms[i] + 1];
    for (int z = 0; z < species_count; ++z) first_of_species[z + 1] += first_of_species[z];
    build_groups();
  }

  void build(const Graph& g, int species_count) {
    revision = g.revision;
    const int receivers = g.n_receivers, nodes = g.n_nodes;
    const std::int64_t count = receivers ? g.first_edge[receivers] : 0;
    if (count > std::numeric_limits<int>::max() - 1024)
      throw std::runtime_error("the neighbour list has " + std::to_string(count) + " edges; a CUDA device takes at most 2^31: use more devices");
    first_of_species.assign(species_count + 1, 0);
    for (int i = 0; i < receivers; ++i) ++first_of_species[g.species[i] + 1];
    for (int z = 0; z < species_count; ++z) first_of_species[z + 1] += first_of_species[z];
    node.resize(nodes);
    std::vector<int> own(nodes), next(first_of_species.begin(), first_of_species.end() - 1);
    for (int i = 0; i < nodes; ++i) own[i] = i < receivers ? next[g.species[i]]++ : i;
    for (int i = 0; i < nodes; ++i) node[own[i]] = i;
    species.resize(nodes);
    for (int n = 0; n < nodes; ++n) species[n] = g.species[node[n]];

    first_edge.assign(receivers + 1, 0);
    for (int n = 0; n < receivers; ++n) first_edge[n + 1] = first_edge[n] + static_cast<int>(g.first_edge[node[n] + 1] - g.first_edge[node[n]]);
    sender.resize(count), receiver.resize(count), shift.resize(g.shift ? count : 0);
    first_run.assign(1, 0), run_edge.clear();
    std::vector<int> start(species_count + 1);
    for (int n = 0; n < receivers; ++n) {
      const std::int64_t begin = g.first_edge[node[n]], end = g.first_edge[node[n] + 1];
      std::fill(start.begin(), start.end(), 0);
      for (std::int64_t e = begin; e < end; ++e) ++start[g.species[g.sender[e]] + 1];
      for (int z = 0; z < species_count; ++z) {
        if (start[z + 1]) run_edge.push_back(first_edge[n] + start[z]);
        start[z + 1] += start[z];
      }
      for (std::int64_t e = begin; e < end; ++e) {
        const int to = first_edge[n] + start[g.species[g.sender[e]]]++;
        sender[to] = own[g.sender[e]];
        receiver[to] = n;
        if (g.shift) shift[to] = g.shift[e];
      }
      first_run.push_back(static_cast<int>(run_edge.size()));
    }
    run_edge.push_back(static_cast<int>(count));

    first_sent.assign(nodes + 1, 0);
    for (const int j : sender) ++first_sent[j + 1];
    for (int n = 0; n < nodes; ++n) first_sent[n + 1] += first_sent[n];
    sent_edge.resize(count);
    std::vector<int> at(first_sent.begin(), first_sent.end() - 1);
    for (int e = 0; e < count; ++e) sent_edge[at[sender[e]]++] = e;

    build_groups();
  }

 private:
  void build_groups() {
    groups.clear();
    for (std::size_t z = 0; z + 1 < first_of_species.size(); ++z)
      for (int n = first_of_species[z]; n < first_of_species[z + 1]; n += nodes_per_group)
        groups.push_back({n, std::min(nodes_per_group, first_of_species[z + 1] - n)});
  }
};

}  // namespace adatom::gnn::cuda
