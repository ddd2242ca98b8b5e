// SPDX-License-Identifier: MIT
#include "gnn/builder/builder.hpp"

#include <algorithm>
#include <cmath>

#include "gnn/brief.hpp"

namespace adatom::gnn {

namespace {

std::vector<CouplingTerm> coupling(int l1, int l2, int l3) {
  const std::vector<double>& c = wigner_3j(l1, l2, l3);
  std::vector<CouplingTerm> terms;
  for (int a = 0; a <= 2 * l1; ++a)
    for (int b = 0; b <= 2 * l2; ++b)
      for (int m = 0; m <= 2 * l3; ++m) {
        const double x = c[(std::size_t(a) * (2 * l2 + 1) + b) * (2 * l3 + 1) + m];
        if (std::abs(x) > 1e-12) terms.push_back({a, b, m, x * std::sqrt(2.0 * l3 + 1)});
      }
  return terms;
}

/// Whether features lie in the same places.
bool same(const Channels& a, const Channels& b) {
  const auto same_block = [](const FeatureBlock& x, const FeatureBlock& y) { return x.ir == y.ir && x.channels == y.channels; };
  return std::equal(a.layout.blocks.begin(), a.layout.blocks.end(), b.layout.blocks.begin(), b.layout.blocks.end(), same_block) && a.index == b.index;
}

}  // namespace

std::vector<Builder::PathSpec> Builder::read_paths(const Spec& spec, const Irreps& conv) const {
  std::vector<PathSpec> paths;
  for (const json& p : spec.list("paths", 1, 10000)) {
    const std::string what = "path " + std::to_string(paths.size()) + " of " + spec.name();
    if (!p.is_array() || p.size() != 3 || !p[2].is_string()) fail(what + R"( is )" + brief(p) + R"(, expected [entry, degree, "irrep"])");
    const int entry = whole_number(p[0], 0, static_cast<int>(conv.size()) - 1, "the entry of irreps_conv of " + what);
    const int l2 = whole_number(p[1], 0, max_edge_l, "the degree of " + what);
    Irrep out;
    try {
      out = Irrep::parse(p[2].get<std::string>());
    } catch (const std::invalid_argument&) {
      fail("the irrep of " + what + " is " + brief(p[2]) + ", expected one such as 1o");
    }
    const Irrep from = conv[entry].ir;
    if (out.l > max_edge_l) fail("a " + what + " has l > " + std::to_string(max_edge_l) + ", the largest supported");
    if (std::abs(from.l - l2) > out.l || out.l > from.l + l2) fail(what + " violates the triangle rule");
    if (edge_parity_[l2] == 0) fail(what + " has a degree that edge_harmonics lack, " + std::to_string(l2));
    if (out.p != from.p * edge_parity_[l2]) fail(what + " violates the rule of parities: " + from.str() + " and the edge's give no " + out.str());
    paths.push_back({entry, l2, out});
  }
  return paths;
}

void Builder::build_layer(const Spec& spec, std::size_t t) {
  const std::string& name = spec.name();
  Layer layer;
  const Irreps in_irreps = irreps_of(spec, "features_in"), conv_irreps = irreps_of(spec, "irreps_conv"), message_irreps = irreps_of(spec, "irreps_message"),
               out_irreps = irreps_of(spec, "features_out");
  const bool first = t == 0;
  const Channels in = make_channels(in_irreps), conv = make_channels(conv_irreps), out = make_channels(out_irreps);
  layer.in_layout = in.layout, layer.conv_layout = conv.layout, layer.out_layout = out.layout;
  if (first && (in_irreps.count({0, 1}) != in_irreps.dim() || std::size_t(in_irreps.dim()) != embedding_.front().size()))
    fail("features_in of the first layer must be the " + std::to_string(embedding_.front().size()) + " scalars of the embedding, it is " + in_irreps.str());
  if (first && conv_irreps.count({0, 1}) != conv_irreps.dim())
    fail("irreps_conv of the first layer is " + conv_irreps.str() + ", expected scalars (0e), as the embedding has nothing else");
  if (!first && !same(in, features_))
    fail("features_in of layer " + std::to_string(t) + " is " + in_irreps.str() + ", which is not what the layer before gives");
  layer.up = linear_map(name + ".up", in, conv);

  // Paths, and the channels of A.
  const std::vector<PathSpec> path_specs = read_paths(spec, conv_irreps);
  std::vector<MulIrrep> mid_entries;
  PathChannels path_channels;
  for (const PathSpec& path : path_specs) {
    const MulIrrep& from = conv_irreps[path.entry];
    network_.l_max = std::max(network_.l_max, path.l2);
    mid_entries.push_back({from.mul, path.out});
    path_channels.emplace_back(from.mul, padded(from.mul));
  }
  const Channels mid = make_channels(mid_entries);
  build_radial_mlp(layer, spec.object("radial_mlp"), name, path_channels);

  // Where each path's channels start in its irrep's rows.
  std::vector<int> path_start(path_specs.size());
  for (const FeatureBlock& b : mid.layout.blocks) {
    int at = 0;
    for (std::size_t p = 0; p < path_specs.size(); ++p)
      if (path_specs[p].out == b.ir) path_start[p] = at, at += path_channels[p].second;
  }

  // Message, and what follows it.
  const Spec update = spec.object("update");
  layer.contracts = update.choice("type", {"contraction", "gate"}) == "contraction";
  const Channels message = layer.contracts ? make_channels(message_irreps) : gate_channels(update, out_irreps, message_irreps, name);
  layer.message_layout = message.layout;

  if (spec.choice("normalization", {"constant", "density"}) == "density")
    layer.density = weights_.get(name + ".density", {std::size_t(network_.radial.basis.size()), 1}).data;
  if (spec.has("normalization_constant")) spec.number("normalization_constant", 1e-100, 1e100);  // of training alone
  const std::string skip = spec.choice("skip", {"none", "message", "features"});
  LinearMap linear = linear_map(name + ".linear", mid, message);
  if (skip == "message") {
    LinearMap map = linear_map(name + ".skip", message, message, true);
    if (assembly_)
      layer.message_skip = std::move(map);
    else
      linear = merge(linear, map);
  }

  const Channels& update_channels = layer.contracts ? out : message;
  layer.update_layout = update_channels.layout;
  if (skip == "features") {
    LinearMap map = linear_map(name + ".skip", in, update_channels, true);
    if (first)
      apply_to_species(std::move(map), in, layer.update_layout.size, layer.skip_bias, layer.skip_bias_id);
    else
      layer.skip = std::move(map);
  }

  if (first && !assembly_) {
    build_element_linear(layer, in, conv, linear, path_specs, path_start);
    layer.linear.bias = linear.bias;
    layer.linear.bias_offset = linear.bias_offset;
  } else {
    if (first) apply_to_species(std::move(layer.up), in, conv.layout.size, layer.species_features, layer.species_features_id);
    layer.up = first ? LinearMap{} : std::move(layer.up);
    for (std::size_t p = 0; p < path_specs.size(); ++p) {
      const PathSpec& s = path_specs[p];
      const MulIrrep& from = conv_irreps[s.entry];
      const FeatureBlock &bi = conv.block(from.ir), &bo = mid.block(s.out);
      int entry_in_kind = 0;
      for (int e = 0; e < s.entry; ++e) entry_in_kind += conv_irreps[e].ir == from.ir;
      ConvolutionPath path{};
      path.l1 = from.ir.l, path.l2 = s.l2, path.l3 = s.out.l;
      path.in = bi.offset + conv.entries[&bi - conv.layout.blocks.data()][entry_in_kind], path.in_row = bi.channels;
      path.out = bo.offset + path_start[p], path.out_row = bo.channels;
      path.channels = path_channels[p].second;
      for (std::size_t q = 0; q < p; ++q) path.radial += path_channels[q].second;
      path.coupling = coupling(path.l1, path.l2, path.l3);
      layer.paths.push_back(std::move(path));
    }
    layer.mid_layout = mid.layout;
    layer.linear = std::move(linear);
  }
  if (network_.splines) {
    if (assembly_)
      assemble_tables(layer, static_cast<int>(layer.radial_mlp.size()) + 1, name, path_channels);
    else
      build_tables(layer, first);
  }

  if (layer.contracts) {
    build_contraction(layer, update.integer("correlation", 1, 3), name, message_irreps, out_irreps, out);
  } else {
    build_gate(layer, update, message, out, out_irreps);
  }
  update.check_all_used();

  const Irrep scalar{0, 1};
  if (const FeatureBlock* block = out.layout.find(scalar))
    for (const int channel : out.channels(scalar)) layer.scalars.push_back(block->offset + channel);
  if (!spec.is_null("readout")) build_readout(layer, spec.object("readout"), name, out);
  spec.check_all_used();
  network_.layers.push_back(std::move(layer));
  features_ = out;
}

void Builder::build_readout(Layer& layer, const Spec& spec, const std::string& name, const Channels& out) {
  layer.has_readout = true;
  Readout& r = layer.readout;
  r.activation = activation_of(spec, "activation");
  const Irrep scalar{0, 1};
  if (!out.layout.find(scalar)) fail("the readout of " + name + " needs 0e features");
  const std::vector<int>& channels = out.channels(scalar);
  r.in = out.block(scalar).offset;
  const int count = spec.integer("layers", 1, 100);
  spec.check_all_used();
  std::size_t in = channels.size();
  for (int n = 0; n < count; ++n) {
    const std::string at = name + ".readout." + std::to_string(n);
    const Tensor& w = weights_.get(at);
    if (w.shape.size() != 3 || w.shape[0] != std::size_t(options_.heads) || w.shape[1] != in || w.shape[2] == 0 || (n + 1 == count && w.shape[2] != 1))
      fail("tensor '" + at + "' has shape " + shape_string(w.shape) + ", expected [H, " + std::to_string(in) + ", " + (n + 1 == count ? "1]" : "any]"));
    MlpLayer layer_n;
    layer_n.in = n == 0 ? out.block(scalar).channels : static_cast<int>(in);
    layer_n.out = static_cast<int>(w.shape[2]);
    layer_n.weight.assign(std::size_t(layer_n.in) * layer_n.out, 0.0);
    const std::size_t outputs = w.shape[2], from = options_.head * in * outputs;
    r.weight_ids.push_back(-1), r.bias_ids.push_back(-1);
    Copy copy(*this, layer_n.weight, &r.weight_ids.back());
    for (std::size_t i = 0; i < in; ++i)
      for (std::size_t o = 0; o < outputs; ++o) copy.add((n == 0 ? channels[i] : i) * outputs + o, w, from + i * outputs + o);
    if (weights_.find(at + ".bias")) {
      const Tensor& b = weights_.get(at + ".bias", {std::size_t(options_.heads), outputs});
      layer_n.bias.assign(outputs, 0.0);
      Copy(*this, layer_n.bias, b, options_.head * outputs, &r.bias_ids.back());
    }
    in = layer_n.out;
    r.layers.push_back(std::move(layer_n));
  }
}

}  // namespace adatom::gnn
