// SPDX-License-Identifier: MIT
#include "gnn/builder/magnitudes.hpp"

#include <cmath>
#include <cstdio>
#include <limits>

#include "gnn/builder/tensors.hpp"

namespace adatom::gnn {

namespace {

std::string scientific(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", x);
  return text;
}

std::string advice(double largest) {
  return ", expected numbers up to " + scientific(largest) + (largest < std::numeric_limits<double>::max() ? " in single precision" : "") +
         ": the file is damaged, its training diverged" + (largest < std::numeric_limits<double>::max() ? ", or it needs precision float64" : "");
}

/// Index of the first number whose magnitude is too large or that is NaN; -1 if there is none.
std::ptrdiff_t find(const std::vector<double>& values, double largest) {
  for (std::size_t k = 0; k < values.size(); ++k)
    if (!(std::abs(values[k]) <= largest)) return static_cast<std::ptrdiff_t>(k);
  return -1;
}

/// Checks the arrays of one layer; the names say which tensors they come from.
struct LayerCheck {
  std::string layer;
  double largest;

  void operator()(const std::vector<double>& values, const char* what) const {
    if (const std::ptrdiff_t k = find(values, largest); k >= 0) fail(std::string(what) + " of " + layer + " reach " + scientific(values[k]) + advice(largest));
  }
  void operator()(const std::vector<std::vector<double>>& rows, const char* what) const {
    for (const auto& row : rows) (*this)(row, what);
  }
  void operator()(const LinearMap& map, const char* what) const {
    for (const LinearPart& part : map.parts)
      for (const Matrix& m : part.matrices) (*this)(m.weight, what);
    (*this)(map.bias, what);
  }
};

}  // namespace

void check_magnitudes(const Tensors& tensors, double largest) {
  for (const auto& [name, tensor] : tensors)
    if (const std::ptrdiff_t k = find(tensor.data, largest); k >= 0)
      fail("tensor '" + name + "' has the value " + scientific(tensor.data[k]) + " at index " + std::to_string(k) + advice(largest));
}

void check_magnitudes(const Network& network, double largest) {
  LayerCheck{"the model", largest}(network.energy_offset, "the sums of atomic_energies and shift");
  for (std::size_t t = 0; t < network.layers.size(); ++t) {
    const Layer& layer = network.layers[t];
    const LayerCheck check{"layers." + std::to_string(t), largest};
    check(layer.species_features, "the products of embedding and up");
    check(layer.table.coefficients, "the radial functions");
    check(layer.density_table.coefficients, "the edge densities");
    for (const auto& receivers : layer.element_linear)
      for (const LinearMap& map : receivers) check(map, "the products of embedding, up, radial_mlp, linear and skip");
    check(layer.linear, "the products of linear and skip");
    check(layer.skip_bias, "the products of embedding and skip");
    for (const ContractionComponent& c : layer.contraction.components) {
      check(c.value_coefficients, "the coefficients of the contraction");
      check(c.gradient_coefficients, "the coefficients of the contraction");
    }
  }
}

}  // namespace adatom::gnn
