# SPDX-License-Identifier: MIT
"""Files and frames for tests of data sets."""

from __future__ import annotations

import os
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ADATOM_SHARED_DATA", ROOT.parent / "shared" / "data"))


def shared_file(name: str) -> Path:
    """A file of the real data sets, which lie next to the repository; the test is skipped where they do not."""
    file = SHARED / name
    if not file.exists():
        pytest.skip(f"{file} is not there; set ADATOM_SHARED_DATA to the folder of the data sets")
    return file


def labelled(atoms: Atoms, seed: int, stress: bool = True) -> Atoms:
    """With random labels; the forces add up to zero."""
    random = np.random.default_rng(seed)
    forces = random.normal(size=(len(atoms), 3))
    results = {"energy": -3.5 * len(atoms) + 0.1 * random.normal(), "forces": forces - forces.mean(axis=0)}
    if stress and atoms.pbc.all():
        results["stress"] = 0.01 * random.normal(size=6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystals(n: int, seed: int = 0) -> list[Atoms]:
    """Rattled copper crystals with one oxygen atom, in `n // 5` trajectories."""
    structures = []
    for i in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.numbers[i % 4] = 8
        atoms.rattle(0.1, seed=seed + i)
        atoms.info.update(traj=f"run {i // 5}", config_type="bulk" if i % 2 else "strained")
        structures.append(labelled(atoms, seed + i))
    return structures


def write_crystals(file: Path, n: int, seed: int = 0) -> Path:
    ase.io.write(file, crystals(n, seed))
    return file


def tricky_frames() -> list[Atoms]:
    """What ASE writes in less usual ways: arrays and texts in info, columns of all types, other names, no cell, part of it periodic."""
    frames = [labelled(bulk("NaCl", "rocksalt", a=5.64), 1), labelled(molecule("CH3CH2OH"), 2), Atoms("H")]
    slab = labelled(bulk("Cu", cubic=True), 3, stress=False)
    slab.pbc = [True, False, True]
    frames.append(slab)
    odd = labelled(bulk("Si", cubic=True), 4)
    odd.info.update(text="two words", quotes='say "hi"', flag=True, off=False, count=7, none_like="None")
    odd.info.update(matrix=np.eye(2), vector=np.arange(3.0), nested={"a": [1, 2]})
    odd.arrays.update(tags=np.arange(8), names=np.array(list("abcdefgh")), mask=np.arange(8) % 2 == 0, velo=np.ones((8, 3)))
    frames.append(odd)
    triclinic = labelled(bulk("Ti"), 5)
    triclinic.set_cell(triclinic.cell @ np.array([[1, 0.1, 0], [0, 1, 0.2], [0.05, 0, 1]]), scale_atoms=True)
    frames.append(triclinic)
    return frames


def same(frame, atoms: Atoms) -> None:
    """Asserts that a frame holds what ASE read."""
    np.testing.assert_array_equal(frame.numbers, atoms.numbers)
    np.testing.assert_array_equal(frame.positions, atoms.positions)
    np.testing.assert_array_equal(frame.cell, np.asarray(atoms.cell))
    assert list(frame.pbc) == list(atoms.pbc)
    results = atoms.calc.results if atoms.calc else {}
    for name in ("energy", "forces", "stress"):
        value, expected = getattr(frame, name), results.get(name)
        assert (value is None) == (expected is None), name
        if expected is not None:
            np.testing.assert_allclose(value, expected, rtol=1e-15, atol=0, err_msg=name)
