// SPDX-License-Identifier: MIT
#include "gnn/network.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "gnn/build.hpp"
#include "gnn/coupling.hpp"
#include "gnn/radial_assembly.hpp"
#include "gnn/radial_table.hpp"

namespace adatom::gnn {

using nlohmann::json;

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

namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error("model: " + what); }

std::string shape_string(const std::vector<std::size_t>& shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

/// Hands out tensors, checks their shapes, and knows which were never asked for.
class Weights {
 public:
  explicit Weights(const Tensors& tensors) : tensors_(tensors) {}

  const Tensor* find(const std::string& name) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) return nullptr;
    used_.insert(name);
    return &it->second;
  }
  const Tensor& get(const std::string& name) {
    const Tensor* t = find(name);
    if (!t) fail("tensor '" + name + "' is missing although the architecture calls for it");
    return *t;
  }
  const Tensor& get(const std::string& name, const std::vector<std::size_t>& shape) {
    const Tensor& t = get(name);
    if (t.shape != shape) fail("tensor '" + name + "' has shape " + shape_string(t.shape) + ", expected " + shape_string(shape));
    return t;
  }
  /// First axis `count`, or 1 for "the same for all".
  const Tensor& get_per(const std::string& name, std::size_t count, std::size_t a, std::size_t b) {
    const Tensor& t = get(name);
    if (t.shape.size() != 3 || (t.shape[0] != count && t.shape[0] != 1) || t.shape[1] != a || t.shape[2] != b)
      fail("tensor '" + name + "' has shape " + shape_string(t.shape) + ", expected " + shape_string({count, a, b}) + " or " + shape_string({1, a, b}));
    return t;
  }
  void check_all_used() const {
    for (const auto& [name, tensor] : tensors_)
      if (!used_.count(name)) fail("tensor '" + name + "' is not used by the architecture; the file was written for something this version does not know");
  }

 private:
  const Tensors& tensors_;
  std::set<std::string> used_;
};

/// A layout together with the padded index of each channel of each irrep: entries of an irreps list are padded one by one.
struct Channels {
  FeatureLayout layout;
  std::vector<std::vector<int>> index;    ///< per block: padded channel of each channel as the file counts them
  std::vector<std::vector<int>> entries;  ///< per block: padded first channel of each entry

  const FeatureBlock& block(Irrep ir) const { return *layout.find(ir); }
  const std::vector<int>& channels(Irrep ir) const { return index[static_cast<std::size_t>(layout.find(ir) - layout.blocks.data())]; }
};

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

Activation activation_of(const json& name) {
  const std::string s = name.get<std::string>();
  if (s == "silu") return Activation::silu;
  if (s == "ssp") return Activation::shifted_softplus;
  if (s == "tanh") return Activation::tanh;
  if (s == "abs") return Activation::abs;
  if (s == "sigmoid") return Activation::sigmoid;
  if (s == "relu") return Activation::relu;
  if (s == "identity") return Activation::identity;
  fail("activation '" + s + "' is not supported (silu, ssp, tanh, abs, sigmoid, relu, identity are)");
}

class Builder {
 public:
  /// With `assembly` the network is one for training, and the steps that assemble it again are left there.
  Builder(const json& architecture, const Tensors& tensors, const NetworkOptions& options, Assembly* assembly)
      : architecture_(architecture), weights_(tensors), options_(options), all_(options.elements.size()), assembly_(assembly) {}

  Network build() {
    network_.trainable = assembly_ != nullptr;
    const double r_max = architecture_.at("r_max");
    network_.cutoff = r_max;
    network_.splines = options_.splines;
    network_.solid_harmonics = architecture_.value("solid_harmonics", false);
    for (const int z : options_.keep) network_.elements.push_back(options_.elements.at(z));
    if (network_.elements.empty()) fail("no element is kept");
    build_radial();
    build_energies();
    build_embedding();
    const json& layers = architecture_.at("layers");
    if (layers.empty()) fail("the architecture has no layers");
    for (std::size_t t = 0; t < layers.size(); ++t) build_layer(layers[t], t);
    weights_.check_all_used();
    if (options_.detectors) network_.detectors = build_detectors(*options_.detectors, network_.features(), options_);
    summarize(layers);
    return std::move(network_);
  }

