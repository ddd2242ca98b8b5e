// SPDX-License-Identifier: MIT
#include "training/blueprint.hpp"

#include <algorithm>
#include <numbers>
#include <stdexcept>

namespace adatom::training {

using gnn::Irrep;
using gnn::Irreps;
using nlohmann::ordered_json;

void Blueprint::add_linear(const std::string& name, const Irreps& in, const Irreps& out, std::size_t count) {
  for (const Irrep ir : out.kinds()) {
    const std::size_t rows = in.count(ir), columns = out.count(ir);
    if (rows == 0 || columns == 0) continue;
    std::vector<std::size_t> shape{rows, columns};
    if (count) shape.insert(shape.begin(), count);
    add(name + "." + ir.str(), std::move(shape));
  }
}

std::vector<Path> convolution_paths(const Irreps& conv, const std::vector<Irrep>& harmonics, const Irreps& targets) {
  const std::vector<Irrep> kinds = targets.kinds();
  std::vector<Path> paths;
  for (std::size_t e = 0; e < conv.size(); ++e)
    for (const Irrep& y : harmonics)
      for (const Irrep& out : gnn::product(conv[e].ir, y))
        if (std::find(kinds.begin(), kinds.end(), out) != kinds.end()) paths.push_back({static_cast<int>(e), y.l, out, conv[e].mul});
  std::stable_sort(paths.begin(), paths.end(), [](const Path& a, const Path& b) { return a.out < b.out; });
  return paths;
}

ordered_json path_list(const std::vector<Path>& paths) {
  ordered_json list = ordered_json::array();
  for (const Path& p : paths) list.push_back(ordered_json::array({p.entry, p.l, p.out.str()}));
  return list;
}

Irreps path_irreps(const std::vector<Path>& paths) {
  std::vector<gnn::MulIrrep> entries;
  for (const Path& p : paths) entries.push_back({p.channels, p.out});
  return Irreps(entries);
}

std::vector<Irrep> edge_harmonics(int l_max, bool parity) {
  std::vector<Irrep> harmonics;
  for (int l = 0; l <= l_max; ++l) harmonics.push_back({l, parity && l % 2 ? -1 : 1});
  return harmonics;
}

ordered_json add_radial_mlp(Blueprint& blueprint, const std::string& layer, int basis_size, const std::vector<int>& hidden, const std::vector<Path>& paths,
                            const std::string& activation) {
  std::size_t in = basis_size, n = 0, columns = 0;
  for (const Path& p : paths) columns += p.channels;
  for (; n < hidden.size(); ++n) {
    blueprint.add(layer + ".radial_mlp." + std::to_string(n), {in, std::size_t(hidden[n])});
    in = hidden[n];
  }
  blueprint.add(layer + ".radial_mlp." + std::to_string(n), {in, columns});
  return {{"activation", activation}, {"layers", n + 1}, {"layer_norm", false}};
}

std::vector<double> bessel_frequencies(double r_max, int size) {
  std::vector<double> frequencies;
  for (int n = 1; n <= size; ++n) frequencies.push_back(std::numbers::pi / r_max * n);
  return frequencies;
}

Irreps parse_irreps(const Options& options, const std::string& key, const std::string& text) {
  try {
    return Irreps::parse(text);
  } catch (const std::invalid_argument& error) {
    options.refuse(key, error.what());
  }
}

}  // namespace adatom::training
