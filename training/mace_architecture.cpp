// SPDX-License-Identifier: MIT
// New models of the MACE family (arXiv 2206.07697), as mace-torch 0.3.16 builds a ScaleShiftMACE.
#include <algorithm>
#include <cmath>

#include "gnn/coupling.hpp"
#include "training/blueprint.hpp"
#include "training/covalent_radii.hpp"

namespace adatom::training {

using gnn::Irrep;
using gnn::Irreps;
using gnn::MulIrrep;
using nlohmann::ordered_json;

namespace {

constexpr Irrep scalar{0, 1};

/// Names of mace-torch's options for keys that are called otherwise here.
const std::map<std::string, std::string> mace_torch_names = {{"num_channels", "channels"},
                                                             {"max_ell", "l_max"},
                                                             {"num_interactions", "layers"},
                                                             {"radial_type", "radial_basis"},
                                                             {"num_radial_basis", "radial_basis_size"},
                                                             {"num_bessel", "radial_basis_size"},
                                                             {"num_cutoff_basis", "cutoff_p"},
                                                             {"num_polynomial_cutoff", "cutoff_p"},
                                                             {"radial_MLP", "radial_mlp"},
                                                             {"readout_cls", "readout"},
                                                             {"interaction_cls", "interaction"},
                                                             {"interaction_cls_first", "interaction_first"}};

struct Interaction {
  std::string skip, normalization;
};

Interaction interaction(Options& options, const std::string& key) {
  const std::string name = options.choice(key, "RealAgnosticResidualInteractionBlock",
                                          {"RealAgnosticInteractionBlock", "RealAgnosticResidualInteractionBlock", "RealAgnosticDensityInteractionBlock",
                                           "RealAgnosticDensityResidualInteractionBlock"});
  const bool residual = name.find("Residual") != name.npos, density = name.find("Density") != name.npos;
  return {residual ? "features" : "message", density ? "density" : "constant"};
}

struct MaceOptions {
  Irreps hidden, edge;
  int channels, l_max, layers, basis_size, cutoff_p;
  double r_max;
  std::vector<int> correlation, radial_mlp;
  std::string basis, cutoff_applies_to, transform, repulsion, readout, activation;
  Interaction first, later;
  int readout_width;
  bool so3, agnostic_product, last_readout_only, keep_last_irreps, edge_irreps_given, edge_irreps_first;
};

/// channels and max_L, or hidden_irreps, which must agree where both are given.
void read_hidden(Options& options, MaceOptions& o) {
  const bool given = options.has("hidden_irreps");
  Irreps hidden;
  if (given) {
    hidden = parse_irreps(options, "hidden_irreps", options.text("hidden_irreps", ""));
    if (hidden.size() == 0 || !(hidden[0].ir == scalar) || hidden.kinds().size() != hidden.size())
      options.refuse("hidden_irreps", "expected irreps such as 128x0e+128x1o, the scalars 0e first, each once");
    for (const MulIrrep& entry : hidden)
      if (entry.mul != hidden[0].mul || entry.mul < 1) options.refuse("hidden_irreps", "expected the same number of channels for each irrep, at least 1");
    for (const MulIrrep& entry : hidden)
      if (o.so3 && entry.ir.p < 0) options.refuse("hidden_irreps", "has " + entry.ir.str() + ", expected even irreps with use_so3 = true");
    if (hidden.lmax() > 2) options.refuse("hidden_irreps", "degrees up to 2 are supported");
  }
  o.channels = options.integer("channels", given ? hidden[0].mul : 128, 1, most_width);
  const int max_l = options.integer("max_L", given ? hidden.lmax() : 1, 0, 2);
  if (given) {
    if (o.channels != hidden[0].mul) options.refuse("channels", "contradicts hidden_irreps = " + hidden.str() + ": give one of the two");
    if (max_l != hidden.lmax()) options.refuse("max_L", "contradicts hidden_irreps = " + hidden.str() + ": give one of the two");
  } else {
    std::vector<MulIrrep> entries;
    for (const Irrep ir : edge_harmonics(max_l, !o.so3)) entries.push_back({o.channels, ir});
    hidden = Irreps(entries);
  }
  o.hidden = hidden;
}

MaceOptions read_options(Options& options) {
  MaceOptions o;
  o.so3 = options.flag("use_so3", false);
  read_hidden(options, o);
  o.l_max = options.integer("l_max", 3, 0, 3);
  o.layers = options.integer("layers", 2, 1, most_layers);
  o.correlation = options.integers_of_layers("correlation", 3, o.layers, 1, 3);
  o.r_max = options.number("r_max", 5.0, 0.0);
  o.basis = options.choice("radial_basis", "bessel", {"bessel", "gaussian", "chebyshev"});
  o.basis_size = options.integer("radial_basis_size", 8, o.basis == "gaussian" ? 2 : 1, most_width);
  o.cutoff_p = options.integer("cutoff_p", 5, 2, 100);
  o.cutoff_applies_to = options.flag("apply_cutoff", true) ? "basis" : "weights";
  o.radial_mlp = options.integers("radial_mlp", {64, 64, 64}, 1);
  o.transform = options.choice("distance_transform", "none", {"none", "agnesi", "soft"});
  o.repulsion = options.choice("pair_repulsion", "none", {"none", "zbl"});
  o.first = interaction(options, "interaction_first");
  o.later = interaction(options, "interaction");
  o.readout = options.choice("readout", "NonLinearReadoutBlock", {"NonLinearReadoutBlock", "NonLinearBiasReadoutBlock"});
  const Irreps readout = parse_irreps(options, "MLP_irreps", options.text("MLP_irreps", "16x0e"));
  if (readout.size() != 1 || !(readout[0].ir == scalar) || readout[0].mul < 1) options.refuse("MLP_irreps", "expected scalars such as 16x0e");
  o.readout_width = readout[0].mul;
  o.activation = options.choice("gate", "silu", {"silu", "tanh", "abs", "none"});
  o.agnostic_product = options.flag("use_agnostic_product", false);
  o.last_readout_only = options.flag("use_last_readout_only", false);
  if (o.last_readout_only && o.layers == 1) options.refuse("use_last_readout_only", "needs layers > 1: the only layer of this model is read out anyway");
  o.keep_last_irreps = options.flag("keep_last_layer_irreps", false);
  o.edge_irreps_given = options.has("edge_irreps");
  if (o.edge_irreps_given) {
    o.edge = parse_irreps(options, "edge_irreps", options.text("edge_irreps", ""));
    for (const MulIrrep& entry : o.edge)
      if (!o.hidden.count(entry.ir)) options.refuse("edge_irreps", "has " + entry.ir.str() + ", which the hidden irreps " + o.hidden.str() + " lack");
    if (!o.edge.count(scalar)) options.refuse("edge_irreps", "expected scalars 0e among them");
  }
  o.edge_irreps_first = options.flag("use_edge_irreps_first", false);
  if (o.edge_irreps_first && !o.edge_irreps_given) options.refuse("use_edge_irreps_first", "needs edge_irreps");
  options.finish(mace_torch_names);
  return o;
}

ordered_json radial(const MaceOptions& o, const ModelData& data, Blueprint& blueprint) {
  ordered_json out = {{"distance_transform", nullptr}, {"pair_repulsion", nullptr}};
  if (o.basis == "bessel") {
    out["radial_basis"] = {{"type", "bessel"}, {"prefactor", std::sqrt(2.0 / o.r_max)}};
    blueprint.add_values("radial_basis.frequencies", bessel_frequencies(o.r_max, o.basis_size));
  } else if (o.basis == "gaussian") {
    const double distance = o.r_max / (o.basis_size - 1);
    out["radial_basis"] = {{"type", "gaussian"}, {"coefficient", -0.5 / (distance * distance)}};
    std::vector<double> centers;
    for (int n = 0; n < o.basis_size; ++n) centers.push_back(n * distance);
    blueprint.add_values("radial_basis.centers", std::move(centers));
  } else {
    out["radial_basis"] = {{"type", "chebyshev"}, {"size", o.basis_size}};
  }
  out["cutoff_function"] = {{"type", "polynomial"}, {"p", o.cutoff_p}};
  out["cutoff_applies_to"] = o.cutoff_applies_to;
  if (o.transform == "agnesi") out["distance_transform"] = {{"type", "agnesi"}, {"q", 0.9183}, {"p", 4.5791}, {"a", 1.0805}};
  if (o.transform == "soft") out["distance_transform"] = {{"type", "soft"}, {"alpha", 4.0}};
  if (o.repulsion == "zbl")
    out["pair_repulsion"] = {{"type", "zbl"}, {"p", o.cutoff_p}, {"a_exp", 0.3}, {"a_prefactor", 0.4543}, {"c", {0.1818, 0.5099, 0.2802, 0.02817}}};
  if (o.transform != "none" || o.repulsion != "none") {
    std::vector<double> radii;
    for (const int z : data.elements) radii.push_back(covalent_radii.at(z - 1));
    blueprint.add_values("covalent_radii", std::move(radii));
  }
  return out;
}

/// All degrees of the edge harmonics; with pseudoscalars among the features both parities, but for the first layer, whose features are scalars.
Irreps message_irreps(const MaceOptions& o, bool first) {
  std::vector<MulIrrep> entries;
  for (const Irrep ir : edge_harmonics(o.l_max, !o.so3)) {
    if (o.hidden.count({0, -1}) && !first) {
      entries.push_back({o.channels, {ir.l, -1}});
      entries.push_back({o.channels, {ir.l, 1}});
    } else {
      entries.push_back({o.channels, ir});
    }
  }
  return Irreps(entries);
}

ordered_json readout(const MaceOptions& o, int t, std::size_t heads, Blueprint& blueprint) {
  const std::string name = "layers." + std::to_string(t) + ".readout.";
  const bool last = t + 1 == o.layers;
  if (!last && o.last_readout_only) return nullptr;
  const std::size_t in = o.channels, width = o.readout_width;
  if (!last || o.layers == 1) {  // mace-torch gives a model of one layer a linear readout
    blueprint.add(name + "0", {heads, in, 1});
    return {{"layers", 1}, {"activation", "silu"}};
  }
  const bool bias = o.readout == "NonLinearBiasReadoutBlock";
  if (o.activation == "none") {  // linear maps one after the other are one
    blueprint.add(name + "0", {heads, in, 1});
    if (bias) blueprint.add(name + "0.bias", {heads, 1}, 0.0);
    return {{"layers", 1}, {"activation", "silu"}};
  }
  int n = 0;
  blueprint.add(name + std::to_string(n++), {heads, in, width});
  if (bias) {
    blueprint.add(name + std::to_string(n) + ".bias", {heads, width}, 0.0);
    blueprint.add(name + std::to_string(n++), {heads, width, width});
    blueprint.add(name + std::to_string(n) + ".bias", {heads, 1}, 0.0);
  }
  blueprint.add(name + std::to_string(n++), {heads, width, 1});
  return {{"layers", n}, {"activation", o.activation}};
}

void contraction(const MaceOptions& o, int t, const Irreps& message, const Irreps& out, std::size_t elements, Blueprint& blueprint) {
  std::vector<Irrep> in;
  for (const MulIrrep& entry : message) in.push_back(entry.ir);
  for (const Irrep ir : out.kinds())
    for (int nu = 1; nu <= o.correlation[t]; ++nu) {
      const gnn::SymmetricCoupling coupling = gnn::symmetric_coupling(in, ir, nu);
      const bool couples = std::any_of(coupling.components.begin(), coupling.components.end(), [](const auto& c) { return !c.empty(); });
      blueprint.add("layers." + std::to_string(t) + ".contraction." + ir.str() + "." + std::to_string(nu),
                    {o.agnostic_product ? 1 : elements, std::size_t(coupling.paths), std::size_t(o.channels)}, couples ? 1.0 / coupling.paths : 0.0);
    }
}

ordered_json layer(const Options& options, const MaceOptions& o, int t, const ModelData& data, Blueprint& blueprint) {
  const std::string name = "layers." + std::to_string(t);
  const bool first = t == 0, last = t + 1 == o.layers;
  const Interaction& kind = first ? o.first : o.later;
  const Irreps scalars({{o.channels, scalar}});
  const Irreps in = first ? scalars : o.hidden;
  Irreps conv = in;
  if (first && o.edge_irreps_first) conv = Irreps({{o.edge.count(scalar), scalar}});
  if (!first && o.edge_irreps_given) conv = o.edge;
  const Irreps message = message_irreps(o, first);
  // mace-torch keeps the irreps of the only layer of a model away whatever the option says
  const Irreps out = last && (first || !o.keep_last_irreps) ? scalars : o.hidden;

  const std::vector<Path> paths = convolution_paths(conv, edge_harmonics(o.l_max, !o.so3), message);
  const Irreps reached = path_irreps(paths);
  for (const MulIrrep& entry : message)
    if (!reached.count(entry.ir)) options.refuse("hidden_irreps", "no path of layer " + std::to_string(t) + " leads to " + entry.ir.str() + " of the messages");

  ordered_json spec = {
      {"features_in", in.str()}, {"irreps_conv", conv.str()}, {"irreps_message", message.str()}, {"features_out", out.str()}, {"paths", path_list(paths)}};
  spec["radial_mlp"] = add_radial_mlp(blueprint, name, o.basis_size, o.radial_mlp, paths, "silu");
  spec["normalization"] = kind.normalization;
  if (kind.normalization == "constant") spec["normalization_constant"] = data.average_neighbors;
  if (kind.normalization == "density") blueprint.add(name + ".density", {std::size_t(o.basis_size), 1});
  spec["skip"] = kind.skip;
  spec["update"] = {{"type", "contraction"}, {"correlation", o.correlation[t]}};
  spec["readout"] = readout(o, t, data.heads.size(), blueprint);

  const std::size_t elements = data.elements.size();
  blueprint.add_linear(name + ".up", in, conv);
  blueprint.add_linear(name + ".linear", reached, message);
  if (kind.skip == "features") blueprint.add_linear(name + ".skip", in, out, elements);
  if (kind.skip == "message") blueprint.add_linear(name + ".skip", message, message, elements);
  contraction(o, t, message, out, elements, blueprint);
  blueprint.add_linear(name + ".product", out, out);
  return spec;
}

}  // namespace

Blueprint mace_blueprint(Options& options, const ModelData& data) {
  const MaceOptions o = read_options(options);
  Blueprint blueprint;
  blueprint.architecture["r_max"] = o.r_max;
  for (const Irrep ir : edge_harmonics(o.l_max, !o.so3)) blueprint.architecture["edge_harmonics"].push_back(ir.str());
  blueprint.architecture.update(radial(o, data, blueprint));
  blueprint.add("embedding", {data.elements.size(), std::size_t(o.channels)});
  blueprint.architecture["layers"] = ordered_json::array();
  for (int t = 0; t < o.layers; ++t) blueprint.architecture["layers"].push_back(layer(options, o, t, data, blueprint));
  return blueprint;
}

}  // namespace adatom::training
