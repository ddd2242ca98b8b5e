# SPDX-License-Identifier: MIT
"""Writes slab.data: CO on top of an atom of Cu(111), four layers of sixteen atoms, 15 angstrom of vacuum.

    python make_slab.py [slab.data]
"""
import sys

from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.io import write

slab = fcc111("Cu", size=(4, 4, 4), a=3.63, vacuum=7.5, orthogonal=True)
add_adsorbate(slab, Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.15]]), height=1.85, position="ontop")
slab.pbc = True
file = sys.argv[1] if len(sys.argv) > 1 else "slab.data"
write(file, slab, format="lammps-data", specorder=["Cu", "C", "O"], masses=True, units="metal", atom_style="atomic")
