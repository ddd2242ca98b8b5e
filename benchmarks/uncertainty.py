# SPDX-License-Identifier: MIT
"""Uncertainty: what it costs, how well it is calibrated, what it detects.

    python benchmarks/uncertainty.py DATA [--model 3bpa.safetensors] [--cost MODEL...] [--threads 1] [-o benchmarks/results/FILE.md]

DATA has the folders 3bpa and mlearn_Cu. A MACE of 32 channels is trained on the 300 K frames of 3BPA (or --model is taken, which must have been trained on the
same split), calibrated on 50 held-out frames, and judged on the test files at 300, 600 and 1200 K, before and after recalibration on 50 of their frames, drawn
20 times. Detection: held-out frames against frames from outside; a second model is trained on copper without its melt. The cost is the time of energy, forces
and uncertainty by that of energy and forces, in turns, on 256 atoms of copper, for each model of --cost (any model with Cu).
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from cpu import machine
from training import SHAPE, split

from adatom import Potential
from adatom.uncertainty import fit, judge, recalibrate, table

TEMPERATURES = (300, 600, 1200)
MELT = 0.3  # eV/atom above the lowest energy: frames of molten copper


def train(files: list[str], valid: Path, folder: Path, threads: int, isolated: Path | None, epochs: int) -> Path:
    from adatom.training import train as run

    config = {
        "model": SHAPE, "output": str(folder), "threads": threads,
        "data": {"train": files, "valid": [str(valid)], **({"isolated_atoms": str(isolated)} if isolated else {"atomic_energies": "least_squares"})},
        "loss": {"energy": 1000.0, "forces": 1000.0}, "optimizer": {"name": "soap", "learning_rate": 0.04, "beta1": 0.95, "beta2": 0.99},
        "schedule": {"type": "cosine", "warmup_steps": 100}, "training": {"epochs": epochs, "batch_size": 5, "clip_gradient": 100.0},
    }  # fmt: skip
    return Path(run(config).model)


def with_labels_of(potential: Potential, frames: list) -> list:
    """For frames without DFT: only their scores matter, so the model's own energies stand in."""
    for atoms in frames:
        r = potential.evaluate(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=r.energy, forces=r.forces)
    return frames


def contact(atoms, factor: float, rng):
    """A random atom's nearest neighbour is moved along the bond to `factor` of its length."""
    atoms = atoms.copy()
    i = int(rng.integers(len(atoms)))
    d = atoms.get_distances(i, range(len(atoms)), mic=True)
    d[i] = np.inf
    j = int(np.argmin(d))
    atoms.positions[j] -= (1 - factor) * atoms.get_distance(i, j, mic=True, vector=True)
    return atoms


def swap(atoms, old: int, new: int, rng):
    """One atom becomes another element."""
    atoms = atoms.copy()
    atoms.numbers[rng.choice(np.flatnonzero(atoms.numbers == old))] = new
    return atoms


def rows_of(judgements: dict) -> list[str]:
    lines = ["| frames | number | force RMSE, meV/A | predicted | Spearman | forces in 90 % | energy RMSE, meV | predicted | energies in 90 % |", "|" + "---|" * 9]
    for r in table(judgements):
        lines.append(
            f"| {r['set']} | {r['configurations']} | {1e3 * r['force_rmse']:.1f} | {1e3 * r['force_std']:.1f} | {r['force_spearman']:.3f} | "
            f"{r['force_coverage']['0.9']:.1%} | {1e3 * r['energy_rmse']:.1f} | {1e3 * r['energy_std']:.1f} | {r['energy_coverage']['0.9']:.1%} |"
        )
    return lines


def recalibrated(model: Path, frames: list, folder: Path, threads: int) -> str:
    """Coverage on the other frames after recalibration on 50, mean and standard deviation over 20 draws."""
    forces, energies = [], []
    for draw in range(20):
        order = np.random.default_rng(draw).permutation(len(frames))
        recalibrate(model, [frames[k] for k in order[:50]], folder / "recalibrated.safetensors", threads=threads)
        j = judge(Potential.load(folder / "recalibrated.safetensors", threads=threads), [frames[k] for k in order[50:]])
        forces.append(j.force_coverage()[j.levels.index(0.9)])
        energies.append(j.energy_coverage()[j.levels.index(0.9)])
    return f"{np.mean(forces):.1%} +- {np.std(forces):.1%} | {np.mean(energies):.1%} +- {np.std(energies):.1%}"


def detection(inside: list, outside: dict[str, list], model: Path, threads: int) -> list[str]:
    potential = Potential.load(model, threads=threads)
    judgements = {"inside": judge(potential, inside)}
    lines = []
    for name, frames in outside.items():
        judgements[name] = judge(potential, frames if frames[0].calc else with_labels_of(potential, frames))
    for r in table(judgements)[1:]:
        a = r["auroc"]
        lines.append(f"| {r['set']} | {r['configurations']} | {a['ensemble']:.3f} | {a['mean distance']:.3f} | {a['largest distance']:.3f} | {a['together']:.3f} |")
    return lines


