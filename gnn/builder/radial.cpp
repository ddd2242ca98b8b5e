// SPDX-License-Identifier: MIT
#include "gnn/builder/builder.hpp"

#include <algorithm>
#include <cmath>

#include "gnn/radial_assembly.hpp"

namespace adatom::gnn {

void Builder::build_radial() {
  Radial& radial = network_.radial;
  const Spec basis = architecture_.object("radial_basis");
  const std::string type = basis.choice("type", {"bessel", "gaussian", "chebyshev"});
  const auto numbers = [&](const std::string& name) {
    const Tensor& t = weights_.get(name);
    if (t.shape.size() != 1 || t.data.empty()) fail("tensor '" + name + "' has shape " + shape_string(t.shape) + ", expected [n] with n from 1");
    return t.data;
  };
  if (type == "bessel") {
    radial.basis.type = RadialBasis::Type::bessel;
    radial.basis.parameters = numbers("radial_basis.frequencies");
    radial.basis.factor = basis.number("prefactor", -1e6, 1e6);
  } else if (type == "gaussian") {
    radial.basis.type = RadialBasis::Type::gaussian;
    radial.basis.parameters = numbers("radial_basis.centers");
    radial.basis.factor = basis.number("coefficient", -1e6, 0.0);
  } else {
    radial.basis.type = RadialBasis::Type::chebyshev;
    radial.basis.parameters.resize(static_cast<std::size_t>(basis.integer("size", 1, 1000)));
  }
  basis.check_all_used();
  const Spec cutoff = architecture_.object("cutoff_function");
  radial.cutoff.r_max = network_.cutoff;
  if (cutoff.choice("type", {"polynomial", "xplor"}) == "polynomial") {
    radial.cutoff.p = cutoff.number("p", 1.0, 100.0);
  } else {
    radial.cutoff.type = CutoffFunction::Type::xplor;
    radial.cutoff.r_on = cutoff.number("r_on", 0.01 * network_.cutoff, 0.99 * network_.cutoff);
  }
  cutoff.check_all_used();
  radial.cutoff_on_basis = architecture_.choice("cutoff_applies_to", {"basis", "weights"}) == "basis";
  if (!architecture_.is_null("distance_transform")) {
    const Spec t = architecture_.object("distance_transform");
    if (t.choice("type", {"agnesi", "soft"}) == "agnesi") {
      radial.transform.type = DistanceTransform::Type::agnesi;
      radial.transform.q = t.number("q", 0.0, 20.0);
      radial.transform.p = t.number("p", 0.0, 20.0);
      radial.transform.a = t.number("a", 0.0, 1e6);
    } else {
      radial.transform.type = DistanceTransform::Type::soft;
      radial.transform.alpha = t.number("alpha", 0.0, 1e3);
    }
    t.check_all_used();
  }
  if (!architecture_.is_null("pair_repulsion")) {
    const Spec t = architecture_.object("pair_repulsion");
    t.choice("type", {"zbl"});
    network_.repels = true;
    PairRepulsion& zbl = network_.repulsion;
    zbl.p = t.number("p", 1.0, 100.0);
    zbl.a_exp = t.number("a_exp", 0.0, 10.0);
    zbl.a_prefactor = t.number("a_prefactor", 1e-3, 1e3);
    const json& c = t.list("c", 4, 4);
    for (int i = 0; i < 4; ++i) {
      if (!c[i].is_number() || !(std::abs(c[i].get<double>()) <= 1e6)) t.wrong("c", "four numbers");
      zbl.c[i] = c[i];
    }
    t.check_all_used();
  }
  if (network_.repels || radial.depends_on_pair()) {
    const Tensor& radii = weights_.get("covalent_radii", {all_});
    for (std::size_t z = 0; z < radii.data.size(); ++z)
      if (!(radii.data[z] >= 0.01 && radii.data[z] <= 100.0))
        fail("tensor 'covalent_radii' has the value " + json(radii.data[z]).dump() + " at index " + std::to_string(z) + ", expected 0.01 to 100 angstrom");
    for (const int z : options_.keep) network_.radii.push_back(radii.data[z]);
  }
}

std::vector<MlpLayer> Builder::mlp(const std::string& name, int count, int first_in, bool layer_norm) {
  std::vector<MlpLayer> layers;
  for (int n = 0; n < count; ++n) {
    const std::string at = name + "." + std::to_string(n);
    const Tensor& w = weights_.get(at);
    MlpLayer layer;
    layer.in = n ? layers.back().out : first_in;
    if (w.shape.size() != 2 || w.shape[0] != std::size_t(layer.in) || w.shape[1] == 0)
      fail("tensor '" + at + "' has shape " + shape_string(w.shape) + ", expected [" + std::to_string(layer.in) + ", any]");
    layer.out = static_cast<int>(w.shape[1]);
    layer.weight = w.data;
    const std::vector<std::size_t> out{std::size_t(layer.out)};
    if (weights_.find(at + ".bias")) layer.bias = weights_.get(at + ".bias", out).data;
    if (layer_norm && n + 1 < count) {
      layer.norm_weight = weights_.get(at + ".norm_weight", out).data;
      layer.norm_bias = weights_.get(at + ".norm_bias", out).data;
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

RadialFunctions Builder::hidden_functions(const Layer& layer) const {
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

void Builder::build_radial_mlp(Layer& layer, const Spec& spec, const std::string& name, const PathChannels& path_channels) {
  layer.radial_activation = activation_of(spec, "activation");
  layer.radial_mlp = mlp(name + ".radial_mlp", spec.integer("layers", 1, 100), network_.radial.basis.size(), spec.flag("layer_norm"));
  spec.check_all_used();
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

void Builder::build_tables(Layer& layer, bool first) {
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

void Builder::assemble_tables(Layer& layer, int mlp_layers, const std::string& name, const PathChannels& path_channels) {
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
  for (int n = 0; n < mlp_layers; ++n) {
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

}  // namespace adatom::gnn
