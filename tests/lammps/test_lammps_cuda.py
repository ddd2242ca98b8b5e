# SPDX-License-Identifier: MIT
"""`device cuda` in LAMMPS: the kernels run by the CPU (docs/cuda.md, the host executor), on one rank and two.

The host executor belongs to a build tree, not to the package, and is compiled with the address sanitizer. So these tests run the program `lmp` itself, not the
script of that name, which would load the installed plugin first; and each rank, not mpirun, has the sanitizer's library loaded before everything else.
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import lammps_structures as structures
import numpy as np
import pytest
from lammps_simulation import DUMP, Lammps, read_dump
from test_lammps_uncertainty import COMPUTE, calibrated  # noqa: F401 (a fixture)

BUILD = Path(os.environ.get("ADATOM_BUILD_FOLDER") or Path(__file__).resolve().parents[2] / "build" / "release")
HOST = BUILD / "lib" / "libadatom_cuda_host.so"
MOVE = "neighbor 0.1 bin\nneigh_modify delay 0 every 1 check yes\nvelocity all create 3000 4711 loop geom\nfix move all nve\ntimestep 0.001\nrun 6"
NEVER = "1000000000,719"  # the call of CUDA's runtime that fails, and with what

pytestmark = pytest.mark.skipif(not (HOST.is_file() and (BUILD / "lib" / "adatomplugin.so").is_file()),
                                reason=f"{HOST.parent} has no host executor of the CUDA backend and LAMMPS plugin (ADATOM_CUDA_HOST, ADATOM_BUILD_LAMMPS)")  # fmt: skip


def environment() -> dict[str, str]:
    mpi = next(file for file in importlib.metadata.files("mpich") if file.name == "libmpi.so.12").locate()
    folders = [str(Path(mpi).parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return dict(os.environ, LAMMPS_PLUGIN_PATH=str(BUILD / "lib"), OMP_NUM_THREADS="1", ADATOM_CUDA="host", LD_LIBRARY_PATH=":".join(filter(None, folders)))


def with_sanitizer() -> list[str]:
    """Beginning of the command of a rank, where the host executor needs it."""
    libraries = subprocess.run(["ldd", HOST], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libasan\S* => (\S+)", libraries)
    # MPI and LAMMPS keep memory to the end.
    return ["env", f"LD_PRELOAD={found[1]}", "ASAN_OPTIONS=detect_leaks=0"] if found else []


class OnDevice(Lammps):
    def start(self, script: str, ranks: int = 1, arguments: tuple[str, ...] = (), timeout: float = 240.0, faults: tuple[str, ...] = ()):
        """`faults`: of each rank, the variable `fault` of the script.

        Each rank writes into a file of its own: what it sends through mpirun before it ends all ranks is now and then lost."""
        (self.folder / "in.lmp").write_text(script)
        program = Path(importlib.util.find_spec("lammps").origin).parent / "lmp"
        rank = [*with_sanitizer(), str(program), "-in", "in.lmp", "-log", "log.lammps", *arguments]
        command = []
        outputs = [self.folder / f"output.{k}" for k in range(ranks)]
        for k, output in enumerate(outputs):
            into_file = ["sh", "-c", 'output=$1; shift; exec "$@" > "$output" 2>&1', "sh", str(output)]
            command += [*([":"] if k else []), "-n", "1", *into_file, *rank, "-var", "fault", faults[k] if faults else NEVER]
        command = [str(Path(sys.executable).parent / "mpirun"), *command] if ranks > 1 else command[2:]
        process = subprocess.run(command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=timeout)
        process.stdout = "".join(output.read_text() for output in outputs if output.exists()) + process.stdout
        return process


@pytest.fixture
def on_device(tmp_path, model, plugin):
    (tmp_path / "device").mkdir()
    return OnDevice(tmp_path / "device", model, str(BUILD / "lib"))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("precision", ["double", "float"])
def test_dynamics_as_on_the_cpu(lmp, on_device, reference, ranks, precision):
    atoms = structures.crystal()
    run = on_device.run(atoms, MOVE, ranks=ranks, style=f"device cuda precision {precision}")
    assert "cuda (host executor)" in run.log
    assert "Neighbor list builds = 0" not in run.log
    tolerance = 1e-8 if precision == "double" else 2e-4
    for frame in (run.frames[0], run.frames[-1]):
        atoms.positions = frame.positions
        np.testing.assert_allclose(frame.forces, reference(atoms).forces, rtol=0, atol=tolerance)
        np.testing.assert_allclose(frame.energies, reference(atoms).energies, rtol=0, atol=tolerance)
    assert np.abs(run.frames[-1].positions - run.frames[0].positions).max() > 1e-3
    other = lmp.run(structures.crystal(), MOVE, style=f"precision {precision}")
    np.testing.assert_allclose(run.pressure(), other.pressure(), rtol=0, atol=1e-3 if precision == "double" else 20.0)


@pytest.mark.parametrize("ranks", [1, 2])
def test_uncertainty_as_on_the_cpu(on_device, calibrated, ranks):  # noqa: F811
    from adatom import Potential

    atoms = structures.crystal()
    on_device.model = calibrated
    on_device.run(atoms, COMPUTE + "run 0", ranks=ranks, style="device cuda precision double")
    expected = Potential.load(calibrated, dtype="float64", threads=1).evaluate(atoms, uncertainty=True)
    frame = read_dump(on_device.folder / "u.lmp")[0]
    np.testing.assert_allclose(frame.columns["c_u[1]"], expected.force_std, rtol=1e-8)
    np.testing.assert_allclose(frame.columns["c_u[2]"], expected.distances, rtol=1e-8)


@pytest.mark.parametrize("ranks, bad", [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("call", [1, 30, 60])
def test_a_lost_device_of_one_rank_stops_all(on_device, ranks, bad, call):
    atoms = structures.crystal()
    commands = DUMP.format(dump="dump.lmp") + "run 0\nshell putenv ADATOM_HOST_FAULT=${fault}\n" + MOVE + "\nprint 'the run went on'"
    faults = tuple(f"{call},719" if k == bad else NEVER for k in range(ranks))
    process = on_device.start(on_device.script(atoms, commands, style="device cuda"), ranks, faults=faults, timeout=100.0)
    output = " ".join((process.stdout + process.stderr).split())
    assert process.returncode != 0, output[-3000:]
    assert "the run went on" not in output, output[-3000:]  # what came before may be lost in a buffer of the rank that another one ended
    assert "CUDA device: unspecified launch failure while" in output and "restart it (from the last checkpoint)" in output, output[-3000:]
    assert "AddressSanitizer" not in output, output[-3000:]


def test_without_a_fault_the_same_script_ends(on_device):
    atoms = structures.crystal()
    commands = "run 0\nshell putenv ADATOM_HOST_FAULT=${fault}\n" + MOVE + "\nprint 'the run went on'"
    process = on_device.start(on_device.script(atoms, commands, style="device cuda"), 2)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert "the run went on" in process.stdout
