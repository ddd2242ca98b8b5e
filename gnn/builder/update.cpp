// SPDX-License-Identifier: MIT
#include "gnn/builder/builder.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace adatom::gnn {

namespace {

/// What a coefficient of the polynomial is a sum of: factor * weight of a path, in the tensor of an order nu = 1, 2, 3.
struct Source {
  std::size_t order;
  int path;
  double factor;
};
/// Terms of a polynomial by their ascending indices, -1 where there are fewer than three.
using Terms = std::map<std::array<int, 3>, std::vector<Source>>;

/// Terms of each input's row, with products of two inputs numbered in `contraction`. `order`: what each coefficient is made of, null for a constant that
/// is zero.
ContractionRows rows_of(const std::map<int, Terms>& inputs, Contraction& contraction, std::vector<const std::vector<Source>*>& order) {
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

/// A layer of scalars alone has no gates, and need not have the keys.
Irrep gate_irrep(const Spec& spec, const Irreps& out_irreps) {
  if (out_irreps.lmax() <= 0 && !spec.has("gate_irrep")) return {};
  const Irrep gate = spec.irrep("gate_irrep");
  if (gate.l != 0) spec.wrong("gate_irrep", "0e or 0o");
  return gate;
}

}  // namespace

void Builder::build_contraction(Layer& layer, int correlation, const std::string& name, const Irreps& message_irreps, const Irreps& out_irreps,
                                const Channels& out) {
  Contraction& c = layer.contraction;
  const int mul = message_irreps[0].mul;
  std::vector<Irrep> in;
  for (const MulIrrep& e : message_irreps) {
    if (e.mul != mul) fail("the message of " + name + " has irreps of different multiplicity, which a contraction cannot take: " + message_irreps.str());
    in.push_back(e.ir);
  }
  if (message_irreps.kinds().size() != in.size())
    fail("the message of " + name + " has an irrep twice, which a contraction cannot take: " + message_irreps.str());
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
      // The tensor's shape comes first: counting paths costs nothing, their polynomials may.
      weights.push_back(&weights_.get_per(name + ".contraction." + ir.str() + "." + std::to_string(nu), all_, symmetric_paths(in, ir, nu), mul));
      couplings.push_back(symmetric_coupling(in, ir, nu));
    }
    for (int m = 0; m < ir.dim(); ++m) c.components.push_back(component(couplings, weights, m, mul, c.out.find(ir)->row(m), c));
    if (c.products.size() > Contraction::most_products)
      fail("the contraction of " + name + " has " + std::to_string(c.products.size()) + " products of two components, expected at most " +
           std::to_string(Contraction::most_products) + ": train with a smaller l_max");
  }
  layer.product = linear_map(name + ".product", contracted_channels, out);
}

ContractionComponent Builder::component(const std::vector<SymmetricCoupling>& couplings, const std::vector<const Tensor*>& weights, int m, int mul, int out,
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

Channels Builder::gate_channels(const Spec& spec, const Irreps& out_irreps, const Irreps& message_irreps, const std::string& name) const {
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

void Builder::build_gate(Layer& layer, const Spec& spec, const Channels& message, const Channels& out, const Irreps& out_irreps) {
  Gate& g = layer.gate;
  const Irrep gate = gate_irrep(spec, out_irreps);
  if (out_irreps.lmax() > 0 || spec.has("gate_activation")) g.activation = activation_of(spec, "gate_activation");
  if (out_irreps.lmax() > 0 || spec.has("gate_factor")) g.factor = spec.number("gate_factor", -1e6, 1e6);
  std::map<std::pair<int, int>, std::size_t> next_in, next_out;  // entry of a block that comes next, by irrep
  const auto at = [](const Channels& c, Irrep ir, std::map<std::pair<int, int>, std::size_t>& next) {
    const FeatureBlock& b = c.block(ir);
    return b.offset + c.entries[&b - c.layout.blocks.data()][next[{ir.l, ir.p}]++];
  };
  const Spec activation = spec.object("scalar_activation"), factor = spec.object("scalar_factor");
  for (const MulIrrep& e : out_irreps)
    if (e.ir.l == 0)
      g.scalars.push_back(
          {at(message, e.ir, next_in), at(out, e.ir, next_out), padded(e.mul), activation_of(activation, e.ir.str()), factor.number(e.ir.str(), -1e6, 1e6)});
  activation.check_all_used();
  factor.check_all_used();
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

}  // namespace adatom::gnn
