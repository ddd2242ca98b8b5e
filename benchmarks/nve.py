# SPDX-License-Identifier: MIT
"""Drift of the total energy in NVE: 256 atoms of fcc Cu at 600 K, 1 fs, in LAMMPS through the pair style.

    python benchmarks/nve.py MODEL [--precision float] [--steps 20000] [--equilibration 1000] [--blocks 10] [--json]

Velocity Verlet without a thermostat conserves the energy of exact forces up to a bounded oscillation; a slope in time shows forces that are not the
derivative of the energy (single precision, tabulated radial functions, jumps at the cutoff). The slope is a least-squares line through the total energy;
its standard error comes from the slopes of blocks, with correlations within a block taken along:

    slope = sum_k (t_k - <t>) E_k / sum_k (t_k - <t>)^2,    error^2 = variance of the blocks' mean residuals, propagated through the same line

Exit code 1 if |slope| is above the bar, 1e-3 meV/atom/ps, by more than two standard errors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

BAR = 1e-3  # meV/atom/ps

SCRIPT = """
units metal
boundary p p p
lattice fcc {lattice}
region box block 0 {repeat} 0 {repeat} 0 {repeat}
create_box 1 box
create_atoms 1 box
mass 1 {mass}
pair_style adatom precision {precision} splines {splines}
pair_coeff * * {model} {element}
neighbor {skin} bin
neigh_modify delay 0 every 1 check yes
# Twice the temperature: on a perfect lattice half of the kinetic energy turns into potential energy.
velocity all create {start} {seed} mom yes rot yes dist gaussian
timestep {timestep}
fix heat all nvt temp {temperature} {temperature} 0.1
thermo {equilibration}
run {equilibration}
unfix heat
velocity all zero linear
fix move all nve
reset_timestep 0
thermo_style custom step temp pe etotal press
thermo_modify norm no format float %.10f
thermo {every}
run {steps}
"""


def run(arguments) -> tuple[np.ndarray, list[str]]:
    """Rows (step, temperature, potential, total energy, pressure) of the NVE run, and the command."""
    from ase.data import atomic_masses, atomic_numbers

    import adatom

    settings = dict(vars(arguments), model=arguments.model.resolve(), start=2 * arguments.temperature, timestep=1e-3 * arguments.timestep,
                    mass=atomic_masses[atomic_numbers[arguments.element]])
    environment = dict(os.environ, OMP_NUM_THREADS=str(arguments.threads), LAMMPS_PLUGIN_PATH=os.environ.get("ADATOM_LAMMPS_PLUGIN") or
                       adatom.lammps_plugin_folder())
    lmp = Path(sys.executable).parent / "lmp"
    with tempfile.TemporaryDirectory() as folder:
        script, log = Path(folder) / "in.nve", arguments.log or Path(folder) / "log.lammps"
        script.write_text(SCRIPT.format(**settings))
        process = subprocess.run([str(lmp), "-in", str(script), "-log", str(log.resolve())], env=environment, cwd=folder, capture_output=True, text=True)
        if process.returncode:
            raise SystemExit(process.stdout[-2000:] + process.stderr[-2000:])
        lines = log.read_text().splitlines()
    header = max(n for n, line in enumerate(lines) if line.split()[:2] == ["Step", "Temp"])  # of the last run
    rows = []
    for line in lines[header + 1:]:
        if line.startswith("Loop time"):
            break
        rows.append([float(word) for word in line.split()])
    return np.array(rows), [line for line in lines if line.startswith(("adatom:", "Loop time", "Performance"))]


def slope_and_error(times: np.ndarray, values: np.ndarray, blocks: int) -> tuple[float, float]:
    """Slope of a least-squares line and its standard error by block averaging."""
    t = times - times.mean()
    slope = float(t @ values / (t @ t))
    residuals = values - values.mean() - slope * t
    n = len(t) // blocks * blocks
    means, centres = residuals[:n].reshape(blocks, -1).mean(axis=1), t[:n].reshape(blocks, -1).mean(axis=1)
    centres -= centres.mean()
    return slope, float(np.sqrt(means @ means / (blocks - 2) / (centres @ centres)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--element", default="Cu")
    parser.add_argument("--lattice", type=float, default=3.61, help="lattice constant, angstrom")
    parser.add_argument("--repeat", type=int, default=4, help="4 repeat^3 atoms")
    parser.add_argument("--temperature", type=float, default=600.0, help="K")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--equilibration", type=int, default=1000, help="steps with a thermostat before")
    parser.add_argument("--every", type=int, default=10, help="steps between samples")
    parser.add_argument("--skin", type=float, default=1.0, help="angstrom")
    parser.add_argument("--precision", choices=["float", "double"], default="float")
    parser.add_argument("--splines", choices=["yes", "no"], default="yes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--log", type=Path, help="keep the log of LAMMPS here")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    rows, notes = run(arguments)
    atoms = 4 * arguments.repeat**3
    picoseconds, energy = 1e-3 * arguments.timestep * rows[:, 0], 1e3 * rows[:, 3] / atoms
    slope, error = slope_and_error(picoseconds, energy, arguments.blocks)
    document = {
        "model": str(arguments.model), "atoms": atoms, "precision": arguments.precision, "splines": arguments.splines,
        "timestep_fs": arguments.timestep, "picoseconds": float(picoseconds[-1]), "samples": len(rows),
        "temperature_K": float(rows[:, 1].mean()), "temperature_deviation_K": float(rows[:, 1].std()),
        "drift_meV_per_atom_ps": slope, "standard_error": error, "bar": BAR,
        "fluctuation_meV_per_atom": float((energy - energy.mean() - slope * (picoseconds - picoseconds.mean())).std()),
        "last_minus_first_tenth_meV_per_atom": float(energy[-len(energy) // 10:].mean() - energy[: len(energy) // 10].mean()),
        "lammps": notes,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        for key, value in document.items():
            print(f"{key:38s} {value:.3e}" if isinstance(value, float) and abs(value) < 0.1 else f"{key:38s} {value}")
    if not np.isfinite(slope) or abs(slope) > BAR + 2 * error:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
