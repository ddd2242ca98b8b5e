// SPDX-License-Identifier: MIT
#include "gnn/builder/channels.hpp"

#include <algorithm>

namespace adatom::gnn {

Channels make_channels(const std::vector<MulIrrep>& entries) {
  Channels c;
  std::vector<Irrep> kinds;
  for (const MulIrrep& e : entries)
    if (e.mul > 0 && std::find(kinds.begin(), kinds.end(), e.ir) == kinds.end()) kinds.push_back(e.ir);
  for (const Irrep ir : kinds) {
    std::vector<int> index, first;
    int at = 0;
    for (const MulIrrep& e : entries)
      if (e.ir == ir && e.mul > 0) {
        first.push_back(at);
        for (int k = 0; k < e.mul; ++k) index.push_back(at + k);
        at += padded(e.mul);
      }
    c.layout.add(ir, at);
    c.index.push_back(std::move(index));
    c.entries.push_back(std::move(first));
  }
  return c;
}

Channels make_channels(const Irreps& irreps) { return make_channels(std::vector<MulIrrep>(irreps.begin(), irreps.end())); }

}  // namespace adatom::gnn