def cost(file: str, folder: Path, threads: int) -> str:
    base = bulk("Cu", cubic=True) * (4, 4, 4)
    plain = Potential.load(file, threads=threads)
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(12):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.rattle(0.1, rng=rng)
        r = plain.evaluate(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=r.energy + 0.01 * rng.normal(), forces=r.forces + 0.01 * rng.normal(size=r.forces.shape))
        frames.append(atoms)
    fit(file, frames[:8], frames[8:], folder / "cost.safetensors", threads=threads)
    potential = Potential.load(folder / "cost.safetensors", threads=threads)
    base.rattle(0.05, seed=1)
    times = {False: [], True: []}
    for turn in range(24):
        for uncertainty in (False, True):
            start = time.perf_counter()
            potential.evaluate(base, stress=False, uncertainty=uncertainty)
            if turn >= 4:
                times[uncertainty].append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(times[False], times[True])]
    return (
        f"| {Path(file).stem}: {potential.summary} | {potential.features} | {1e6 * statistics.median(times[False]) / len(base):.1f} | "
        f"{1e6 * statistics.median(times[True]) / len(base):.1f} | {statistics.median(ratios) - 1:+.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--cost", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uncertainty-") as name:
        folder, threads, rng = Path(name), arguments.threads, np.random.default_rng(0)
        lines = [f"# Uncertainty, {datetime.date.today()}", "", f"{machine()}, {threads} threads. `benchmarks/uncertainty.py`.", ""]
        if arguments.cost:
            lines += ["## Cost", "", "256 atoms of copper, energy and forces without and with uncertainty, median of 20 turns.", ""]
            lines += ["| model | features | microseconds/atom | with uncertainty | added |", "|---|---|---|---|---|"]
            lines += [cost(file, folder, threads) for file in arguments.cost] + [""]

        source = arguments.data / "3bpa"
        train_file, valid_file = split(source, folder)
        model = arguments.model or train([str(train_file)], valid_file, folder / "3bpa", threads, source / "isolated_atoms.extxyz", arguments.epochs)
        fit(model, ase.io.read(train_file, ":"), ase.io.read(valid_file, ":"), folder / "detectors.safetensors", threads=threads)
        potential = Potential.load(folder / "detectors.safetensors", threads=threads)
        tests = {t: ase.io.read(source / f"test_{t}K_sub.extxyz", ":") for t in TEMPERATURES}
        judgements = {f"{t} K": judge(potential, frames) for t, frames in tests.items()}
        lines += ["## Calibration: 3BPA, trained at 300 K, calibrated on 50 held-out frames of 300 K", "", f"{potential.summary}.", "", *rows_of(judgements), ""]
        lines += ["After recalibration on 50 frames, of the others (mean and deviation over 20 draws):", "", "| frames | forces in 90 % | energies in 90 % |", "|---|---|---|"]
        lines += [f"| {t} K | {recalibrated(folder / 'detectors.safetensors', frames, folder, threads)} |" for t, frames in tests.items()] + [""]

        head = ["| outside | number | ensemble | mean distance | largest distance | together |", "|---|---|---|---|---|---|"]
        inside = tests[300]
        outside = {
            "3BPA at 600 K": tests[600], "3BPA at 1200 K": tests[1200],
            **{f"a contact at {factor:g} of its length": [contact(a, factor, rng) for a in inside] for factor in (0.7, 0.8, 0.85, 0.9)},
            "a C is an N": [swap(a, 6, 7, rng) for a in inside], "an O is a C": [swap(a, 8, 6, rng) for a in inside],
        }  # fmt: skip
        lines += ["## Detection: area under the ROC curve of single frames", "", "Inside: test frames of 3BPA at 300 K.", "", *head]
        lines += detection(inside, outside, folder / "detectors.safetensors", threads) + [""]

        copper = [*ase.io.read(arguments.data / "mlearn_Cu" / "train.extxyz", ":"), *ase.io.read(arguments.data / "mlearn_Cu" / "test.extxyz", ":")]
        energies = np.array([a.get_potential_energy() / len(a) for a in copper])
        molten = energies - energies.min() > MELT
        solid = rng.permutation(np.flatnonzero(~molten))
        parts = {"train": solid[60:], "valid": solid[:30]}
        for part, indices in parts.items():
            ase.io.write(folder / f"solid_{part}.extxyz", [copper[k] for k in indices])
        model = train([str(folder / "solid_train.extxyz")], folder / "solid_valid.extxyz", folder / "solid", threads, None, 30)
        fit(model, [copper[k] for k in parts["train"]], [copper[k] for k in parts["valid"]], folder / "solid.safetensors", threads=threads)
        inside = [copper[k] for k in solid[30:60]]
        dense = [a for a in inside if len(a) > 20]
        outside = {"molten": [copper[k] for k in np.flatnonzero(molten)], "a contact at 0.8 of its length": [contact(a, 0.8, rng) for a in dense]}
        lines += [f"Inside: {len(inside)} held-out frames of copper, crystals, surfaces, strained and hot; no melt in the training set.", "", *head]
        lines += detection(inside, outside, folder / "solid.safetensors", threads)
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
