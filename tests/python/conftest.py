# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from small_model import write_small_model
from training_runs import small_run


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("models") / "model.safetensors")


@pytest.fixture(scope="session")
def potential(model_file):
    """In float64 and without splines, so that finite differences are sharp."""
    from adatom import Potential

    return Potential.load(model_file, dtype="float64", splines=False)


@pytest.fixture
def config(tmp_path):
    """Of a small run of training into tmp_path / "run"."""
    return small_run(tmp_path / "run")


@pytest.fixture
def copper():
    """A rattled copper crystal of 32 atoms with two oxygen atoms, periodic, triclinic."""
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.numbers[[3, 17]] = 8
    atoms.set_cell(atoms.cell @ (np.eye(3) + [[0, 0.02, 0], [0, 0, 0.03], [0.01, 0, 0]]), scale_atoms=True)
    atoms.rattle(0.08, seed=1)
    return atoms


@pytest.fixture
def molecule():
    from ase.build import molecule

    return molecule("CO2")


@pytest.fixture
def adatom_command():
    """Runs the command `adatom` in a process of its own: adatom_command("info", file).stdout; `json=True` parses the output."""

    def run(*arguments, check=True, as_json=False):
        command = [sys.executable, "-m", "adatom", *map(str, arguments), *(["--json"] if as_json else [])]
        process = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if check and process.returncode:
            raise AssertionError(f"{' '.join(command)} exited with {process.returncode}:\n{process.stdout}{process.stderr}")
        return json.loads(process.stdout) if as_json and check else process

    return run
