// SPDX-License-Identifier: MIT
#include "datasets/units.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "datasets/statistics.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

struct Unit {
  const char* name;
  double size;  // eV
};
constexpr Unit energy_units[] = {{"eV", 1.0}, {"hartree", hartree}, {"rydberg", rydberg}, {"kcal/mol", kcal_per_mol}, {"kJ/mol", kJ_per_mol}, {"meV", 1e-3}};

/// Total energy of a free atom by the semiclassical expansion in Z^(1/3) (Thomas-Fermi, Scott, Schwinger: Englert, Schwinger, Phys. Rev. A 32, 26,
/// 1985), hartree; within 8 % of the truth for all elements. What all-electron codes give.
double all_electron_energy(double z) { return -0.768745 * std::pow(z, 7.0 / 3) + 0.5 * z * z - 0.269900 * std::pow(z, 5.0 / 3); }

/// The most and the least that all-electron codes give for these atoms, bound or not, hartree: the sum over free atoms, a little less for its errors
/// (below 1 % from boron on; lighter ones are known), more for bonds (at most 0.25 hartree per atom) and relativity (about (Z/137)^2 / 5).
std::pair<double, double> all_electron_range(const Composition& composition) {
  constexpr double known[] = {0, -0.5, -2.8617, -7.4327, -14.573};  // Hartree-Fock
  double sum = 0, more = 0;
  for (const auto& [z, atoms] : composition) {
    const double one = z <= 4 ? known[z] : all_electron_energy(z);
    sum += atoms * one;
    more += atoms * (0.25 - 0.25 * one * (z / 137.0) * (z / 137.0));
  }
  return {1.01 * sum - more, 0.99 * sum};
}

/// All-electron energies tell their unit. Those with pseudopotentials do not: they are far smaller in any unit. But not so far that a wide limit would
/// do: in eV, CHCl3 has 0.98 times the all-electron energy in hartree, Cu 0.8 to 1.8, Al2O3 that in rydberg.
void suspect_total_energies(const HeadSummary& head, std::vector<UnitSuspicion>& found) {
  int heavier_than_helium = 0;  // hydrogen has no core, so pseudopotentials change nothing
  for (const auto& [z, element] : head.atomic_energies.elements) heavier_than_helium += z > 2;
  if (heavier_than_helium == 0) return;
  for (const auto& [name, size] : energy_units) {
    if (std::string_view(name) == "eV" || (std::string_view(name) == "rydberg" && (heavier_than_helium < 2 || head.compositions.size() < 2))) continue;
    const double expected = hartree / size;
    std::int64_t frames = 0, fitting = 0;
    std::vector<double> ratios;
    for (const CompositionEnergy& c : head.compositions) {
      const auto [most, least] = all_electron_range(c.atoms);
      frames += c.frames;
      if (c.energy < expected * least && c.energy > expected * most) fitting += c.frames;
      ratios.push_back(c.energy * 0.99 / least);
    }
    if (frames > 0 && static_cast<double>(fitting) > 0.9 * static_cast<double>(frames))
      found.push_back({"energy", name,
                       "they are " + short_number(median(ratios)) + " times those of all-electron calculations of these atoms in hartree; " +
                           short_number(expected) + " is expected of " + name + ", " + short_number(hartree) + " of eV"});
  }
}

/// Labels that do not grow with the number of atoms.
void suspect_energies_per_atom(const HeadSummary& head, std::vector<UnitSuspicion>& found) {
  const auto fitted = static_cast<std::int64_t>(head.atomic_energies.elements.size());
  if (head.residual.count < std::max<std::int64_t>(5, 3 * fitted) || head.frame_size.max < 1.5 * head.frame_size.min) return;
  std::int64_t bound = 0;  // frames with more than 1 eV: less may be that of surfaces alone, where crystals count as zero
  for (const CompositionEnergy& c : head.compositions) bound += std::abs(c.energy) > 1 ? c.frames : 0;
  const double width = head.residual.deviation();
  if (width > 0.05 && head.per_atom_residual < 0.5 * width && 10 * bound > 9 * head.residual.count)
    found.push_back({"energy", "eV per atom, where totals are expected",
                     "they do not grow with the number of atoms: taken for energies per atom they vary by " + short_number(head.per_atom_residual) +
                         " beyond their compositions, taken for totals by " + short_number(width) + " per atom"});
}

