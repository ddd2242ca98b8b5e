# SPDX-License-Identifier: MIT
"""Accuracy of finished models, against mace-torch with the same shape, data and loss: errors on the official test files.

    python benchmarks/accuracy.py DATA TASK... [--python mace=PATH] [--only adatom|mace-torch] [--mace-epochs 100] [--threads 1] [--folder build/accuracy]
    python benchmarks/accuracy.py DATA --table -o benchmarks/results/FILE.md

TASKs are the keys of TASKS below. Every training is kept in the folder, goes on from its checkpoint when it is interrupted, and leaves its errors in
TASK-ENGINE.json; --table makes the table of all that are there. The engine trains with SOAP and a cosine schedule, mace-torch with AMSGrad and averaged
weights, its own recipe. Metals: stresses count too. "unseen" are test cells that no symmetry operation makes equal to one of the training set.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

from cpu import machine
from training import Mace, split

SMALL = {"family": "mace", "channels": 32, "max_L": 1, "l_max": 3, "correlation": 3, "layers": 2, "r_max": 5.0}
TASKS = {
    "3bpa": {"model": SMALL, "epochs": 300, "learning_rate": 0.08},
    "3bpa_64": {"model": {**SMALL, "channels": 64}, "epochs": 300, "learning_rate": 0.04},
    "3bpa_128": {"model": {**SMALL, "channels": 128}, "epochs": 300, "learning_rate": 0.04},
    **{f"mlearn_{z}": {"model": SMALL, "epochs": 60, "learning_rate": 0.04} for z in ("Cu", "Ni", "Mo", "Si")},
}


def files_of(task: str, data: Path, folder: Path) -> tuple[Path, Path, list[Path]]:
    """Training, validation and test files; those of training and validation are written to the folder."""
    import ase.io
    import numpy as np

    if task.startswith("3bpa"):
        source = data / "3bpa"
        return *split(source, folder), [source / f"test_{t}K_sub.extxyz" for t in (300, 600, 1200)]
    source = data / task
    frames = ase.io.read(source / "train.extxyz", ":")
    order = np.random.default_rng(0).permutation(len(frames))
    held = max(10, len(frames) // 20)
    ase.io.write(folder / "valid.extxyz", [frames[k] for k in order[:held]])
    ase.io.write(folder / "train.extxyz", [frames[k] for k in order[held:]])
    unseen = folder / "unseen.extxyz"
    test = ase.io.read(source / "test.extxyz", ":")
    ase.io.write(unseen, [test[k] for k in without_seen(source / "train.extxyz", source / "test.extxyz")])
    return folder / "train.extxyz", folder / "valid.extxyz", [source / "test.extxyz", unseen]


def without_seen(train: Path, test: Path) -> list[int]:
    """Indices of test frames that are no copy, up to symmetry, of a training frame, by the fingerprints of `adatom data check`."""
    from adatom.datasets import fingerprint_distance, read

    seen = list(read(train))
    return [k for k, frame in enumerate(read(test)) if all(fingerprint_distance(frame, other) > 1e-4 for other in seen)]


def config_of(task: str, train: Path, valid: Path, tests: list[Path], folder: Path, data: Path, threads: int) -> dict:
    settings = TASKS[task]
    config = {
        "model": settings["model"], "output": str(folder / "adatom"), "threads": threads, "seed": 1,
        "data": {"train": [str(train)], "valid": [str(valid)], "test": [str(t) for t in tests]},
        "loss": {"energy": 1000.0 if task.startswith("3bpa") else 30000.0, "forces": 1000.0},
        "optimizer": {"name": "soap", "learning_rate": settings["learning_rate"], "beta1": 0.95, "beta2": 0.99},
        "schedule": {"type": "cosine", "warmup_steps": 100},
        "training": {"epochs": settings["epochs"], "batch_size": 5, "ema_decay": 0.99, "clip_gradient": 100.0},
    }  # fmt: skip
    if task.startswith("3bpa"):
        config["data"]["isolated_atoms"] = str(data / "3bpa" / "isolated_atoms.extxyz")
    else:
        config["data"]["atomic_energies"] = "least_squares"
        config["loss"]["stress"] = 1000.0
    return config


def run_adatom(task, data, folder, threads):
    from adatom.training import train as fit

    train, valid, tests = files_of(task, data, folder)
    line = lambda e: print(task, f"{e['epoch']}/{e['epochs']} F {1e3 * e['valid']['force_rmse']:.1f} meV/A {e['seconds']:.0f} s", flush=True) or True
    result = fit(config_of(task, train, valid, tests, folder, data, threads), resume=True, report=line)
    return {"epochs": len(result.epochs), "seconds": result.epochs[-1]["seconds"], "parameters": result.parameters, "tests": result.tests}


def run_mace(task, data, folder, threads, python, epochs):
    train, valid, tests = files_of(task, data, folder)
    source = data / "3bpa" if task.startswith("3bpa") else None
    mace = Mace(python, source, folder, train, valid, threads, tests, "cpu", shape=TASKS[task]["model"], stress=source is None)
    done = folder / "mace.json"
    before = json.loads(done.read_text()) if done.exists() else {"epochs": 0, "seconds": 0.0}
    mace.epochs = [0.0] * before["epochs"]
    mace.seconds = before["seconds"]
    for upto in range(before["epochs"] + 10, epochs + 10, 10):  # in blocks, so that the clock survives an interrupt
        mace.run(min(upto, epochs))
        done.write_text(json.dumps({"epochs": len(mace.epochs), "seconds": mace.seconds}))
        errors = mace.curve[-1][1]
        print(task, len(mace.epochs), f"{mace.seconds:.0f} s", {k: round(1e3 * v["force_rmse"], 1) for k, v in errors.items()}, flush=True)
        yield {"epochs": len(mace.epochs), "seconds": mace.seconds, "parameters": None, "tests": errors}


def table(folder: Path) -> str:
    lines = [
        f"# Accuracy of finished models, {datetime.date.today()}", "",
        f"{machine()}. `benchmarks/accuracy.py`. Root mean square errors on the test files: energies meV (3BPA, 27 atoms) or meV/atom (metals), forces meV/A.", "",
        "| task | engine | channels | epochs | minutes | test file | energy | force | stress, meV/A^3 |", "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for task in TASKS:
        for engine in ("adatom", "mace-torch"):
            file = folder / f"{task}-{engine}.json"
            if not file.exists():
                continue
            r = json.loads(file.read_text())
            for k, (name, e) in enumerate(r["tests"].items()):
                head = f"{task} | {engine} | {TASKS[task]['model']['channels']} | {r['epochs']} | {r['seconds'] / 60:.0f}" if k == 0 else " | | | | "
                energy = e["energy_rmse"] if task.startswith("3bpa") else e["energy_per_atom_rmse"]
                stress = f"{1e3 * e['stress_rmse']:.2f}" if e.get("stress_rmse") is not None else ""
                lines.append(f"| {head} | {Path(name).stem.removeprefix('test_')} | {1e3 * energy:.2f} | {1e3 * e['force_rmse']:.1f} | {stress} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("tasks", nargs="*", choices=[*TASKS, []], metavar="TASK")
    parser.add_argument("--python", action="append", default=[], metavar="mace=PATH", help="interpreter that has mace-torch")
    parser.add_argument("--only", choices=("adatom", "mace-torch"))
    parser.add_argument("--mace-epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    pythons = dict(p.split("=", 1) for p in arguments.python)
    for task in arguments.tasks:
        folder = arguments.folder.absolute() / task
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.only != "mace-torch":
            result = run_adatom(task, arguments.data, folder, arguments.threads)
            (arguments.folder / f"{task}-adatom.json").write_text(json.dumps(result, indent=1))
        if arguments.only != "adatom" and "mace" in pythons:
            for result in run_mace(task, arguments.data, folder, arguments.threads, pythons["mace"], arguments.mace_epochs):
                (arguments.folder / f"{task}-mace-torch.json").write_text(json.dumps(result, indent=1))
    if arguments.table:
        text = table(arguments.folder)
        print(text)
        if arguments.output:
            arguments.output.write_text(text)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