 private:
  // ------------------------------------------------------------------------------------------------ whole model
  void build_radial() {
    Radial& radial = network_.radial;
    const json& basis = architecture_.at("radial_basis");
    const std::string type = basis.at("type");
    if (type == "bessel") {
      radial.basis.type = RadialBasis::Type::bessel;
      radial.basis.parameters = weights_.get("radial_basis.frequencies").data;
      radial.basis.factor = basis.at("prefactor");
    } else if (type == "gaussian") {
      radial.basis.type = RadialBasis::Type::gaussian;
      radial.basis.parameters = weights_.get("radial_basis.centers").data;
      radial.basis.factor = basis.at("coefficient");
    } else if (type == "chebyshev") {
      radial.basis.type = RadialBasis::Type::chebyshev;
      radial.basis.parameters.resize(basis.at("size").get<std::size_t>());
    } else {
      fail("radial basis '" + type + "' is not supported (bessel, gaussian, chebyshev are)");
    }
    const json& cutoff = architecture_.at("cutoff_function");
    radial.cutoff.r_max = network_.cutoff;
    const std::string cutoff_type = cutoff.at("type");
    if (cutoff_type == "polynomial") {
      radial.cutoff.p = cutoff.at("p");
    } else if (cutoff_type == "xplor") {
      radial.cutoff.type = CutoffFunction::Type::xplor;
      radial.cutoff.r_on = cutoff.at("r_on");
    } else {
      fail("cutoff function '" + cutoff_type + "' is not supported (polynomial, xplor are)");
    }
    const std::string applies = architecture_.at("cutoff_applies_to");
    if (applies != "basis" && applies != "weights") fail("cutoff_applies_to is '" + applies + "', expected basis or weights");
    radial.cutoff_on_basis = applies == "basis";
    if (const json& t = architecture_.at("distance_transform"); !t.is_null()) {
      const std::string name = t.at("type");
      if (name == "agnesi") {
        radial.transform.type = DistanceTransform::Type::agnesi;
        radial.transform.q = t.at("q");
        radial.transform.p = t.at("p");
        radial.transform.a = t.at("a");
      } else if (name == "soft") {
        radial.transform.type = DistanceTransform::Type::soft;
        radial.transform.alpha = t.at("alpha");
      } else {
        fail("distance transform '" + name + "' is not supported (agnesi, soft are)");
      }
    }
    if (const json& t = architecture_.at("pair_repulsion"); !t.is_null()) {
      network_.repels = true;
      PairRepulsion& zbl = network_.repulsion;
      zbl.p = t.at("p");
      zbl.a_exp = t.at("a_exp");
      zbl.a_prefactor = t.at("a_prefactor");
      for (int i = 0; i < 4; ++i) zbl.c[i] = t.at("c").at(i);
    }
    if (network_.repels || radial.depends_on_pair()) {
      const Tensor& radii = weights_.get("covalent_radii", {all_});
      for (const int z : options_.keep) network_.radii.push_back(radii.data[z]);
    }
  }

  void build_energies() {
    const std::size_t heads = options_.heads;
    const Tensor &e0 = weights_.get("atomic_energies", {heads, all_}), &shift = weights_.get("shift", {heads, all_}),
                 &scale = weights_.get("scale", {heads, all_});
    for (const int z : options_.keep) {
      const std::size_t at = options_.head * all_ + z;
      network_.energy_offset.push_back(e0.data[at] + shift.data[at]);
      network_.scale.push_back(scale.data[at]);
    }
  }

  void build_embedding() {
    const Tensor& t = weights_.get("embedding");
    const bool per_head = t.shape.size() == 3;
    if (t.shape.size() < 2 || t.shape[t.shape.size() - 2] != all_ || (per_head && t.shape[0] != std::size_t(options_.heads)))
      fail("tensor 'embedding' has shape " + shape_string(t.shape) + ", expected [Z, C] or [H, Z, C]");
    const std::size_t c = t.shape.back();
    for (const int z : options_.keep) {
      const std::size_t at = ((per_head ? options_.head : 0) * all_ + z) * c;
      embedding_.emplace_back(&t.data[at], &t.data[at] + c);
      if (assembly_) embedding_offset_.push_back(assembly_->offset(t) + at);
    }
  }

  // ------------------------------------------------------------------------------------------------ training
  /// Copies entries of a tensor, times factors, to an array, now and whenever the network is assembled again.
  class Copy {
   public:
    /// The array must not change its size or place any more (a vector may be moved). `id`: see Matrix; null where the gradient belongs to another array.
    Copy(Builder& builder, std::vector<double>& array, int* id) : array_(array), assembly_(builder.assembly_) {
      if (!assembly_) return;
      auto step = std::make_unique<CopyStep>(array.data(), id ? * id = builder.new_array(array.size()) : -1);
      step_ = step.get();
      assembly_->copies.push_back(std::move(step));
    }
    /// For an array whose number is known.
    Copy(Builder& builder, std::vector<double>& array, const Tensor& tensor, std::size_t from, int* id) : Copy(builder, array, id) {
      for (std::size_t k = 0; k < array.size(); ++k) add(k, tensor, from + k);
    }
    void add(std::size_t to, const Tensor& tensor, std::size_t from, double factor = 1.0) {
      array_[to] += factor * tensor.data[from];
      if (step_) step_->add(to, assembly_->offset(tensor) + from, factor);
    }

   private:
    std::vector<double>& array_;
    Assembly* assembly_;
    CopyStep* step_ = nullptr;
  };
  int new_array(std::size_t size) {
    network_.array_sizes.push_back(size);
    return static_cast<int>(network_.array_sizes.size()) - 1;
  }

  void summarize(const json& layers) {
    const Layer& first = network_.layers.front();
    network_.summary = std::string(first.contracts ? "mace" : "nequip") + ", " + std::to_string(layers.size()) + " layers, features " +
                       layers.front().at("features_out").get<std::string>() + ", l_max " + std::to_string(network_.l_max);
    if (first.contracts) network_.summary += ", correlation " + std::to_string(layers.front().at("update").at("correlation").get<int>());
    network_.summary += ", cutoff " + json(network_.cutoff).dump() + " angstrom";
  }

