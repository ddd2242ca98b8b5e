// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <array>
#include <cmath>
#include <string>

#include "adatom/elements.hpp"

namespace adatom_lammps {

/// Standard atomic weights in u, abridged to five digits: IUPAC 2021, Pure Appl. Chem. 94, 573 (2022), table 2. By atomic number; 0: the element has none.
inline constexpr std::array<double, adatom::max_atomic_number + 1> atomic_weights = {
    0,
    // H to Ar
    1.0080, 4.0026, 6.94, 9.0122, 10.81, 12.011, 14.007, 15.999, 18.998, 20.180, 22.990, 24.305, 26.982, 28.085, 30.974, 32.06, 35.45, 39.95,
    // K to Kr
    39.098, 40.078, 44.956, 47.867, 50.942, 51.996, 54.938, 55.845, 58.933, 58.693, 63.546, 65.38, 69.723, 72.630, 74.922, 78.971, 79.904, 83.798,
    // Rb to Xe
    85.468, 87.62, 88.906, 91.224, 92.906, 95.95, 0, 101.07, 102.91, 106.42, 107.87, 112.41, 114.82, 118.71, 121.76, 127.60, 126.90, 131.29,
    // Cs to Lu
    132.91, 137.33, 138.91, 140.12, 140.91, 144.24, 0, 150.36, 151.96, 157.25, 158.93, 162.50, 164.93, 167.26, 168.93, 173.05, 174.97,
    // Hf to Rn
    178.49, 180.95, 183.84, 186.21, 190.23, 192.22, 195.08, 196.97, 200.59, 204.38, 207.2, 208.98, 0, 0, 0,
    // Fr to U; none beyond
    0, 0, 0, 232.04, 231.04, 238.03};

/// What is odd about a mass (in u) for an element: far from its weight, or that of another element. Empty if nothing is: isotopes differ by less, and
/// hydrogen may be deuterium or tritium.
inline std::string odd_mass(int atomic_number, double mass) {
  constexpr double far = 0.2, exact = 1e-3;  // relative; isotopes of one element but hydrogen are closer than the first
  const double weight = atomic_weights[atomic_number];
  if (weight == 0.0 || (atomic_number == 1 && mass > (1.0 - far) * weight && mass < 3.02)) return {};
  if (std::abs(mass - weight) <= exact * weight) return {};
  for (int z = 1; z <= adatom::max_atomic_number; ++z)
    if (std::abs(mass - atomic_weights[z]) < exact * atomic_weights[z]) return "which is that of " + adatom::element_symbol(z);
  if (std::abs(mass - weight) > far * weight) return "which is far from it";
  return {};
}

}  // namespace adatom_lammps
