// SPDX-License-Identifier: MIT
#include "training/parameters.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "gnn/coupling.hpp"

namespace adatom::training {

using gnn::Irrep;
using gnn::Irreps;
using nlohmann::json;

double activation_factor(const std::string& activation) {
  // normalize2mom averages over a million samples of a fixed seed: off the integrals by up to 1e-3, but part of what models were trained with.
  static const std::map<std::string, double> factors = {
      {"silu", 1.6791767923989418},
      {"tanh", 1.5937334472592695},
      {"sigmoid", 1.8467055342154763},
      {"relu", 1.4163393446331365},
      {"abs", 1.001110600838467},
      {"ssp", 1.878204668541552},
      {"identity", 1.0},
  };
  const auto it = factors.find(activation);
  if (it == factors.end()) throw std::runtime_error("activation '" + activation + "' is not supported (silu, tanh, sigmoid, relu, abs, ssp, identity are)");
  return it->second;
}

namespace {

std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> words;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    words.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

class Roles {
 public:
  Roles(const ModelFile& model, double normalization_constant)
      : model_(model), architecture_(json::parse(model.architecture)), normalization_constant_(normalization_constant) {}

  std::map<std::string, TensorRole> all() const {
    std::map<std::string, TensorRole> roles;
    for (const auto& [name, tensor] : model_.tensors) roles[name] = role(name, tensor);
    return roles;
  }

 private:
  [[noreturn]] static void unknown(const std::string& name) {
    throw std::runtime_error("tensor '" + name + "' is none that can be trained: docs/model_file.md does not know it");
  }
  static TensorRole trained(double scale, bool decays = false) { return {true, scale, decays}; }
  static double inverse_root(double x) { return 1.0 / std::sqrt(x); }

  TensorRole role(const std::string& name, const gnn::Tensor& tensor) const {
    static const std::set<std::string> fixed = {"atomic_energies", "scale", "shift", "covalent_radii", "radial_basis.frequencies", "radial_basis.centers"};
    if (fixed.count(name)) return {};
    if (name == "embedding") return trained(inverse_root(tensor.shape.at(tensor.shape.size() - 2)));
    const std::vector<std::string> words = split(name);
    if (words.size() < 3 || words[0] != "layers") unknown(name);
    return role_in_layer(name, words, tensor, architecture_.at("layers").at(std::stoul(words[1])));
  }

  TensorRole role_in_layer(const std::string& name, const std::vector<std::string>& words, const gnn::Tensor& tensor, const json& layer) const {
    const std::string &kind = words[2], &last = words.back();
    if (last == "bias" || last == "norm_weight" || last == "norm_bias") return trained(1.0);
    const auto& shape = tensor.shape;
    const auto rows = [&](std::size_t axis) { return static_cast<double>(shape.at(axis)); };
    if (kind == "up") return trained(inverse_root(rows(0)));
    if (kind == "density") return trained(inverse_root(rows(0)));
    if (kind == "product") return trained(inverse_root(rows(0)), true);
    if (kind == "skip") return trained(inverse_root(rows(0) * rows(1)));
    if (kind == "linear") {
      const bool constant = layer.at("normalization") == "constant";
      return trained(inverse_root(rows(0)) / (constant ? layer.value("normalization_constant", normalization_constant_) : 1.0), true);
    }
    const bool first = last == "0";
    if (kind == "radial_mlp") {
      if (layer.at("radial_mlp").value("layer_norm", false)) return trained(1.0);
      return trained((first ? 1.0 : activation_factor(layer.at("radial_mlp").at("activation"))) * inverse_root(rows(0)));
    }
    if (kind == "readout") {
      if (first) return trained(inverse_root(rows(1)));
      const bool mace = layer.at("update").at("type") == "contraction";
      return trained(activation_factor(layer.at("readout").at("activation")) * inverse_root(mace ? rows(0) * rows(1) : rows(1)));
    }
    if (kind == "contraction") {
      if (!couples(layer, words.at(3), last, shape.at(1))) return {};
      return trained(1.0, true);
    }
    unknown(name);
  }

  /// Whether a contraction weight does anything; where nothing couples there is one path of zeros.
  static bool couples(const json& layer, const std::string& out, const std::string& order, std::size_t paths) {
    if (paths != 1) return true;
    std::vector<Irrep> in;
    for (const auto& entry : Irreps::parse(layer.at("irreps_message").get<std::string>())) in.push_back(entry.ir);
    for (const auto& component : gnn::symmetric_coupling(in, Irrep::parse(out), std::stoi(order)).components)
      if (!component.empty()) return true;
    return false;
  }

  const ModelFile& model_;
  json architecture_;
  double normalization_constant_;
};

}  // namespace

std::map<std::string, TensorRole> tensor_roles(const ModelFile& model, double normalization_constant) {
  try {
    return Roles(model, normalization_constant).all();
  } catch (const json::exception& error) {
    throw std::runtime_error(std::string("the model's architecture cannot be read (") + error.what() + ")");
  }
}

}  // namespace adatom::training
