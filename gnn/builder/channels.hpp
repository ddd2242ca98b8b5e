// SPDX-License-Identifier: MIT
#pragma once
#include <vector>

#include "gnn/network.hpp"

namespace adatom::gnn {

/// A layout together with the padded index of each channel of each irrep: entries of an irreps list are padded one by one.
struct Channels {
  FeatureLayout layout;
  std::vector<std::vector<int>> index;    ///< per block: padded channel of each channel as the file counts them
  std::vector<std::vector<int>> entries;  ///< per block: padded first channel of each entry

  const FeatureBlock& block(Irrep ir) const { return *layout.find(ir); }
  const std::vector<int>& channels(Irrep ir) const { return index[static_cast<std::size_t>(layout.find(ir) - layout.blocks.data())]; }
};

/// The entries of each irrep side by side, in the order of the first of its kind.
Channels make_channels(const std::vector<MulIrrep>& entries);
Channels make_channels(const Irreps& irreps);

}  // namespace adatom::gnn