  // ------------------------------------------------------------------------------------------------ parts of layers
  /// y = x W for one irrep; `tensor` is [in, out] or [count, in, out], of which the matrices of the kept elements are taken.
  LinearPart linear_part(const Tensor& tensor, Irrep ir, const Channels& in, const Channels& out) {
    LinearPart part;
    const FeatureBlock &bi = in.block(ir), &bo = out.block(ir);
    part.ir = ir;
    part.in = bi.offset, part.in_row = bi.channels, part.out = bo.offset, part.out_row = bo.channels;
    const std::vector<int>&ci = in.channels(ir), &co = out.channels(ir);
    const bool per_element = tensor.shape.size() == 3 && tensor.shape[0] > 1;
    for (std::size_t n = 0; n < (per_element ? options_.keep.size() : 1); ++n) {
      const std::size_t from = (per_element ? options_.keep[n] : 0) * ci.size() * co.size();
      Matrix m(bi.channels, bo.channels);
      Copy copy(*this, m.weight, &m.id);
      for (std::size_t i = 0; i < ci.size(); ++i)
        for (std::size_t o = 0; o < co.size(); ++o) copy.add(std::size_t(ci[i]) * bo.channels + co[o], tensor, from + i * co.size() + o);
      part.matrices.push_back(std::move(m));
    }
    return part;
  }

  /// All irreps that `in` and `out` share; `NAME.{irrep}` and `NAME.bias`.
  LinearMap linear_map(const std::string& name, const Channels& in, const Channels& out, bool per_element = false) {
    LinearMap map;
    for (const FeatureBlock& b : out.layout.blocks) {
      if (!in.layout.find(b.ir)) continue;
      const std::string full = name + "." + b.ir.str();
      const std::size_t rows = in.channels(b.ir).size(), columns = out.channels(b.ir).size();
      map.parts.push_back(linear_part(per_element ? weights_.get_per(full, all_, rows, columns) : weights_.get(full, {rows, columns}), b.ir, in, out));
    }
    if (const Tensor* bias = weights_.find(name + ".bias")) {
      const Irrep scalar{0, 1};
      if (!out.layout.find(scalar)) fail("tensor '" + name + ".bias' has no 0e channels to add to");
      const std::vector<int>& channels = out.channels(scalar);
      weights_.get(name + ".bias", {std::size_t(options_.heads), channels.size()});
      map.bias_offset = out.block(scalar).offset;
      map.bias.assign(out.block(scalar).channels, 0.0);
      Copy copy(*this, map.bias, &map.bias_id);
      for (std::size_t k = 0; k < channels.size(); ++k) copy.add(channels[k], *bias, options_.head * channels.size() + k);
    }
    return map;
  }

  /// a followed by b, where b has one matrix per element or one for all.
  static LinearMap merge(const LinearMap& a, const LinearMap& b) {
    LinearMap c;
    for (const LinearPart& pb : b.parts)
      for (const LinearPart& pa : a.parts) {
        if (!(pa.ir == pb.ir)) continue;
        LinearPart p = pa;
        p.out = pb.out, p.out_row = pb.out_row;
        p.matrices.clear();
        for (std::size_t n = 0; n < std::max(pa.matrices.size(), pb.matrices.size()); ++n) {
          const Matrix &ma = pa.matrices[pa.matrices.size() > 1 ? n : 0], &mb = pb.matrices[pb.matrices.size() > 1 ? n : 0];
          Matrix m(ma.in, mb.out);
          for (int i = 0; i < ma.in; ++i)
            for (int k = 0; k < ma.out; ++k)
              for (int o = 0; o < mb.out; ++o) m(i, o) += ma(i, k) * mb(k, o);
          p.matrices.push_back(std::move(m));
        }
        c.parts.push_back(std::move(p));
      }
    if (!a.bias.empty()) fail("a bias before a per-element map of the message is not supported");
    return c;
  }

  std::vector<MlpLayer> mlp(const std::string& name, int count, int first_in) {
    std::vector<MlpLayer> layers;
    for (int n = 0; n < count; ++n) {
      const std::string at = name + "." + std::to_string(n);
      const Tensor& w = weights_.get(at);
      MlpLayer layer;
      layer.in = n ? layers.back().out : first_in;
      if (w.shape.size() != 2 || w.shape[0] != std::size_t(layer.in))
        fail("tensor '" + at + "' has shape " + shape_string(w.shape) + ", expected [" + std::to_string(layer.in) + ", any]");
      layer.out = static_cast<int>(w.shape[1]);
      layer.weight = w.data;
      const std::vector<std::size_t> out{std::size_t(layer.out)};
      if (weights_.find(at + ".bias")) layer.bias = weights_.get(at + ".bias", out).data;
      if (weights_.find(at + ".norm_weight")) {
        layer.norm_weight = weights_.get(at + ".norm_weight", out).data;
        layer.norm_bias = weights_.get(at + ".norm_bias", out).data;
      }
      layers.push_back(std::move(layer));
    }
    return layers;
  }