/// Per atom and without the composition's part energies of one data set vary by tenths of an eV.
void suspect_residual(const HeadSummary& head, std::vector<UnitSuspicion>& found) {
  if (head.residual.count < 10) return;
  const double width = head.residual_width;
  const std::string fact = "energies per atom vary by " + short_number(width) + " (robust standard deviation, composition removed); ";
  if (width > 20) found.push_back({"energy", "meV, kJ/mol or kcal/mol", fact + "in eV more than 5 is rare"});
  if (width > 5 && width <= 20) found.push_back({"energy", "kcal/mol, or several levels of theory in one head", fact + "in eV more than 5 is rare"});
}

void suspect_forces(const HeadSummary& head, std::vector<UnitSuspicion>& found) {
  if (head.with_forces < 10 || head.force.rms() == 0) return;
  const double rms = head.force.rms(), usual = head.median_force;  // the latter does not see outliers
  const std::string fact = "force components have a root mean square of " + short_number(usual > 10 ? usual : rms) + "; ";
  if (usual > 100) found.push_back({"forces", "meV/angstrom or kJ/mol/nm", fact + "in eV/angstrom more than 10 is rare"});
  if (usual > 10 && usual <= 100) found.push_back({"forces", "kcal/mol/angstrom", fact + "in eV/angstrom more than 10 is rare"});
  // Relaxed structures have small forces too; but then their largest ones are small as well.
  if (rms < 0.05 && head.largest_force.max < 0.3 && head.residual.count >= 10 && head.residual_width > 0.02)
    found.push_back({"forces", "hartree/bohr or rydberg/bohr",
                     fact + "with energies that vary by " + short_number(head.residual_width) + " eV per atom, more than 0.05 eV/angstrom is usual"});
}

/// 1 eV/angstrom^3 is 160 GPa: more than the bulk modulus of most solids.
void suspect_stress(const HeadSummary& head, std::vector<UnitSuspicion>& found) {
  if (head.stress.count < 10) return;
  if (head.median_stress > 2)
    found.push_back({"stress", head.median_stress > 20 ? "kbar" : "GPa or kbar",
                     "stress components have a root mean square of " + short_number(head.median_stress) +
                         " (median of the frames); in eV/angstrom^3 more than 1 (160 GPa) is rare"});
}

void suspect_slope(const HeadSummary& head, std::vector<UnitSuspicion>& found) {
  const EnergyForceSlope& s = head.slope;
  if (s.pairs < 10 || (s.median > 0.8 && s.median < 1.25) || s.q3 - s.q1 > 0.3 * std::abs(s.median)) return;
  std::string guess = "another unit than the forces, or another sign";
  const std::pair<double, std::string> ratios[] = {{1 / hartree, "hartree where forces are in eV/angstrom"},
                                                   {1 / rydberg, "rydberg where forces are in eV/angstrom"},
                                                   {1 / kcal_per_mol, "kcal/mol where forces are in eV/angstrom"},
                                                   {1 / kJ_per_mol, "kJ/mol where forces are in eV/angstrom"},
                                                   {1000, "meV where forces are in eV/angstrom"},
                                                   {hartree / bohr, "eV where forces are in hartree/bohr"},
                                                   {rydberg / bohr, "eV where forces are in rydberg/bohr"},
                                                   {kcal_per_mol, "eV where forces are in kcal/mol/angstrom"},
                                                   {1e-3, "eV where forces are in meV/angstrom"},
                                                   {1 / bohr, "hartree where forces are in hartree/bohr"},
                                                   {-1, "the gradient in place of the forces: their sign"}};
  for (const auto& [ratio, name] : ratios)
    if (s.median / ratio > 0.9 && s.median / ratio < 1.1) guess = name;
  if (const double one = head.frame_size.mean; head.frame_size.count && s.median * one > 0.9 && s.median * one < 1.1)
    guess = "energies per atom in place of totals";
  found.push_back({"energy and forces", guess,
                   "between neighbouring frames the energy changes by " + short_number(s.median) + " times -F dx (median of " + std::to_string(s.pairs) +
                       " pairs, half of them within " + short_number(s.q1) + " to " + short_number(s.q3) + "), expected 1"});
}

}  // namespace

std::vector<UnitSuspicion> suspect_units(const HeadSummary& head) {
  std::vector<UnitSuspicion> found;
  suspect_total_energies(head, found);
  suspect_energies_per_atom(head, found);
  suspect_residual(head, found);
  suspect_forces(head, found);
  suspect_stress(head, found);
  suspect_slope(head, found);
  return found;
}

}  // namespace adatom::datasets
