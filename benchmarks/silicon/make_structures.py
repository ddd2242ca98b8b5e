# SPDX-License-Identifier: MIT
"""Writes crystal.extxyz, the cubic cell of silicon, and vacancy.extxyz, the same without one of its eight atoms, and of each what it visits at 300, 600 and 900 K,
by dynamics of reference.safetensors. That model is from no loop of the benchmark; it was trained on 1071 labels, ten times what the loops have.

    python make_structures.py
    for name in crystal vacancy; do adatom label learn.toml --structures ${name}_structures.extxyz -o ${name}_test.extxyz; done
"""

from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.build import bulk
from ase.md.bussi import Bussi

from adatom import AdatomCalculator

HERE = Path(__file__).parent
seeds = {name: bulk("Si", cubic=True) for name in ("crystal", "vacancy")}
del seeds["vacancy"][3]

for s, (name, seed) in enumerate(seeds.items()):
    ase.io.write(HERE / f"{name}.extxyz", seed)
    frames = []
    for temperature in (300, 600, 900):
        for trajectory in range(4):
            atoms = seed.copy()
            atoms.calc = AdatomCalculator(HERE / "reference.safetensors")
            rng = np.random.default_rng(1000 * s + 10 * trajectory + temperature)
            atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None])
            dynamics = Bussi(atoms, 1.0 * units.fs, temperature_K=temperature, taut=100 * units.fs, rng=rng)
            dynamics.run(1000)
            for _ in range(3):
                dynamics.run(3000)
                frame = atoms.copy()
                frame.info = {"temperature": temperature}
                del frame.arrays["momenta"]
                frames.append(frame)
    ase.io.write(HERE / f"{name}_structures.extxyz", frames)
