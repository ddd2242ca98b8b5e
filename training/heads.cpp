// SPDX-License-Identifier: MIT
#include "training/heads.hpp"

#include <algorithm>
#include <stdexcept>

namespace adatom::training {
namespace {

/// Whether the first axis of a tensor counts heads (docs/model_file.md).
bool has_heads(const std::string& name, const gnn::Tensor& tensor) {
  const auto ends_with = [&](const std::string& end) { return name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0; };
  if (name == "atomic_energies" || name == "scale" || name == "shift") return true;
  if (name == "embedding") return tensor.shape.size() == 3;
  return name.find(".readout.") != name.npos || ends_with(".up.bias") || ends_with(".linear.bias");
}

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

}  // namespace

void add_heads(ModelFile& model, const std::map<std::string, std::string>& heads) {
  for (const auto& [name, from] : heads) {
    const auto found = std::find(model.heads.begin(), model.heads.end(), from);
    if (found == model.heads.end())
      throw std::invalid_argument("'model.heads' lets '" + name + "' begin as '" + from + "', which is no head of the model; it has " + list(model.heads));
    if (std::count(model.heads.begin(), model.heads.end(), name))
      throw std::invalid_argument("'model.heads' adds '" + name + "', but the model has this head: it has " + list(model.heads));
    const auto h = static_cast<std::size_t>(found - model.heads.begin()), n = model.heads.size();
    for (auto& [tensor_name, tensor] : model.tensors) {
      if (!has_heads(tensor_name, tensor)) continue;
      if (tensor.shape.at(0) != n)
        throw std::runtime_error("tensor '" + tensor_name + "' is of " + std::to_string(tensor.shape[0]) + " heads, expected " + std::to_string(n));
      const auto rows = static_cast<std::ptrdiff_t>(tensor.data.size() / n);
      const std::vector<double> copy(tensor.data.begin() + static_cast<std::ptrdiff_t>(h) * rows,
                                     tensor.data.begin() + static_cast<std::ptrdiff_t>(h + 1) * rows);
      tensor.data.insert(tensor.data.end(), copy.begin(), copy.end());
      ++tensor.shape[0];
    }
    model.heads.push_back(name);
  }
}

}  // namespace adatom::training
