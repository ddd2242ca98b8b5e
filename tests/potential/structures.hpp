// SPDX-License-Identifier: MIT
// Structures for tests, reproducible from a seed.
#pragma once
#include <random>

#include "adatom/structure.hpp"

namespace adatom::test {

/// n atoms in a random triclinic cell with edges of about `length` and angles down to about 40 degrees, spread over 3 x 3 x 3 cells, and no two
/// nearer than `least` including images of the cell next to them.
inline Structure random_structure(int n, double length, std::array<bool, 3> pbc, unsigned seed, double least = 0.3) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> edge(0.7, 1.3), tilt(-0.6, 0.6), place(-1.0, 2.0);
  Structure s;
  s.pbc = pbc;
  const double a = length * edge(random), b = length * edge(random), c = length * edge(random);
  s.cell = {{{a, tilt(random), tilt(random)}, {a * tilt(random), b, tilt(random)}, {a * tilt(random), b * tilt(random), c}}};
  while (static_cast<int>(s.positions.size()) < n) {
    Vector3 r{};
    for (const Vector3& vector : s.cell) {
      const double f = place(random);
      for (int k = 0; k < 3; ++k) r[k] += f * vector[k];
    }
    bool free = true;
    for (const Vector3& other : s.positions)
      for (int h0 = -4; h0 <= 4 && free; ++h0)
        for (int h1 = -4; h1 <= 4 && free; ++h1)
          for (int h2 = -4; h2 <= 4 && free; ++h2) {
            double d2 = 0;
            for (int k = 0; k < 3; ++k) {
              const double d = other[k] - r[k] + h0 * s.cell[0][k] + h1 * s.cell[1][k] + h2 * s.cell[2][k];
              d2 += d * d;
            }
            free = d2 > least * least;
          }
    if (!free) continue;
    s.positions.push_back(r);
    s.numbers.push_back(std::array{1, 6, 8}[s.positions.size() % 3]);
  }
  return s;
}

}  // namespace adatom::test