  /// phi(r) of a pair of species: the activations that enter the MLP's last matrix.
  RadialFunctions hidden_functions(const Layer& layer) const {
    const Network* network = &network_;
    const std::vector<MlpLayer>* layers = &layer.radial_mlp;
    const Activation activation = layer.radial_activation;
    const bool constant = layer.radial_constant;
    return [=](int pair, Dual<double> r, Dual<double>* out) {
      std::size_t widest = network->radial.basis.size();
      for (const MlpLayer& l : *layers) widest = std::max<std::size_t>(widest, l.out);
      std::vector<Dual<double>> x(widest), scratch(widest);
      const Dual<double> factor = radial_basis(network->radial, r, Dual<double>(network->pair_radii(pair)), x.data());
      int size = network->radial.basis.size();
      hidden_layers(*layers, activation, x.data(), scratch.data(), size);
      for (int i = 0; i < size; ++i) out[i] = x[i] * factor;
      if (constant) out[size] = factor;
    };
  }

  void build_radial_mlp(Layer& layer, const json& spec, const std::string& name, const std::vector<std::pair<int, int>>& path_channels) {
    const json& s = spec.at("radial_mlp");
    layer.radial_activation = activation_of(s.at("activation"));
    layer.radial_mlp = mlp(name + ".radial_mlp", s.at("layers"), network_.radial.basis.size());
    const MlpLayer last = std::move(layer.radial_mlp.back());
    layer.radial_mlp.pop_back();
    layer.radial_constant = !last.bias.empty();
    layer.hidden = padded(last.in + (layer.radial_constant ? 1 : 0));
    int columns = 0, total = 0;
    for (const auto& [channels, padded_channels] : path_channels) columns += padded_channels, total += channels;
    if (total != last.out)
      fail("the last tensor of '" + name + ".radial_mlp' has " + std::to_string(last.out) + " columns, the paths need " + std::to_string(total));
    layer.radial_matrix = Matrix(layer.hidden, columns);
    int from = 0, to = 0;
    for (const auto& [channels, padded_channels] : path_channels) {
      for (int k = 0; k < channels; ++k) {
        for (int i = 0; i < last.in; ++i) layer.radial_matrix(i, to + k) = last.weight[std::size_t(i) * last.out + from + k];
        if (layer.radial_constant) layer.radial_matrix(last.in, to + k) = last.bias[from + k];
      }
      from += channels, to += padded_channels;
    }
  }

  // ------------------------------------------------------------------------------------------------ a layer
  void build_layer(const json& spec, std::size_t t) {
    const std::string name = "layers." + std::to_string(t);
    Layer layer;
    const Irreps in_irreps = Irreps::parse(spec.at("features_in").get<std::string>()), conv_irreps = Irreps::parse(spec.at("irreps_conv").get<std::string>()),
                 message_irreps = Irreps::parse(spec.at("irreps_message").get<std::string>()),
                 out_irreps = Irreps::parse(spec.at("features_out").get<std::string>());
    const bool first = t == 0;
    const Channels in = make_channels(in_irreps), conv = make_channels(conv_irreps), out = make_channels(out_irreps);
    layer.in_layout = in.layout, layer.conv_layout = conv.layout, layer.out_layout = out.layout;
    if (first && (in_irreps.count({0, 1}) != in_irreps.dim() || std::size_t(in_irreps.dim()) != embedding_.front().size()))
      fail("features_in of the first layer must be the " + std::to_string(embedding_.front().size()) + " scalars of the embedding, it is " + in_irreps.str());
    if (!first && !(in.layout.size == network_.layers.back().out_layout.size))
      fail("features_in of layer " + std::to_string(t) + " is " + in_irreps.str() + ", which is not what the layer before gives");
    layer.up = linear_map(name + ".up", in, conv);

    // Paths, and the channels of A.
    struct PathSpec {
      int entry, l2;
      Irrep out;
    };
    std::vector<PathSpec> path_specs;
    std::vector<MulIrrep> mid_entries;
    std::vector<std::pair<int, int>> path_channels;
    for (const json& p : spec.at("paths")) {
      PathSpec path{p.at(0), p.at(1), Irrep::parse(p.at(2).get<std::string>())};
      if (path.entry < 0 || std::size_t(path.entry) >= conv_irreps.size()) fail("a path of " + name + " names an entry of irreps_conv that is not there");
      const MulIrrep& from = conv_irreps[path.entry];
      if (path.l2 > max_edge_l || from.ir.l > max_edge_l || path.out.l > max_edge_l)
        fail("a path of " + name + " has l > " + std::to_string(max_edge_l) + ", the largest supported");
      if (std::abs(from.ir.l - path.l2) > path.out.l || path.out.l > from.ir.l + path.l2) fail("a path of " + name + " violates the triangle rule");
      network_.l_max = std::max(network_.l_max, path.l2);
      path_specs.push_back(path);
      mid_entries.push_back({from.mul, path.out});
      path_channels.emplace_back(from.mul, padded(from.mul));
    }
    const Channels mid = make_channels(mid_entries);
    build_radial_mlp(layer, spec, name, path_channels);

    // Where each path's channels start in its irrep's rows.
    std::vector<int> path_start(path_specs.size());
    for (const FeatureBlock& b : mid.layout.blocks) {
      int at = 0;
      for (std::size_t p = 0; p < path_specs.size(); ++p)
        if (path_specs[p].out == b.ir) path_start[p] = at, at += path_channels[p].second;
    }

    // Message, and what follows it.
    const std::string update = spec.at("update").at("type");
    layer.contracts = update == "contraction";
    if (!layer.contracts && update != "gate") fail("update '" + update + "' is not supported (contraction, gate are)");
    const Channels message = layer.contracts ? make_channels(message_irreps) : gate_channels(spec.at("update"), out_irreps, message_irreps, name);
    layer.message_layout = message.layout;

    const std::string normalization = spec.at("normalization");
    if (normalization == "density") {
      layer.density = weights_.get(name + ".density", {std::size_t(network_.radial.basis.size()), 1}).data;
    } else if (normalization != "constant") {
      fail("normalization '" + normalization + "' is not supported (constant, density are)");
    }
    const std::string skip = spec.at("skip");
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
    } else if (skip != "message" && skip != "none") {
      fail("skip '" + skip + "' is not supported (none, message, features are)");
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
        assemble_tables(layer, spec, name, path_channels);
      else
        build_tables(layer, first);
    }

