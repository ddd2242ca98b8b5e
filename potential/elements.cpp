// SPDX-License-Identifier: MIT
#include "adatom/elements.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace adatom {
namespace {

constexpr std::array<std::string_view, max_atomic_number> symbols = {
    "H",  "He", "Li", "Be", "B",  "C",  "N",  "O",  "F",  "Ne", "Na", "Mg", "Al", "Si", "P",  "S",  "Cl", "Ar", "K",  "Ca",  //
    "Sc", "Ti", "V",  "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",  "Zr",  //
    "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I",  "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd",  //
    "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W",  "Re", "Os", "Ir", "Pt", "Au", "Hg",  //
    "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U",  "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm",  //
    "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc", "Lv", "Ts", "Og"};

}  // namespace

std::string element_symbol(int atomic_number) {
  if (atomic_number < 1 || atomic_number > max_atomic_number)
    throw std::invalid_argument("atomic number " + std::to_string(atomic_number) + " is no element: expected 1 to " + std::to_string(max_atomic_number));
  return std::string(symbols[atomic_number - 1]);
}

int atomic_number(std::string_view symbol) {
  const auto found = std::find(symbols.begin(), symbols.end(), symbol);
  if (symbol == "D" || symbol == "T")
    throw std::invalid_argument("'" + std::string(symbol) + "' is an isotope of hydrogen: write H, whose energies and forces it has, and give it its own mass");
  if (found == symbols.end())
    throw std::invalid_argument("'" + std::string(symbol) + "' is no chemical symbol: expected one such as H, O or Pt (case matters)");
  return static_cast<int>(found - symbols.begin()) + 1;
}

std::string element_names(const std::vector<int>& atomic_numbers) {
  std::string names;
  for (const int z : atomic_numbers) {
    if (!names.empty()) names += ", ";
    names += z >= 1 && z <= max_atomic_number ? element_symbol(z) + " (" + std::to_string(z) + ")" : std::to_string(z);
  }
  return names;
}

}  // namespace adatom
