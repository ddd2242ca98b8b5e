# SPDX-License-Identifier: MIT
"""Adsorption energy of CO on Cu(111) with the ASE calculator, and the frequency of one vibration from a Hessian-vector product.

    python adsorption.py MODEL
"""

from __future__ import annotations

import sys

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms
from ase.optimize import BFGSLineSearch

from adatom import AdatomCalculator, Potential


def relaxed(atoms: Atoms, potential: Potential) -> Atoms:
    atoms.calc = AdatomCalculator(potential)
    BFGSLineSearch(atoms, logfile=None).run(fmax=0.02, steps=200)
    return atoms


potential = Potential.load(sys.argv[1], dtype="float64")
print(potential)

slab = fcc111("Cu", size=(2, 2, 3), a=3.63, vacuum=8.0)
slab.set_constraint(FixAtoms(mask=slab.positions[:, 2] < slab.positions[:, 2].min() + 0.5))
slab.pbc = True
molecule = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.15]])
together = slab.copy()
add_adsorbate(together, molecule, 1.85, "ontop")

clean, free, covered = (relaxed(atoms, potential) for atoms in (slab, molecule, together))
energy = covered.get_potential_energy() - clean.get_potential_energy() - free.get_potential_energy()
print(f"adsorption energy {energy:.3f} eV")

# The curvature of the energy along the stretch of CO: v H v, exact, without the whole Hessian.
carbon, oxygen = len(clean), len(clean) + 1
masses = covered.get_masses()
bond = covered.positions[oxygen] - covered.positions[carbon]
stretch = np.zeros((len(covered), 3))
stretch[oxygen] = bond / np.linalg.norm(bond) / masses[oxygen]
stretch[carbon] = -bond / np.linalg.norm(bond) / masses[carbon]  # the centre of mass stays
curvature = np.vdot(stretch, potential.hessian_vector(covered, stretch))
omega_squared = curvature / np.vdot(stretch, masses[:, None] * stretch)  # eV / (amu angstrom^2)
# omega = sqrt(eV / (amu angstrom^2)) is 1 in ASE's units of time; hbar omega in cm^-1
wavenumber = np.sqrt(abs(omega_squared)) * units._hbar * units.J * units.s / units.invcm
print(f"C-O stretch {wavenumber:.0f} cm^-1" + (" (imaginary: not a minimum along the bond)" if omega_squared < 0 else ""))

# A list of structures runs as one batch.
distances = np.linspace(1.0, 1.4, 9)
batch = [Atoms("CO", positions=[[0, 0, 0], [0, 0, d]]) for d in distances]
for d, result in zip(distances, potential.evaluate(batch)):
    print(f"d = {d:.2f} angstrom  E = {result.energy:.4f} eV")
