// SPDX-License-Identifier: MIT
#include "gnn/detectors.hpp"

#include <set>
#include <stdexcept>

namespace adatom::gnn {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error("its detectors of uncertainty: " + what + ": fit them again with `adatom calibrate`");
}

const Tensor& get(const Tensors& tensors, const std::string& name, const std::vector<std::size_t>& shape) {
  const auto found = tensors.find("uncertainty." + name);
  if (found == tensors.end()) fail("tensor 'uncertainty." + name + "' is missing");
  // A length of 0 in `shape`: any.
  bool fits = found->second.shape.size() == shape.size();
  for (std::size_t k = 0; fits && k < shape.size(); ++k) fits = shape[k] == 0 || found->second.shape[k] == shape[k];
  for (const std::size_t length : found->second.shape) fits = fits && length > 0;
  if (!fits) fail("tensor 'uncertainty." + name + "' has the wrong shape");
  return found->second;
}

}  // namespace

Detectors build_detectors(const Tensors& tensors, int features, const NetworkOptions& options) {
  Detectors d;
  d.features = features;
  const std::size_t n = features, all = options.elements.size();
  const Tensor &mean = get(tensors, "mean", {all, n}), &whitening = get(tensors, "whitening", {all, n, 0}), &members = get(tensors, "members", {n, 0}),
               &scale = get(tensors, "distance_scale", {all}), &bands = get(tensors, "bands", {0}), &force = get(tensors, "force", {all, bands.shape[0] + 2});
  static const std::set<std::string> known = {"uncertainty.mean",  "uncertainty.whitening",      "uncertainty.members",
                                              "uncertainty.bands", "uncertainty.distance_scale", "uncertainty.force"};
  for (const auto& [name, tensor] : tensors)
    if (!known.contains(name)) fail("tensor '" + name + "' is not known; the file was written for something this version does not know");
  d.components = static_cast<int>(whitening.shape[2]);
  d.members = static_cast<int>(members.shape[1]);
  for (const double end : bands.data) {
    const int begin = d.band_ends.empty() ? 0 : d.band_ends.back();
    if (!(end > begin) || !(end <= d.components) || end != std::floor(end))
      fail("bands of components must be whole numbers that increase up to the number of components, " + std::to_string(d.components));
    d.band_ends.push_back(static_cast<int>(end));
  }
  if (d.band_ends.back() != d.components) fail("bands of components must end with the last component");
  for (const std::size_t z : options.keep) {
    d.mean.emplace_back(&mean.data[z * n], &mean.data[z * n] + n);
    Matrix m(padded(features), padded(d.outputs()));
    for (int i = 0; i < features; ++i) {
      for (int k = 0; k < d.components; ++k) m(i, k) = whitening.data[(z * n + i) * d.components + k];
      for (int k = 0; k < d.members; ++k) m(i, d.components + k) = members.data[std::size_t(i) * d.members + k];
    }
    d.matrices.push_back(std::move(m));
    if (!(scale.data[z] >= 0)) fail("a scale of distances is negative");
    d.distance_scale.push_back(scale.data[z]);
    const double* row = &force.data[z * force.shape[1]];
    d.force.emplace_back(row, row + force.shape[1]);
  }
  return d;
}

}  // namespace adatom::gnn
