# SPDX-License-Identifier: MIT
"""Formate, the intermediate of making methanol from CO2, on a Cu(110) surface: build it with ASE, run MD in LAMMPS, draw what happened.

    python quickstart.py MODEL --output FOLDER

FOLDER then holds slab.data, log.lammps, trajectory.lammpstrj and quickstart.png. models/formate_cu is a potential for it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import matplotlib
import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc110
from ase.constraints import FixAtoms
from ase.optimize import BFGSLineSearch
from ase.visualize.plot import plot_atoms

from adatom import AdatomCalculator

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend has to be chosen before)

LATTICE_CONSTANT = 3.546  # angstrom, of the training data
TYPES = ["Cu", "C", "O", "H"]


def surface() -> Atoms:
    """Four layers of Cu(110) with four formate ions, each upright with its two oxygen atoms on neighbouring copper atoms of a row; the lowest layer is fixed."""
    slab = fcc110("Cu", size=(4, 3, 4), a=LATTICE_CONSTANT, vacuum=9.0)
    formate = Atoms("OCOH", positions=[[-1.12, 0, 0], [0, 0, 0.58], [1.12, 0, 0], [0, 0, 1.69]])
    x, y, _ = slab.positions[slab.get_tags() == 1][0]
    add_adsorbate(slab, formate, 1.95, position=(x + 0.13, y))  # of the first oxygen atom; the next copper atom of the row is 2.51 angstrom away
    atoms = slab * (2, 2, 1)
    atoms.set_constraint(FixAtoms(mask=atoms.positions[:, 2] < atoms.positions[:, 2].min() + 0.5))
    atoms.wrap(pbc=(True, True, False))
    atoms.pbc = True  # the vacuum keeps the images apart
    return atoms


def read_thermo(log: Path) -> dict[str, np.ndarray]:
    """The columns of the table that the last `run` printed."""
    lines = log.read_text().splitlines()
    start = max(i for i, line in enumerate(lines) if line.split()[:1] == ["Step"])
    end = next(i for i in range(start, len(lines)) if lines[i].startswith("Loop time"))
    columns = np.array([[float(word) for word in line.split()] for line in lines[start + 1 : end]]).T
    return dict(zip(lines[start].split(), columns))


def speed(log: Path, atoms: int) -> str:
    loop = next(line.split() for line in log.read_text().splitlines() if line.startswith("Loop time"))
    seconds, steps = float(loop[3]), int(loop[8])
    return f"{atoms} atoms, {steps} steps in {seconds:.1f} s: {1e3 * seconds / steps:.2f} ms/step, {1e6 * seconds / steps / atoms:.1f} us/atom/step"


def draw(file: Path, thermo: dict[str, np.ndarray], last: Atoms, title: str) -> None:
    figure, panels = plt.subplot_mosaic([["energy", "top"], ["temperature", "side"]], figsize=(10, 7), layout="constrained")
    panels["energy"].plot(thermo["Time"], thermo["PotEng"] - thermo["PotEng"][0], label="potential")
    panels["energy"].plot(thermo["Time"], thermo["Econserve"] - thermo["Econserve"][0], label="conserved")
    panels["energy"].set(xlabel="time (ps)", ylabel="energy relative to start (eV)")
    panels["energy"].legend()
    panels["temperature"].plot(thermo["Time"], thermo["c_hot"], color="tab:red")
    panels["temperature"].set(xlabel="time (ps)", ylabel="temperature of the mobile atoms (K)")
    for name, rotation in (("top", ""), ("side", "-90x")):
        plot_atoms(last, panels[name], rotation=rotation)
        panels[name].set_title(f"{name} view, last step")
        panels[name].set_axis_off()
    figure.suptitle(title)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", type=Path, default=Path("quickstart"))
    parser.add_argument("--steps", type=int, default=2000, help="of 0.5 fs")
    parser.add_argument("--temperature", type=float, default=300.0, help="kelvin")
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    atoms = surface()
    atoms.calc = AdatomCalculator(arguments.model)
    start = atoms.get_potential_energy()
    BFGSLineSearch(atoms, logfile=None).run(fmax=0.05, steps=30)
    print(f"{atoms.get_chemical_formula()}: relaxed by {atoms.get_potential_energy() - start:.3f} eV")
    ase.io.write(folder / "slab.data", atoms, format="lammps-data", specorder=TYPES, masses=True)

    variables = {
        "model": arguments.model.resolve(),
        "structure": folder / "slab.data",
        "steps": arguments.steps,
        "temperature": arguments.temperature,
    }
    script = Path(__file__).with_name("in.formate_on_copper").resolve()
    command = ["lmp", "-in", str(script)]
    for name, value in variables.items():
        command += ["-var", name, str(value)]
    print(" ".join(command), flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))  # LAMMPS takes one thread if nobody says otherwise
    status = subprocess.run(command, cwd=folder, env=dict(os.environ, OMP_NUM_THREADS=threads)).returncode
    if status:
        return status

    thermo = read_thermo(folder / "log.lammps")
    last = ase.io.read(folder / "trajectory.lammpstrj", format="lammps-dump-text", index=-1)
    text = speed(folder / "log.lammps", len(atoms))
    draw(folder / "quickstart.png", thermo, last, f"Formate on Cu(110)\n{text}")
    print(f"{text}\n{folder / 'trajectory.lammpstrj'}\n{folder / 'quickstart.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
