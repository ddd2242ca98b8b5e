// SPDX-License-Identifier: MIT
#include "gnn/network.hpp"

namespace adatom::gnn {

const FeatureBlock* FeatureLayout::find(Irrep ir) const {
  for (const FeatureBlock& b : blocks)
    if (b.ir == ir) return &b;
  return nullptr;
}

FeatureBlock& FeatureLayout::add(Irrep ir, int channels) {
  blocks.push_back({ir, channels, size});
  size += ir.dim() * channels;
  return blocks.back();
}

double cutoff(const Network& network) { return network.cutoff; }
int features(const Network& network) { return network.features(); }
int whitened(const Network& network) { return network.detectors ? network.detectors->components : 0; }
int members(const Network& network) { return network.detectors ? network.detectors->members : 0; }
std::string summary(const Network& network) { return network.summary; }

}  // namespace adatom::gnn
