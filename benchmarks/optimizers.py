# SPDX-License-Identifier: MIT
"""SOAP against AdamW on 3BPA: validation loss after a number of epochs, each tuned over the same number of trials.

    python benchmarks/optimizers.py DATA [--epochs 100] [--threads 1] [--output FOLDER] [-o benchmarks/results/FILE.md]

DATA is the folder with train.extxyz and isolated_atoms.extxyz of 3BPA. The model, the loss and the batches are those of benchmarks/training.py. AdamW trains
for --epochs, SOAP for half of them, both with a cosine schedule, one trial for each learning rate and moment in TRIALS. Trials that are done (their log in
the output folder ends) are not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from cpu import machine
from training import SHAPE, split

# name: (part of --epochs, settings of each trial)
TRIALS = {
    "adamw": (1.0, [{"learning_rate": rate, "beta2": beta2} for rate in (0.01, 0.02, 0.04) for beta2 in (0.99, 0.999)]),
    "soap": (0.5, [{"learning_rate": rate, "beta1": 0.95, "beta2": beta2} for rate in (0.01, 0.02, 0.04) for beta2 in (0.99, 0.999)]),
}


def trial(data: Path, folder: Path, name: str, settings: dict, epochs: int, threads: int) -> list[dict]:
    """The epochs of a trial, from its log."""
    from adatom.training import train

    output = folder / "_".join([name, str(epochs), *(f"{key}={value}" for key, value in settings.items())])
    log = output / "log.jsonl"
    if not (log.exists() and '"end"' in log.read_text()):
        config = {
            "model": SHAPE, "output": str(output), "threads": threads, "seed": 1,
            "data": {"train": [str(folder / "train.extxyz")], "valid": [str(folder / "valid.extxyz")], "isolated_atoms": str(data / "isolated_atoms.extxyz")},
            "loss": {"energy": 15.0, "forces": 1000.0}, "optimizer": {"name": name, **settings}, "schedule": {"type": "cosine"},
            "training": {"batch_size": 5, "ema_decay": 0.99, "clip_gradient": 10.0, "epochs": epochs},
        }  # fmt: skip
        train(config, resume=True)
    epochs_done = {e["epoch"]: e for e in map(json.loads, log.read_text().splitlines()) if e["event"] == "epoch"}
    return [epochs_done[k] for k in sorted(epochs_done)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("build/optimizers"))
    parser.add_argument("-o", "--table", type=Path)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    split(arguments.data, arguments.output)

    runs = {name: [] for name in TRIALS}
    for k in range(max(len(trials) for _, trials in TRIALS.values())):
        for name, (part, trials) in TRIALS.items():
            if k < len(trials):
                epochs = trial(arguments.data, arguments.output, name, trials[k], round(part * arguments.epochs), arguments.threads)
                runs[name].append((trials[k], epochs))
                best = min(epochs, key=lambda e: e["valid"]["loss"])
                print(name, trials[k], f"best loss {best['valid']['loss']:.4f} at epoch {best['epoch']}, {epochs[-1]['seconds']:.0f} s", flush=True)

    goal = min(e["valid"]["loss"] for _, epochs in runs["adamw"] for e in epochs)
    lines = [
        f"# SOAP against AdamW on 3BPA, {datetime.date.today()}", "",
        f"{machine()}, {arguments.threads} threads; MACE 32x0e + 32x1o, batches of 5, 450 configurations, cosine schedule to the end of each run. `benchmarks/optimizers.py`.", "",
        f"| optimiser | settings | epochs | best validation loss | force RMSE, meV/A | seconds | epochs to AdamW's best loss, {goal:.3f} | seconds to it |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, done in runs.items():
        for settings, epochs in done:
            best = min(epochs, key=lambda e: e["valid"]["loss"])
            reached = next((e for e in epochs if e["valid"]["loss"] <= goal), None)
            lines.append(f"| {name} | {', '.join(f'{k} {v}' for k, v in settings.items())} | {len(epochs)} | {best['valid']['loss']:.3f} | "
                         f"{1e3 * best['valid']['force_rmse']:.1f} | {epochs[-1]['seconds']:.0f} | "
                         + (f"{reached['epoch']} | {reached['seconds']:.0f} |" if reached else "| |"))
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.table:
        arguments.table.write_text(text)


if __name__ == "__main__":
    main()
