# SPDX-License-Identifier: MIT
"""Writes seeds.extxyz: CO at four sites of a Cu(111) slab, 2 x 2 x 3, lowest layer fixed."""

from pathlib import Path

import ase.io
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.constraints import FixAtoms

seeds = []
for site, height in (("ontop", 1.86), ("bridge", 1.50), ("fcc", 1.38), ("hcp", 1.38)):
    atoms = fcc111("Cu", size=(2, 2, 3), a=3.64, vacuum=6.0)
    add_adsorbate(atoms, Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.17]]), height, site)
    atoms.cell[2, 2] = 19.2
    atoms.info = {"site": site}
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() == 3))
    del atoms.arrays["tags"]
    seeds.append(atoms)
ase.io.write(Path(__file__).with_name("seeds.extxyz"), seeds)