    if (layer.contracts) {
      build_contraction(layer, spec.at("update").at("correlation"), name, message_irreps, out_irreps, out);
    } else {
      build_gate(layer, spec.at("update"), message, out, out_irreps);
    }

    const Irrep scalar{0, 1};
    if (const FeatureBlock* block = out.layout.find(scalar))
      for (const int channel : out.channels(scalar)) layer.scalars.push_back(block->offset + channel);
    if (const json& r = spec.at("readout"); !r.is_null()) build_readout(layer, r, name, out);
    network_.layers.push_back(std::move(layer));
  }

  static std::vector<CouplingTerm> coupling(int l1, int l2, int l3) {
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

  /// `map` applied to scalars of element z.
  static std::vector<double> apply(const LinearMap& map, const Channels& in, const std::vector<double>& x, std::size_t z, int size) {
    std::vector<double> y(size, 0.0);
    for (const LinearPart& p : map.parts) {
      if (!(p.ir == Irrep{0, 1})) continue;
      const Matrix& m = p.matrices[p.matrices.size() > 1 ? z : 0];
      const std::vector<int>& channels = in.channels({0, 1});
      for (std::size_t i = 0; i < x.size(); ++i)
        for (int o = 0; o < m.out; ++o) y[p.out + o] += x[i] * m(channels[i], o);
    }
    if (!map.bias.empty())
      for (std::size_t k = 0; k < map.bias.size(); ++k) y[map.bias_offset + k] += map.bias[k];
    return y;
  }

  /// `map` applied to every species' embedding.
  void apply_to_species(LinearMap map, const Channels& in, int size, std::vector<std::vector<double>>& y, int& id) {
    for (std::size_t z = 0; z < embedding_.size(); ++z) y.push_back(apply(map, in, embedding_[z], z, size));
    if (!assembly_) return;
    auto step = std::make_unique<SpeciesStep>();
    step->map = std::move(map);
    step->channels = in.channels({0, 1});
    step->embedding = embedding_offset_;
    for (auto& row : y) step->y.push_back(row.data());
    step->size = static_cast<std::size_t>(size);
    step->id = id = new_array(y.size() * step->size);
    assembly_->species.push_back(std::move(step));
  }

  /// First layer: the sender's features u_z are constants, so radial matrix, u_z and the linear map of the message are one matrix per pair of elements.
  template <class PathSpecs>
  void build_element_linear(Layer& layer, const Channels& in, const Channels& conv, const LinearMap& linear, const PathSpecs& specs,
                            const std::vector<int>& path_start) {
    Matrix functions = layer.radial_matrix;  // [c][columns]
    if (network_.splines) {
      reduced_ = reduce_functions(hidden_functions(layer), layer.radial_matrix, network_.pairs(), network_.cutoff, 1e-7);
      functions = reduced_.matrix;
    }
    layer.element_functions = functions.in;
    bool per_receiver = false;
    for (const LinearPart& p : linear.parts) per_receiver |= p.matrices.size() > 1;
    const std::size_t receivers = per_receiver ? options_.keep.size() : 1;
    std::vector<std::vector<double>> u;
    for (std::size_t z = 0; z < embedding_.size(); ++z) u.push_back(apply(layer.up, in, embedding_[z], z, conv.layout.size));
    layer.up = {};
    layer.element_linear.resize(receivers);
    for (std::size_t zi = 0; zi < receivers; ++zi)
      for (std::size_t zj = 0; zj < options_.keep.size(); ++zj) {
        LinearMap map;
        for (const LinearPart& p : linear.parts) {
          const Matrix& w = p.matrices[p.matrices.size() > 1 ? zi : 0];
          // Paths of this irrep; with scalar senders l3 = l2.
          LinearPart part;
          part.ir = p.ir;
          part.in = p.ir.l * p.ir.l * functions.in, part.in_row = functions.in;
          part.out = p.out, part.out_row = p.out_row;
          Matrix g(functions.in, w.out);
          int column = 0;
          for (std::size_t q = 0; q < specs.size(); ++q) {
            const int mul = padded_of(specs[q].entry, conv);
            if (specs[q].out == p.ir && specs[q].l2 == p.ir.l) {
              const int from = entry_offset(specs[q].entry, conv);
              for (int c = 0; c < functions.in; ++c)
                for (int k = 0; k < mul; ++k) {
                  const double x = functions(c, column + k) * u[zj][from + k];
                  if (x == 0.0) continue;
                  for (int o = 0; o < w.out; ++o) g(c, o) += x * w(path_start[q] + k, o);
                }
            }
            column += mul;
          }
          part.matrices.push_back(std::move(g));
          map.parts.push_back(std::move(part));
        }
        layer.element_linear[zi].push_back(std::move(map));
      }
  }
  // In the first layer all entries of irreps_conv are scalars, one block of the layout.
  static int entry_offset(int entry, const Channels& conv) { return conv.layout.blocks[0].offset + conv.entries[0][entry]; }
  static int padded_of(int entry, const Channels& conv) {
    const std::vector<int>& e = conv.entries[0];
    return (std::size_t(entry) + 1 < e.size() ? e[entry + 1] : conv.layout.blocks[0].channels) - e[entry];
  }

  void build_tables(Layer& layer, bool first) {
    const RadialFunctions phi = hidden_functions(layer);
    const Matrix& m = first ? reduced_.projection : layer.radial_matrix;
    const RadialFunctions combined = [&](int pair, Dual<double> r, Dual<double>* out) {
      std::vector<Dual<double>> x(layer.hidden);
      phi(pair, r, x.data());
      std::fill(out, out + m.out, Dual<double>());
      for (int i = 0; i < layer.hidden; ++i)
        for (int o = 0; o < m.out; ++o) out[o] = out[o] + x[i] * m(i, o);
    };
    layer.table = make_spline_table(combined, m.out, network_.pairs(), network_.cutoff, kink(), spline_tolerance);
    if (!layer.density.empty()) {
      const RadialFunctions density = [&](int pair, Dual<double> r, Dual<double>* out) {
        std::vector<Dual<double>> basis(network_.radial.basis.size());
        const Dual<double> factor = radial_basis(network_.radial, r, Dual<double>(network_.pair_radii(pair)), basis.data());
        Dual<double> d;
        for (std::size_t i = 0; i < basis.size(); ++i) d = d + basis[i] * layer.density[i];
        out[0] = tanh(d * d) * factor;
      };
      layer.density_table = make_spline_table(density, 1, network_.pairs(), network_.cutoff, kink(), spline_tolerance);
    }
  }

  /// Tables that are made again from the MLP's tensors, with as many knots as the weights of now need unless the options say how many.
  void assemble_tables(Layer& layer, const json& spec, const std::string& name, const std::vector<std::pair<int, int>>& path_channels) {
    if (!options_.knots) build_tables(layer, false);
    layer.table.functions = layer.radial_matrix.out;
    layer.density_table.functions = padded(1);
    const auto assemble = [&](SplineTable& table, auto&&... arguments) {
      int knots = options_.knots;
      if (!knots)
        for (const SplineTable::Segment& s : table.segments) knots += s.intervals;
      auto step = std::make_unique<RadialStep>(network_, table, make_collocation(network_.cutoff, kink(), knots), arguments...);
      table.id = new_array(table.coefficients.size() * table.rows * table.functions);
      step->set_id(table.id);
      assembly_->tables.push_back(std::move(step));
    };
    const auto offset = [&](const std::string& tensor) {
      const Tensor* t = weights_.find(tensor);
      return t ? static_cast<std::ptrdiff_t>(assembly_->offset(*t)) : std::ptrdiff_t(-1);
    };
    std::vector<MlpTensors> mlp;
    const int count = spec.at("radial_mlp").at("layers");
    for (int n = 0; n < count; ++n) {
      const std::string at = name + ".radial_mlp." + std::to_string(n);
      const int in = mlp.empty() ? network_.radial.basis.size() : mlp.back().out, out = static_cast<int>(weights_.get(at).shape[1]);
      mlp.push_back({in, out, offset(at), offset(at + ".bias"), offset(at + ".norm_weight"), offset(at + ".norm_bias")});
    }
    std::vector<int> columns;
    int to = 0;
    for (const auto& [channels, padded_channels] : path_channels) {
      for (int k = 0; k < channels; ++k) columns.push_back(to + k);
      to += padded_channels;
    }
    assemble(layer.table, mlp, layer.radial_activation, columns);
    if (!layer.density.empty()) assemble(layer.density_table, offset(name + ".density"));
  }
  /// Where the second derivative of the radial functions jumps; 0 for nowhere.
  double kink() const { return network_.radial.cutoff.type == CutoffFunction::Type::xplor ? network_.radial.cutoff.r_on : 0.0; }

  // ------------------------------------------------------------------------------------------------ updates
  void build_contraction(Layer& layer, int correlation, const std::string& name, const Irreps& message_irreps, const Irreps& out_irreps, const Channels& out) {
    Contraction& c = layer.contraction;
    if (correlation < 1 || correlation > 3) fail("correlation " + std::to_string(correlation) + " is not supported (1, 2, 3 are)");
    const int mul = message_irreps[0].mul;
    std::vector<Irrep> in;
    for (const MulIrrep& e : message_irreps) {
      if (e.mul != mul) fail("the message of " + name + " has irreps of different multiplicity, which a contraction cannot take: " + message_irreps.str());
      in.push_back(e.ir);
    }
    const Channels message = make_channels(message_irreps);
    c.channels = padded(mul);
    for (std::size_t e = 0; e < message_irreps.size(); ++e) {
      const FeatureBlock& b = message.block(message_irreps[e].ir);
      for (int m = 0; m < b.ir.dim(); ++m) c.inputs.push_back(b.row(m));
    }
    std::vector<MulIrrep> contracted;
    for (const Irrep ir : out_irreps.kinds()) contracted.push_back({mul, ir});
    const Channels contracted_channels = make_channels(contracted);
    c.out = contracted_channels.layout;
    for (const Irrep ir : out_irreps.kinds()) {
      std::vector<SymmetricCoupling> couplings;
      std::vector<const Tensor*> weights;
      for (int nu = 1; nu <= correlation; ++nu) {
        couplings.push_back(symmetric_coupling(in, ir, nu));
        weights.push_back(&weights_.get_per(name + ".contraction." + ir.str() + "." + std::to_string(nu), all_, couplings.back().paths, mul));
      }
      for (int m = 0; m < ir.dim(); ++m) c.components.push_back(component(couplings, weights, m, mul, c.out.find(ir)->row(m), c));
    }
    layer.product = linear_map(name + ".product", contracted_channels, out);
  }

  /// What a coefficient of the polynomial is a sum of: factor * weight of a path, in the tensor of an order nu = 1, 2, 3.
  struct Source {
    std::size_t order;
    int path;
    double factor;
  };
  /// Terms of a polynomial by their ascending indices, -1 where there are fewer than three.
  using Terms = std::map<std::array<int, 3>, std::vector<Source>>;

  ContractionComponent component(const std::vector<SymmetricCoupling>& couplings, const std::vector<const Tensor*>& weights, int m, int mul, int out,
                                 Contraction& contraction) {
    Terms terms;
    for (std::size_t n = 0; n < couplings.size(); ++n)
      for (const Monomial& mono : couplings[n].components[m]) {
        std::array<int, 3> key{-1, -1, -1};
        for (std::size_t k = 0; k <= n; ++k) key[k] = mono.index[k];
        terms[key].push_back({n, mono.path, mono.coefficient});
      }
    ContractionComponent component;
    component.out = out;
    // Value: each term belongs to its first input. Gradient: a term gives one to each of its inputs, times the power in which that occurs.
    std::map<int, Terms> value, gradient;
    for (const auto& [key, sources] : terms) {
      value[key[0]][{key[1], key[2], -1}] = sources;
      const int order = 1 + (key[1] >= 0) + (key[2] >= 0);
      for (int k = 0; k < order; ++k) {
        if (k > 0 && key[k] == key[k - 1]) continue;  // counted with the first of equal indices
        std::array<int, 3> rest{-1, -1, -1};
        for (int q = 0, at = 0; q < order; ++q)
          if (q != k) rest[at++] = key[q];
        const double power = static_cast<double>(std::count(key.begin(), key.begin() + order, key[k]));
        for (Source source : sources) {
          source.factor *= power;
          gradient[key[k]][rest].push_back(source);
        }
      }
    }
    bool per_element = false;
    for (const Tensor* w : weights) per_element |= w->shape[0] > 1;
    const std::size_t elements = per_element ? options_.keep.size() : 1;
    component.ids.assign(elements, -1);
    const auto fill = [&](const std::map<int, Terms>& inputs, ContractionRows& rows, std::vector<std::vector<double>>& coefficients, std::vector<int>* ids) {
      std::vector<const std::vector<Source>*> order;
      rows = rows_of(inputs, contraction, order);
      coefficients.assign(elements, std::vector<double>(order.size() * contraction.channels, 0.0));
      for (std::size_t z = 0; z < elements; ++z) {
        Copy copy(*this, coefficients[z], ids ? &(*ids)[z] : nullptr);
        for (std::size_t n = 0; n < order.size(); ++n) {
          if (!order[n]) continue;
          for (const Source& s : *order[n]) {
            const Tensor& w = *weights[s.order];
            const std::size_t from = ((w.shape[0] > 1 ? options_.keep[z] : 0) * w.shape[1] + s.path) * w.shape[2];
            for (int k = 0; k < mul; ++k) copy.add(n * contraction.channels + k, w, from + k, s.factor);
          }
        }
      }
    };
    fill(value, component.value, component.value_coefficients, &component.ids);
    fill(gradient, component.gradient, component.gradient_coefficients, nullptr);
    return component;
  }

  /// Terms of each input's row, with products of two inputs numbered in `contraction`. `order`: what each coefficient is made of, null for a constant that
  /// is zero.
  static ContractionRows rows_of(const std::map<int, Terms>& inputs, Contraction& contraction, std::vector<const std::vector<Source>*>& order) {
    ContractionRows result;
    for (const auto& [input, terms] : inputs) {
      const auto constant = terms.find({-1, -1, -1});
      order.push_back(constant == terms.end() ? nullptr : &constant->second);
      for (const auto& [key, sources] : terms)
        if (key[0] >= 0 && key[1] < 0) {
          result.pairs.push_back(key[0]);
          order.push_back(&sources);
        }
      for (const auto& [key, sources] : terms)
        if (key[1] >= 0) {
          const std::array<int, 2> product{key[0], key[1]};
          auto at = std::find(contraction.products.begin(), contraction.products.end(), product);
          if (at == contraction.products.end()) at = contraction.products.insert(at, product);
          result.triples.push_back(static_cast<int>(at - contraction.products.begin()));
          order.push_back(&sources);
        }
      result.rows.push_back({input, static_cast<int>(result.pairs.size()), static_cast<int>(result.triples.size())});
    }
    result.coefficients = static_cast<int>(order.size());
    return result;
  }

  /// A layer of scalars alone has no gates.
  static Irrep gate_irrep(const json& spec, const Irreps& out_irreps) {
    return out_irreps.lmax() > 0 ? Irrep::parse(spec.at("gate_irrep").get<std::string>()) : Irrep{};
  }

  /// Channels of the gate's input: per irrep the scalars, then the gates of each gated entry.
  Channels gate_channels(const json& spec, const Irreps& out_irreps, const Irreps& message_irreps, const std::string& name) const {
    std::vector<MulIrrep> entries;
    const Irrep gate = gate_irrep(spec, out_irreps);
    for (const MulIrrep& e : out_irreps)
      if (e.ir.l == 0) entries.push_back(e);
    for (const MulIrrep& e : out_irreps)
      if (e.ir.l > 0) entries.push_back({e.mul, gate});
    for (const MulIrrep& e : out_irreps)
      if (e.ir.l > 0) entries.push_back(e);
    const Irreps expected{entries};
    for (const Irrep ir : expected.kinds())
      if (expected.count(ir) != message_irreps.count(ir))
        fail("irreps_message of " + name + " is " + message_irreps.str() + ", the gate needs " + expected.str());
    return make_channels(entries);
  }

  void build_gate(Layer& layer, const json& spec, const Channels& message, const Channels& out, const Irreps& out_irreps) {
    Gate& g = layer.gate;
    const Irrep gate = gate_irrep(spec, out_irreps);
    if (out_irreps.lmax() > 0) {
      g.activation = activation_of(spec.at("gate_activation"));
      g.factor = spec.at("gate_factor");
    }
    std::map<std::pair<int, int>, std::size_t> next_in, next_out;  // entry of a block that comes next, by irrep
    const auto at = [](const Channels& c, Irrep ir, std::map<std::pair<int, int>, std::size_t>& next) {
      const FeatureBlock& b = c.block(ir);
      return b.offset + c.entries[&b - c.layout.blocks.data()][next[{ir.l, ir.p}]++];
    };
    for (const MulIrrep& e : out_irreps)
      if (e.ir.l == 0)
        g.scalars.push_back({at(message, e.ir, next_in), at(out, e.ir, next_out), padded(e.mul), activation_of(spec.at("scalar_activation").at(e.ir.str())),
                             spec.at("scalar_factor").at(e.ir.str())});
    for (const MulIrrep& e : out_irreps)
      if (e.ir.l > 0) g.gated.push_back({at(message, gate, next_in), 0, 0, e.ir.dim(), padded(e.mul)});
    std::size_t n = 0;
    for (const MulIrrep& e : out_irreps)
      if (e.ir.l > 0) {
        Gate::Gated& gated = g.gated[n++];
        gated.in = at(message, e.ir, next_in);
        gated.out = at(out, e.ir, next_out);
        gated.in_row = message.block(e.ir).channels;
        gated.out_row = out.block(e.ir).channels;
      }
  }

  void build_readout(Layer& layer, const json& spec, const std::string& name, const Channels& out) {
    layer.has_readout = true;
    Readout& r = layer.readout;
    r.activation = activation_of(spec.at("activation"));
    const Irrep scalar{0, 1};
    if (!out.layout.find(scalar)) fail("the readout of " + name + " needs 0e features");
    const std::vector<int>& channels = out.channels(scalar);
    r.in = out.block(scalar).offset;
    const int count = spec.at("layers");
    std::size_t in = channels.size();
    for (int n = 0; n < count; ++n) {
      const std::string at = name + ".readout." + std::to_string(n);
      const Tensor& w = weights_.get(at);
      if (w.shape.size() != 3 || w.shape[0] != std::size_t(options_.heads) || w.shape[1] != in || (n + 1 == count && w.shape[2] != 1))
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

  static constexpr double spline_tolerance = 1e-6;  // relative to the largest radial function: what float32 sums of them cannot tell apart

  const json& architecture_;
  Weights weights_;
  const NetworkOptions& options_;
  std::size_t all_;
  Assembly* assembly_;
  Network network_;
  std::vector<std::vector<double>> embedding_;
  std::vector<std::size_t> embedding_offset_;  // in the tensors, for training
  ReducedFunctions reduced_;
};

}  // namespace

Network build(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options, Assembly* assembly) {
  try {
    const json architecture = json::parse(architecture_json);
    return Builder(architecture, tensors, options, assembly).build();
  } catch (const json::exception& e) {
    fail(std::string("its architecture cannot be read (") + e.what() + "); the file may be from another version");
  }
}

std::shared_ptr<const Network> build_network(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options) {
  return std::make_shared<const Network>(build(architecture_json, tensors, options, nullptr));
}

double cutoff(const Network& network) { return network.cutoff; }
int features(const Network& network) { return network.features(); }
int whitened(const Network& network) { return network.detectors ? network.detectors->components : 0; }
int members(const Network& network) { return network.detectors ? network.detectors->members : 0; }
std::string summary(const Network& network) { return network.summary; }

}  // namespace adatom::gnn
