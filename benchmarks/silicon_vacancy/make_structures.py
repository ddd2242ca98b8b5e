# SPDX-License-Identifier: MIT
"""Writes seed.extxyz, and test_structures.extxyz: dynamics of the model of metals at 300, 600 and 900 K, a frame each 0.5 ps, so that the test set is from no loop.

    python make_structures.py && adatom label learn.toml --structures test_structures.extxyz -o test.extxyz
"""

from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.build import bulk
from ase.md.bussi import Bussi

from adatom import AdatomCalculator

HERE = Path(__file__).parent
cell = bulk("Si", cubic=True)
del cell[3]
ase.io.write(HERE / "seed.extxyz", cell)

frames = []
for temperature in (300, 600, 900):
    atoms = cell.copy()
    atoms.calc = AdatomCalculator(HERE.parents[1] / "models" / "metals" / "model.safetensors")
    rng = np.random.default_rng(temperature)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None])
    dynamics = Bussi(atoms, 1.0 * units.fs, temperature_K=temperature, taut=100 * units.fs, rng=rng)
    dynamics.run(1000)
    for _ in range(20):
        dynamics.run(500)
        frame = atoms.copy()
        frame.info = {"temperature": temperature}
        del frame.arrays["momenta"]
        frames.append(frame)
ase.io.write(HERE / "test_structures.extxyz", frames)
