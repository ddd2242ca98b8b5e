// SPDX-License-Identifier: MIT
#include "potential/finite.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace adatom {
namespace {

std::string scientific(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

/// Index of the first number that is not finite (or, with `infinite`, that is NaN); n if there is none.
std::size_t find(const double* values, std::size_t n, bool infinite = false) {
  constexpr std::size_t block = 512;  // of which all are looked at, so that the compiler can vectorise
  for (std::size_t first = 0; first < n; first += block) {
    const std::size_t last = std::min(n, first + block);
    bool bad = false;
    for (std::size_t k = first; k < last; ++k) bad |= !(std::abs(values[k]) <= std::numeric_limits<double>::max());
    if (!bad) continue;
    for (std::size_t k = first; k < last; ++k)
      if (infinite ? std::isnan(values[k]) : !std::isfinite(values[k])) return k;
  }
  return n;
}

}  // namespace

NotFinite::NotFinite(std::string quantity, int atom, const ShortestEdge& shortest)
    : std::runtime_error(""), quantity_(std::move(quantity)), atom_(atom), shortest_(shortest) {
  what_ = text([](int i) { return "atom " + std::to_string(i) + " (counted from 0)"; });
}

std::string NotFinite::text(const std::function<std::string(int)>& name) const {
  constexpr double too_close = 0.5;  // angstrom; the shortest bond, of H2, has 0.74
  std::string text = "the " + quantity_ + (atom_ >= 0 ? " of " + name(atom_) : "") + " is not finite: ";
  if (shortest_.length < too_close)
    return text + name(shortest_.receiver) + " and " + (shortest_.sender == shortest_.receiver ? "its periodic image" : name(shortest_.sender)) + " are " +
           scientific(shortest_.length) + " angstrom apart; move one of them";
  if (shortest_.receiver >= 0) text += "no two atoms are closer than " + scientific(shortest_.length) + " angstrom, so ";
  return text + "the model's weights are too large for its precision (float64 holds more), or its file is damaged";
}

Suspect find_not_finite(const GraphResult& result, const ResultWidths& widths, std::size_t receivers, std::size_t nodes) {
  struct Rows {
    const double* values;
    std::size_t rows, width;
    const char* quantity;
    bool may_be_infinite = false;
  };
  const Rows all[] = {{result.energies, receivers, 1, "energy"},
                      {result.forces, nodes, 3, "force"},
                      {result.atom_virials, nodes, 9, "virial"},
                      {result.force_tangents, nodes, 3, "derivative of the force"},
                      {result.features, receivers, widths.features, "features"},
                      {result.feature_tangents, receivers, widths.features, "derivative of the features"},
                      {result.distances, receivers, 1, "distance from the training set", true},
                      {result.whitened, receivers, widths.whitened, "whitened features", true},
                      {result.member_energies, receivers, widths.members, "energy in the ensemble", true},
                      {result.force_std, receivers, 1, "standard deviation of the force", true}};
  for (const Rows& r : all)
    if (const std::size_t n = r.values ? r.rows * r.width : 0, k = find(r.values, n, r.may_be_infinite); k < n)
      return {static_cast<int>(k / r.width), r.quantity};
  // What is infinite without an infinite distance is not so because the element is unknown.
  for (const Rows& r : {all[8], all[9]})
    for (std::size_t k = 0; r.values && result.distances && k < r.rows * r.width; ++k)
      if (std::isinf(r.values[k]) && !std::isinf(result.distances[k / r.width])) return {static_cast<int>(k / r.width), r.quantity};
  if (!std::isfinite(result.energy)) return {-1, "energy"};
  if (result.want_virial && find(result.virial, 9) < 9) return {-1, "virial"};
  return {-1, nullptr};
}

ShortestEdge shortest_edge(const Graph& g) {
  ShortestEdge shortest;
  for (int i = 0; i < g.n_receivers; ++i)
    for (std::int64_t e = g.first_edge[i]; e < g.first_edge[i + 1]; ++e) {
      double square = 0.0;
      for (int a = 0; a < 3; ++a) {
        const double x =
            g.positions[3 * std::size_t(g.sender[e]) + a] - g.positions[3 * std::size_t(i) + a] + (g.shift ? g.shifts[3 * std::size_t(g.shift[e]) + a] : 0.0);
        square += x * x;
      }
      if (std::sqrt(square) < shortest.length) shortest = {std::sqrt(square), i, g.sender[e]};
    }
  return shortest;
}

void check_finite(const GraphResult& result, const ResultWidths& widths, const Graph& graph) {
  const Suspect suspect = find_not_finite(result, widths, graph.n_receivers, graph.n_nodes);
  if (suspect.quantity) throw NotFinite(suspect.quantity, suspect.atom, shortest_edge(graph));
}

}  // namespace adatom
