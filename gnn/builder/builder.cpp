// SPDX-License-Identifier: MIT
#include "gnn/builder/builder.hpp"

#include <optional>

#include "gnn/brief.hpp"

namespace adatom::gnn {

Activation activation_of(const Spec& spec, const std::string& key) {
  const std::string s = spec.choice(key, {"silu", "ssp", "tanh", "abs", "sigmoid", "relu", "identity"});
  if (s == "silu") return Activation::silu;
  if (s == "ssp") return Activation::shifted_softplus;
  if (s == "tanh") return Activation::tanh;
  if (s == "abs") return Activation::abs;
  if (s == "sigmoid") return Activation::sigmoid;
  if (s == "relu") return Activation::relu;
  return Activation::identity;
}

Network Builder::build() {
  network_.trainable = assembly_ != nullptr;
  check_magnitudes(tensors_, options_.largest);
  if (options_.detectors) check_magnitudes(*options_.detectors, options_.largest);
  // Shorter than any bond, or so long that lists of neighbours do not fit into memory: no model's.
  network_.cutoff = architecture_.number("r_max", 0.1, 100.0);
  network_.splines = options_.splines;
  network_.solid_harmonics = architecture_.has("solid_harmonics") && architecture_.flag("solid_harmonics");
  for (const int z : options_.keep) network_.elements.push_back(options_.elements.at(z));
  if (network_.elements.empty()) fail("no element is kept");
  build_radial();
  build_energies();
  build_embedding();
  read_edge_harmonics();
  const json& layers = architecture_.list("layers", 1, 100);
  architecture_.check_all_used();
  for (std::size_t t = 0; t < layers.size(); ++t) build_layer({layers[t], "layers." + std::to_string(t)}, t);
  weights_.check_all_used();
  if (options_.detectors) network_.detectors = build_detectors(*options_.detectors, network_.features(), options_);
  check_magnitudes(network_, options_.largest);
  summarize(layers);
  return std::move(network_);
}

void Builder::build_energies() {
  const std::size_t heads = options_.heads;
  const Tensor &e0 = weights_.get("atomic_energies", {heads, all_}), &shift = weights_.get("shift", {heads, all_}),
               &scale = weights_.get("scale", {heads, all_});
  for (const int z : options_.keep) {
    const std::size_t at = options_.head * all_ + z;
    network_.energy_offset.push_back(e0.data[at] + shift.data[at]);
    network_.scale.push_back(scale.data[at]);
  }
}

void Builder::build_embedding() {
  const Tensor& t = weights_.get("embedding");
  const bool per_head = t.shape.size() == 3;
  if (t.shape.size() < 2 || t.shape[t.shape.size() - 2] != all_ || t.shape.size() > 3 || (per_head && t.shape[0] != std::size_t(options_.heads)) ||
      t.shape.back() == 0)
    fail("tensor 'embedding' has shape " + shape_string(t.shape) + ", expected [Z, C] or [H, Z, C]");
  const std::size_t c = t.shape.back();
  for (const int z : options_.keep) {
    const std::size_t at = ((per_head ? options_.head : 0) * all_ + z) * c;
    embedding_.emplace_back(&t.data[at], &t.data[at] + c);
    if (assembly_) embedding_offset_.push_back(assembly_->offset(t) + at);
  }
}

void Builder::read_edge_harmonics() {
  for (const json& entry : architecture_.list("edge_harmonics", 1, max_edge_l + 1)) {
    std::optional<Irrep> ir;
    try {
      if (entry.is_string()) ir = Irrep::parse(entry.get<std::string>());
    } catch (const std::invalid_argument&) {
    }
    if (!ir || ir->l > max_edge_l || edge_parity_[ir->l])
      architecture_.wrong("edge_harmonics", "irreps of degree 0 to " + std::to_string(max_edge_l) + ", each degree once");
    edge_parity_[ir->l] = ir->p;
  }
}

void Builder::summarize(const json& layers) {
  const Layer& first = network_.layers.front();
  network_.summary = std::string(first.contracts ? "mace" : "nequip") + ", " + std::to_string(layers.size()) + " layers, features " +
                     layers.front().at("features_out").get<std::string>() + ", l_max " + std::to_string(network_.l_max);
  if (first.contracts) network_.summary += ", correlation " + std::to_string(layers.front().at("update").at("correlation").get<int>());
  network_.summary += ", cutoff " + json(network_.cutoff).dump() + " angstrom";
}

Network build(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options, Assembly* assembly) {
  try {
    const json architecture = json::parse(architecture_json);
    return Builder(architecture, tensors, options, assembly).build();
  } catch (const json::exception& e) {
    fail("its architecture cannot be read (" + reason(e) + "); the file may be from another version");
  }
}

std::shared_ptr<const Network> build_network(const std::string& architecture_json, const Tensors& tensors, const NetworkOptions& options) {
  return std::make_shared<const Network>(build(architecture_json, tensors, options, nullptr));
}

}  // namespace adatom::gnn
