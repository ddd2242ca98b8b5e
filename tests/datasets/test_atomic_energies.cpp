// SPDX-License-Identifier: MIT
#include <random>

#include "datasets/atomic_energies.hpp"
#include "frames.hpp"

using namespace adatom::datasets;
using Origin = AtomicEnergies::Origin;

TEST_CASE("atomic energies: least squares finds what the energies are made of") {
  // Thousands of eV per atom, and so many frames that they are folded several times.
  const std::map<int, double> truth = {{1, -13.6}, {6, -1029.5}, {8, -2042.0}, {29, -45012.25}};
  std::mt19937 random(1);
  AtomicEnergyFit fit;
  for (int frame = 0; frame < 2000; ++frame) {
    Composition atoms;
    double energy = 0;
    for (const auto& [z, e] : truth)
      if (const int n = static_cast<int>(random() % 20); n > 0) atoms.emplace_back(z, n), energy += n * e;
    if (!atoms.empty()) fit.add(atoms, energy);
  }
  const AtomicEnergies found = fit.solve();
  CHECK((found.fitted == 4 && found.rank == 4 && found.elements.size() == 4));
  for (const auto& [z, e] : truth) {
    CHECK(found.elements.at(z).energy == Approx(e).margin(1e-8).epsilon(0));
    CHECK(found.elements.at(z).origin == Origin::least_squares);
  }
  CHECK(found.energy({{1, 2}, {8, 1}}) == Approx(-2069.2));
  CHECK_THROWS_WITH(found.energy({{7, 2}}), Catch::Contains("there is no atomic energy of N (7)"));
}

TEST_CASE("atomic energies: the least-squares solution per atom, by hand") {
  AtomicEnergyFit fit;  // E/n = -1, -3 for pure H with 1 and 100 atoms: the mean per atom, whatever the sizes
  fit.add({{1, 1}}, -1.0);
  fit.add({{1, 100}}, -300.0);
  CHECK(fit.solve().elements.at(1).energy == Approx(-2.0));
}

TEST_CASE("atomic energies: the mean of equal compositions counts as often as they") {
  AtomicEnergyFit one_by_one, together;
  for (const double energy : {-3.0, -5.0, -7.0}) one_by_one.add({{1, 2}, {8, 1}}, energy);
  one_by_one.add({{1, 2}}, -1.0), one_by_one.add({{8, 2}}, -9.0), one_by_one.add({{1, 1}, {8, 1}}, -4.0);
  together.add({{1, 2}, {8, 1}}, -5.0, 3);
  together.add({{1, 2}}, -1.0), together.add({{8, 2}}, -9.0), together.add({{1, 1}, {8, 1}}, -4.0);
  for (const int z : {1, 8}) CHECK(together.solve().elements.at(z).energy == Approx(one_by_one.solve().elements.at(z).energy).epsilon(1e-12));
}

TEST_CASE("atomic energies: compositions that do not determine each element give the shortest solution") {
  AtomicEnergyFit fit;  // water only: 2 h + o = -6, shortest: h = -2.4, o = -1.2
  for (int n = 1; n < 5; ++n) fit.add({{1, 2 * n}, {8, n}}, -6.0 * n);
  const AtomicEnergies found = fit.solve();
  CHECK((found.fitted == 2 && found.rank == 1));
  CHECK(found.elements.at(1).energy == Approx(-2.4));
  CHECK(found.elements.at(8).energy == Approx(-1.2));
}

TEST_CASE("atomic energies: isolated atoms are taken as they are, the rest is fitted to what remains") {
  AtomicEnergyFit fit;
  for (int n = 1; n < 5; ++n) fit.add({{1, 2 * n}, {8, n}}, -6.0 * n);
  const AtomicEnergies found = fit.solve({{1, -0.5}, {3, -7.0}});
  CHECK((found.fitted == 1 && found.rank == 1));
  CHECK(found.elements.at(8).energy == Approx(-5.0));
  CHECK((found.elements.at(1).energy == -0.5 && found.elements.at(1).origin == Origin::isolated_atom));
  CHECK(found.elements.at(3).energy == -7.0);
  CHECK(AtomicEnergyFit().solve().elements.empty());
}
