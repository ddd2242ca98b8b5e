// SPDX-License-Identifier: MIT
// New models of the NequIP family (arXiv 2101.03164), as sevenn 0.13 (SevenNet, arXiv 2402.03789) builds them.
#include <algorithm>
#include <cmath>

#include "training/blueprint.hpp"
#include "training/parameters.hpp"

namespace adatom::training {

using gnn::Irrep;
using gnn::Irreps;
using gnn::MulIrrep;
using nlohmann::ordered_json;

namespace {

constexpr Irrep scalar{0, 1};
const std::vector<std::string> activations = {"silu", "tanh", "ssp", "sigmoid", "relu", "abs"};

/// Names of sevenn's options for keys that are called otherwise here.
const std::map<std::string, std::string> sevenn_names = {{"channel", "channels"},
                                                         {"lmax", "l_max"},
                                                         {"lmax_edge", "l_max_edge"},
                                                         {"num_convolution_layer", "layers"},
                                                         {"cutoff", "r_max"},
                                                         {"is_parity", "parity"},
                                                         {"irreps_manual", "hidden_irreps"},
                                                         {"weight_nn_hidden_neurons", "radial_mlp"},
                                                         {"bessel_basis_num", "radial_basis_size"},
                                                         {"poly_cut_p_value", "cutoff_p"},
                                                         {"act_radial", "radial_activation"},
                                                         {"act_scalar", "scalar_activation"},
                                                         {"act_gate", "gate_activation"},
                                                         {"self_connection_type", "self_connection"},
                                                         {"conv_denominator", "normalization"},
                                                         {"readout_fcn_hidden_neurons", "readout_mlp"},
                                                         {"readout_fcn_activation", "readout_activation"},
                                                         {"use_bias_in_linear", "bias"}};

struct NequipOptions {
  int channels, l_max, l_max_edge, layers, basis_size, cutoff_p = 0;
  double r_max, cutoff_on = 0.0;
  bool parity, bias, solid_harmonics;
  bool modal_embedding, modal_up, modal_linear, modal_readout;
  std::vector<Irreps> hidden;  ///< features before layer 0, after layer 0, ...; empty: as channels and l_max say
  std::vector<int> radial_mlp, readout_mlp;
  std::vector<std::string> self_connection;
  std::string cutoff, radial_activation, scalar_activation, gate_activation, readout_activation, normalization;
};

void read_hidden(Options& options, NequipOptions& o) {
  const auto texts = options.texts("hidden_irreps");
  if (!texts) return;
  if (texts->size() != std::size_t(o.layers) + 1)
    options.refuse("hidden_irreps", "expected " + std::to_string(o.layers + 1) + " irreps: of the embedding, and after each of the layers");
  for (const std::string& text : *texts) {
    const Irreps irreps = parse_irreps(options, "hidden_irreps", text);
    bool scalars_first = irreps.size() > 0 && irreps.kinds().size() == irreps.size();
    for (std::size_t e = 1; e < irreps.size(); ++e) scalars_first = scalars_first && (irreps[e].ir.l > 0 || irreps[e - 1].ir.l == 0);
    for (const MulIrrep& entry : irreps) scalars_first = scalars_first && entry.mul > 0 && (o.parity || entry.ir.p > 0);
    if (!scalars_first || !irreps.count(scalar))
      options.refuse("hidden_irreps", std::string("expected irreps such as ") + (o.parity ? "32x0e+16x1o" : "32x0e+16x1e, all even without parity") +
                                          ", scalars first, 0e among them, each once");
    if (irreps.lmax() > 3) options.refuse("hidden_irreps", "degrees up to 3 are supported");
    o.hidden.push_back(irreps);
  }
  if (o.hidden.front().lmax() > 0 || o.hidden.front().size() != 1)
    options.refuse("hidden_irreps", "expected scalars 0e alone in the first entry, the embedding");
  if (o.hidden.back().lmax() > 0 || o.hidden.back().size() != 1)
    options.refuse("hidden_irreps", "expected scalars 0e alone in the last entry, which is read out");
}

NequipOptions read_options(Options& options) {
  NequipOptions o;
  o.parity = options.flag("parity", true);
  o.layers = options.integer("layers", 3, 1, most_layers);
  read_hidden(options, o);
  const bool given = !o.hidden.empty();
  int largest = 0;
  for (const Irreps& irreps : o.hidden) largest = std::max(largest, irreps.lmax());
  o.channels = options.integer("channels", given ? o.hidden.front()[0].mul : 32, 1, most_width);
  o.l_max = options.integer("l_max", given ? largest : 1, 0, 3);
  if (given && o.channels != o.hidden.front()[0].mul) options.refuse("channels", "contradicts hidden_irreps: give one of the two");
  if (given && o.l_max != largest) options.refuse("l_max", "contradicts hidden_irreps: give one of the two");
  o.l_max_edge = options.integer("l_max_edge", o.l_max, 0, 3);
  o.r_max = options.number("r_max", 4.5, 0.0);
  o.basis_size = options.integer("radial_basis_size", 8, 1, most_width);
  o.cutoff = options.choice("cutoff_function", "polynomial", {"polynomial", "xplor"});
  if (o.cutoff == "polynomial") {
    o.cutoff_p = options.integer("cutoff_p", 6, 2, 100);
    if (options.has("cutoff_on")) options.refuse("cutoff_on", "is for cutoff_function = xplor, which is polynomial");
  } else {
    o.cutoff_on = options.number("cutoff_on", 0.9 * o.r_max, 0.0);
    if (!(o.cutoff_on < o.r_max)) options.refuse("cutoff_on", "expected a distance below r_max");
    if (options.has("cutoff_p")) options.refuse("cutoff_p", "is for cutoff_function = polynomial, which is xplor");
  }
  o.solid_harmonics = options.flag("solid_harmonics", false);
  o.radial_mlp = options.integers("radial_mlp", {64, 64}, 1);
  o.radial_activation = options.choice("radial_activation", "silu", activations);
  o.scalar_activation = options.choice("scalar_activation", "silu", {"silu", "ssp"});
  o.gate_activation = options.choice("gate_activation", "silu", {"silu", "ssp"});
  o.self_connection = options.choices_of_layers("self_connection", "nequip", o.layers, {"nequip", "linear"});
  o.normalization = options.choice("normalization", "neighbors", {"neighbors", "sqrt_neighbors"});
  o.bias = options.flag("bias", false);
  o.readout_mlp = options.integers("readout_mlp", {}, 1);
  if (o.readout_mlp.empty()) {
    if (options.has("readout_activation")) options.refuse("readout_activation", "needs readout_mlp, the widths of hidden layers");
  } else {
    o.readout_activation = options.choice("readout_activation", "relu", activations);
  }
  o.modal_embedding = options.flag("use_modal_node_embedding", false);
  o.modal_up = options.flag("use_modal_self_inter_intro", false);
  o.modal_linear = options.flag("use_modal_self_inter_outro", false);
  o.modal_readout = options.flag("use_modal_output_block", false);
  if (o.modal_readout && !o.readout_mlp.empty()) options.refuse("use_modal_output_block", "does not go with readout_mlp");
  options.finish(sevenn_names);
  return o;
}

/// Features after layer t: every irrep that paths lead to, up to l_max; after the last layer even scalars alone.
Irreps features_after(const NequipOptions& o, int t, const Irreps& before, const std::vector<Irrep>& harmonics) {
  if (!o.hidden.empty()) return o.hidden[t + 1];
  std::vector<Irrep> kinds;
  for (const Irrep a : before.kinds())
    for (const Irrep& y : harmonics)
      for (const Irrep& out : gnn::product(a, y)) {
        const bool kept = t + 1 == o.layers ? out == scalar : out.l <= o.l_max;
        if (kept && std::find(kinds.begin(), kinds.end(), out) == kinds.end()) kinds.push_back(out);
      }
  std::sort(kinds.begin(), kinds.end());
  std::vector<MulIrrep> entries;
  for (const Irrep ir : kinds) entries.push_back({o.channels, ir});
  return Irreps(entries);
}

/// What the convolution keeps: all irreps that paths lead to up to the largest degree of the features (the even ones in the last layer), whether
/// these have them or not.
Irreps convolution_targets(const NequipOptions& o, int t, const Irreps& before, const Irreps& after, const std::vector<Irrep>& harmonics) {
  std::vector<MulIrrep> entries;
  for (const Irrep a : before.kinds())
    for (const Irrep& y : harmonics)
      for (const Irrep& out : gnn::product(a, y))
        if (out.l <= after.lmax() && (out.p > 0 || t + 1 < o.layers)) entries.push_back({1, out});
  return Irreps(entries);
}

/// The gate's input: scalars, gates, gated.
Irreps gate_input(const Irreps& out) {
  std::vector<MulIrrep> scalars, gated;
  int gates = 0;
  for (const MulIrrep& entry : out) {
    (entry.ir.l == 0 ? scalars : gated).push_back(entry);
    if (entry.ir.l > 0) gates += entry.mul;
  }
  if (gates) scalars.push_back({gates, scalar});
  scalars.insert(scalars.end(), gated.begin(), gated.end());
  return Irreps(scalars);
}

ordered_json gate(const NequipOptions& o, const Irreps& out) {
  ordered_json spec = {{"type", "gate"}, {"scalar_activation", ordered_json::object()}, {"scalar_factor", ordered_json::object()}};
  for (const MulIrrep& entry : out) {
    if (entry.ir.l > 0) continue;
    const std::string name = entry.ir == scalar ? o.scalar_activation : "tanh";  // of a pseudoscalar: odd, so that the result is one
    spec["scalar_activation"][entry.ir.str()] = name;
    spec["scalar_factor"][entry.ir.str()] = activation_factor(name);
  }
  if (out.lmax() > 0) {
    spec["gate_irrep"] = scalar.str();
    spec["gate_activation"] = o.gate_activation;
    spec["gate_factor"] = activation_factor(o.gate_activation);
  }
  return spec;
}

/// The bias of a linear map: zero at first, or with an input for the modality a random row for each head.
void add_bias(const std::string& name, const NequipOptions& o, bool modal, const ModelData& data, std::size_t in, const Irreps& out, Blueprint& blueprint) {
  const std::size_t heads = data.heads.size();
  modal = modal && heads > 1;
  if (o.bias || modal) blueprint.add(name, {heads, std::size_t(out.count(scalar))}, modal ? 1.0 / std::sqrt(static_cast<double>(in + heads)) : 0.0);
}

ordered_json readout(const NequipOptions& o, const std::string& layer, const ModelData& data, const Irreps& features, Blueprint& blueprint) {
  const std::size_t heads = data.heads.size();
  std::size_t in = features.count(scalar), n = 0;
  for (const int width : o.readout_mlp) {
    blueprint.add(layer + ".readout." + std::to_string(n++), {heads, in, std::size_t(width)});
    in = width;
  }
  blueprint.add(layer + ".readout." + std::to_string(n++), {heads, in, 1});
  if (o.readout_mlp.empty()) add_bias(layer + ".readout.0.bias", o, o.modal_readout, data, in, Irreps({{1, scalar}}), blueprint);
  return {{"layers", n}, {"activation", o.readout_mlp.empty() ? "silu" : o.readout_activation}};
}

}  // namespace

Blueprint nequip_blueprint(Options& options, const ModelData& data) {
  const NequipOptions o = read_options(options);
  const std::size_t elements = data.elements.size(), heads = data.heads.size();
  if (heads == 1)
    for (const char* key : {"use_modal_node_embedding", "use_modal_self_inter_intro", "use_modal_self_inter_outro", "use_modal_output_block"})
      if (options.resolved().at(key).get<bool>()) options.refuse(key, "needs several heads, there is one");
  const std::vector<Irrep> harmonics = edge_harmonics(o.l_max_edge, o.parity);

  Blueprint blueprint;
  ordered_json& architecture = blueprint.architecture;
  architecture["r_max"] = o.r_max;
  for (const Irrep& ir : harmonics) architecture["edge_harmonics"].push_back(ir.str());
  architecture["radial_basis"] = {{"type", "bessel"}, {"prefactor", 2.0 / o.r_max}};
  blueprint.add_values("radial_basis.frequencies", bessel_frequencies(o.r_max, o.basis_size));
  if (o.cutoff == "polynomial")
    architecture["cutoff_function"] = {{"type", "polynomial"}, {"p", o.cutoff_p}};
  else
    architecture["cutoff_function"] = {{"type", "xplor"}, {"r_on", o.cutoff_on}};
  architecture["cutoff_applies_to"] = "basis";
  architecture["distance_transform"] = nullptr;
  architecture["pair_repulsion"] = nullptr;
  if (o.solid_harmonics) architecture["solid_harmonics"] = true;

  Irreps features = o.hidden.empty() ? Irreps({{o.channels, scalar}}) : o.hidden.front();
  const std::size_t width = features.count(scalar);
  const bool embedding_of_heads = heads > 1 && (o.modal_embedding || o.bias);
  blueprint.add("embedding", embedding_of_heads ? std::vector<std::size_t>{heads, elements, width} : std::vector<std::size_t>{elements, width});
  for (int t = 0; t < o.layers; ++t) {
    const std::string name = "layers." + std::to_string(t);
    const Irreps out = features_after(o, t, features, harmonics);
    const std::vector<Path> paths = convolution_paths(features, harmonics, convolution_targets(o, t, features, out, harmonics));
    const Irreps reached = path_irreps(paths), message = gate_input(out);
    for (const MulIrrep& entry : message)
      if (!reached.count(entry.ir)) options.refuse("hidden_irreps", "no path of layer " + std::to_string(t) + " leads to " + entry.ir.str());

    ordered_json spec = {{"features_in", features.str()},
                         {"irreps_conv", features.str()},
                         {"irreps_message", message.str()},
                         {"features_out", out.str()},
                         {"paths", path_list(paths)}};
    spec["radial_mlp"] = add_radial_mlp(blueprint, name, o.basis_size, o.radial_mlp, paths, o.radial_activation);
    spec["normalization"] = "constant";
    spec["normalization_constant"] = o.normalization == "neighbors" ? data.average_neighbors : std::sqrt(data.average_neighbors);
    spec["skip"] = "features";
    spec["update"] = gate(o, out);
    spec["readout"] = t + 1 == o.layers ? readout(o, name, data, out, blueprint) : ordered_json(nullptr);
    architecture["layers"].push_back(spec);

    blueprint.add_linear(name + ".up", features, features);
    add_bias(name + ".up.bias", o, o.modal_up, data, features.count(scalar), features, blueprint);
    blueprint.add_linear(name + ".linear", reached, message);
    add_bias(name + ".linear.bias", o, o.modal_linear, data, reached.count(scalar), message, blueprint);
    blueprint.add_linear(name + ".skip", features, message, o.self_connection[t] == "nequip" ? elements : 1);
    features = out;
  }
  return blueprint;
}

}  // namespace adatom::training
