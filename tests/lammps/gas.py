# SPDX-License-Identifier: MIT
"""Grand canonical Monte Carlo (fix gcmc) of a dilute gas, against its virial expansion.

With the activity z = exp(mu / kT) / Lambda^3, mu counted from the energy of an isolated atom, and a volume V,

    <N> = V (z - 2 B_2 z^2 + O(z^3)),    B_2 = -2 pi int (exp(-u(r) / kT) - 1) r^2 dr,

where u(r) is what two atoms at a distance r have beyond two isolated ones. A trial that leaves something of an atom behind, as its energy, gets another <N>.

    python tests/lammps/gas.py [--steps N] [--model FILE --element E]    # minutes; the test runs a short form of it
"""
import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from scipy.integrate import trapezoid

KB = 8.617343e-5  # eV/K, of LAMMPS in metal units, as is the next
PLANCK = 4.135667403e-3  # eV ps
MVV2E = 1.0364269e-4  # eV per g/mol (angstrom/ps)^2
TEMPERATURE = 3000.0


def second_virial(energy, element: str, cutoff: float) -> float:
    """B_2 in angstrom^3. `energy`: of an ase.Atoms, in eV."""
    r = np.linspace(0.02, cutoff, 800)
    u = np.array([energy(Atoms(element + "2", positions=[[0, 0, 0], [0, 0, x]])) for x in r]) - 2 * energy(Atoms(element))
    return -2 * np.pi * (trapezoid(np.expm1(-u / (KB * TEMPERATURE)) * r**2, r) - r[0] ** 3 / 3)


def expected(ideal: float, virial: float, volume: float) -> float:
    """<N> of a gas whose ideal value is `ideal`, to the second order."""
    return ideal * (1 - 2 * virial * ideal / volume)


def commands(model: Path, element: str, alone: float, box: float, ideal: float, steps: int, runs: int = 1, seed: int = 12345) -> str:
    """An input that makes 20 exchanges on each step. `alone`: energy of an isolated atom (eV); `box`: edge (angstrom); `steps`: of each run."""
    mass, kT = atomic_masses[atomic_numbers[element]], KB * TEMPERATURE
    wavelength = PLANCK / np.sqrt(2 * np.pi * mass * MVV2E * kT)
    mu = kT * np.log(ideal * wavelength**3 / box**3) + alone
    return f"""units metal
region box block 0 {box} 0 {box} 0 {box}
create_box 1 box
create_atoms 1 random {round(ideal)} 4711 box overlap 3.0 maxtry 1000
mass 1 {mass}
pair_style adatom precision double
pair_coeff * * {model} {element}
fix gas all gcmc 1 20 0 1 {seed} {TEMPERATURE} {mu:.15g} 0.5 full_energy
compute_modify thermo_temp dynamic/dof yes
thermo_style custom step atoms pe
thermo_modify lost ignore
thermo 1
""" + f"run {steps}\n" * runs


def mean_and_error(numbers: list[float], blocks: int = 16) -> tuple[float, float]:
    """Mean and its standard error, from the means of blocks that are longer than what a gas remembers; the first twentieth is left out."""
    kept = np.array(numbers[len(numbers) // 20:])
    means = np.array([block.mean() for block in np.array_split(kept, blocks)])
    return float(kept.mean()), float(means.std(ddof=1) / np.sqrt(blocks))


def main() -> int:
    import adatom
    import tiny_model
    from lammps_simulation import Lammps

    parser = argparse.ArgumentParser(description="<N> of a gas by fix gcmc on 1 and 2 ranks, against its virial expansion")
    parser.add_argument("--steps", type=int, default=10000, help="of 20 exchanges each")
    parser.add_argument("--box", type=float, default=24.0, help="edge of the box, in angstrom")
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--model", type=Path, help="a model file; default: the small one of the tests")
    parser.add_argument("--element", default="Cu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model.resolve() if options.model else tiny_model.write(Path(folder) / "tiny.safetensors")
        potential = adatom.Potential.load(model, dtype="float64", threads=1)
        energy = lambda atoms: potential.evaluate(atoms).energy  # noqa: E731
        virial = second_virial(energy, options.element, potential.cutoff)
        value = expected(20.0, virial, options.box**3)
        print(f"{TEMPERATURE:g} K, box of {options.box:g} angstrom, ideal 20, B_2 {virial:.2f} angstrom^3: expected {value:.3f}")
        wrong = 0
        for ranks in (1, 2):
            lmp = Lammps(Path(folder), model, adatom.lammps_plugin_folder())
            script = commands(model, options.element, energy(Atoms(options.element)), options.box, 20.0, options.steps, seed=options.seed)
            run = lmp.run_script(script, ranks, timeout=7200.0)
            mean, error = mean_and_error([row["Atoms"] for row in run.thermo])
            print(f"{ranks} rank{'s' if ranks > 1 else ''}: {mean:.3f} +- {error:.3f}, {(mean - value) / error:+.1f} standard errors", flush=True)
            wrong += abs(mean - value) > 3 * error
    return wrong


if __name__ == "__main__":
    sys.exit(main())
