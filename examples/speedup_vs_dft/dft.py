# SPDX-License-Identifier: MIT
"""Energies and forces of the frames of a file by GPAW, in their order, each from the density of the one before: `python dft.py FRAMES PARAMETERS.json OUT.json`.

A script of its own, without adatom, so that it runs in whichever Python has GPAW. OUT.json is written after every frame.
"""

import json
import sys
import time

import ase.io
from gpaw import GPAW

frames, parameters, out = ase.io.read(sys.argv[1], ":"), json.load(open(sys.argv[2])), sys.argv[3]
calculator = GPAW(txt=out.replace(".json", ".txt"), **parameters)
results = []
atoms = frames[0].copy()
atoms.calc = calculator
for frame in frames:
    atoms.positions = frame.positions
    start = time.perf_counter()
    energy = atoms.get_potential_energy(force_consistent=True)
    forces = atoms.get_forces()
    results.append({"seconds": time.perf_counter() - start, "energy": energy, "forces": forces.tolist()})
    with open(out, "w") as stream:
        json.dump(results, stream)
