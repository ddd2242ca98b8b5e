// SPDX-License-Identifier: MIT
#include "datasets/frame.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "adatom/elements.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

bool finite(const Vector3& v) { return std::isfinite(v[0]) && std::isfinite(v[1]) && std::isfinite(v[2]); }

std::string beyond(const Vector3& v) { return finite(v) ? ", expected at most 1e8 angstrom" : ""; }

std::string text(const Vector3& v) {
  return std::string("(").append(number_text(v[0])).append(", ").append(number_text(v[1])).append(", ").append(number_text(v[2])).append(")");
}

Vector3 cross(const Vector3& a, const Vector3& b) { return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; }

double norm(const Vector3& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

/// Volume, area or length that the periodic vectors span, relative to the product of their lengths: 1 if they are perpendicular, 0 if dependent.
double spanned_share(const Structure& s) {
  std::vector<Vector3> periodic;
  double lengths = 1;
  for (int k = 0; k < 3; ++k)
    if (s.pbc[k]) periodic.push_back(s.cell[k]), lengths *= norm(s.cell[k]);
  if (periodic.empty()) return 1;
  if (!(lengths > 0)) return 0;
  if (periodic.size() == 1) return 1;
  if (periodic.size() == 2) return norm(cross(periodic[0], periodic[1])) / lengths;
  return volume(s.cell) / lengths;
}

void check_structure(const Structure& s, std::vector<std::string>& found) {
  if (s.numbers.empty()) found.emplace_back("it has no atoms");
  if (s.positions.size() != s.numbers.size())
    found.push_back("it has " + std::to_string(s.positions.size()) + " positions for " + std::to_string(s.numbers.size()) + " atoms");
  for (std::size_t i = 0; i < s.numbers.size(); ++i)
    if (s.numbers[i] < 1 || s.numbers[i] > max_atomic_number) {
      found.push_back("atom " + std::to_string(i) + " has the atomic number " + std::to_string(s.numbers[i]) + ", expected 1 to " +
                      std::to_string(max_atomic_number));
      break;
    }
  for (std::size_t i = 0; i < s.positions.size(); ++i)
    if (!is_within_reach(s.positions[i])) {
      found.push_back("the position of atom " + std::to_string(i) + " is " + text(s.positions[i]) + beyond(s.positions[i]));
      break;
    }
  for (int k = 0; k < 3; ++k)
    if (!is_within_reach(s.cell[k])) {
      found.push_back("cell vector " + std::to_string(k) + " is " + text(s.cell[k]) + beyond(s.cell[k]));
      return;
    }
  if (!(spanned_share(s) > 1e-6)) found.emplace_back("it is periodic, but its periodic cell vectors are zero or linearly dependent");
}

}  // namespace

double volume(const Matrix3& cell) {
  const Vector3 normal = cross(cell[1], cell[2]);
  return std::abs(cell[0][0] * normal[0] + cell[0][1] * normal[1] + cell[0][2] * normal[2]);
}

std::vector<std::string> defects(const Frame& frame) {
  std::vector<std::string> found;
  const std::size_t n = frame.size();
  check_structure(frame.structure, found);
  if (frame.energy && !std::isfinite(*frame.energy)) found.push_back("its energy is " + number_text(*frame.energy));
  if (!frame.forces.empty() && frame.forces.size() != n)
    found.push_back("it has " + std::to_string(frame.forces.size()) + " forces for " + std::to_string(n) + " atoms");
  for (std::size_t i = 0; i < frame.forces.size(); ++i)
    if (!finite(frame.forces[i])) {
      found.push_back("the force on atom " + std::to_string(i) + " is " + text(frame.forces[i]));
      break;
    }
  if (frame.stress)
    for (const double component : *frame.stress)
      if (!std::isfinite(component)) {
        found.push_back("its stress has the component " + number_text(component));
        break;
      }
  if (frame.stress && !(volume(frame.structure.cell) > 0)) found.emplace_back("it has a stress, but its cell has no volume");
  if (!frame.charges.empty() && frame.charges.size() != n)
    found.push_back("it has " + std::to_string(frame.charges.size()) + " charges for " + std::to_string(n) + " atoms");
  for (std::size_t i = 0; i < frame.charges.size(); ++i)
    if (!std::isfinite(frame.charges[i])) {
      found.push_back("the charge of atom " + std::to_string(i) + " is " + number_text(frame.charges[i]));
      break;
    }
  const Weights& w = frame.weights;
  for (const auto& [name, value] : {std::pair{"weight", w.config}, {"energy weight", w.energy}, {"forces weight", w.forces}, {"stress weight", w.stress}})
    if (!(value >= 0) || !std::isfinite(value)) found.push_back("its " + std::string(name) + " is " + number_text(value) + ", expected a number from 0");
  return found;
}

bool is_isolated_atom(const Frame& frame) {
  if (frame.size() != 1) return false;
  std::string label;
  for (const char c : frame.config_type)
    if (std::isalpha(static_cast<unsigned char>(c))) label += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (label == "isolatedatom") return true;
  const Structure& s = frame.structure;
  // The nearest image of a reduced cell is within two cells; of a strongly skewed one a farther image may be nearer, and is then missed.
  for (int a = -2; a <= 2; ++a)
    for (int b = -2; b <= 2; ++b)
      for (int c = -2; c <= 2; ++c) {
        const std::array<int, 3> h = {a, b, c};
        if ((a == 0 && b == 0 && c == 0) || (a != 0 && !s.pbc[0]) || (b != 0 && !s.pbc[1]) || (c != 0 && !s.pbc[2])) continue;
        Vector3 image{};
        for (int k = 0; k < 3; ++k)
          for (int x = 0; x < 3; ++x) image[x] += h[k] * s.cell[k][x];
        if (norm(image) < isolation_distance) return false;
      }
  return true;
}

bool is_within_reach(const Vector3& v) { return std::abs(v[0]) <= farthest && std::abs(v[1]) <= farthest && std::abs(v[2]) <= farthest; }

bool is_ion(const Frame& frame) { return frame.size() == 1 && frame.charges.size() == 1 && std::abs(frame.charges[0]) > 0.5; }

}  // namespace adatom::datasets
