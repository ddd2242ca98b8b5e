# SPDX-License-Identifier: MIT
"""Pictures of a run: its log, and labels against predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adatom import _pictures

MOST_PANELS = 5  # of elements
MOST_DOTS = 4000  # beyond, a panel counts points in hexagons


def plot_run(folder: str | Path) -> list[Path]:
    """Draws loss and errors against epochs from log.jsonl; returns the files written."""
    plt = _pyplot()
    folder = Path(folder)
    by_epoch = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "epoch":
            by_epoch[event["epoch"]] = event  # a run that was resumed repeats epochs: the last one counts
    epochs = [by_epoch[k] for k in sorted(by_epoch)]
    if not epochs:
        return []
    x = [e["epoch"] for e in epochs]

    def curve(*path: str) -> list[float]:
        values = []
        for e in epochs:
            value = e["valid"]
            for key in path:
                value = value.get(key, {})
            values.append(1e3 * value if value != {} else float("nan"))
        return values

    errors = [("energy_per_atom_rmse", "energies, meV/atom"), ("force_rmse", "forces, meV/angstrom"), ("stress_rmse", "stresses, meV/angstrom^3")]
    errors = [(key, label) for key, label in errors if key in epochs[-1]["valid"]]
    figure, axes = plt.subplots(1, 1 + len(errors), figsize=(4.3 * (1 + len(errors)), 3.8), constrained_layout=True)
    axes[0].semilogy(x, [e["train_loss"] for e in epochs], label="training")
    axes[0].semilogy(x, [e["valid"]["loss"] for e in epochs], label="validation")
    axes[0].legend()
    axes[0].set_ylabel("loss")
    for axis, (key, label) in zip(axes[1:], errors):
        axis.semilogy(x, curve(key), color="black", label="all")
        axis.set_ylabel(f"RMSE of {label}")
        elements = epochs[-1]["valid"].get("force_rmse_by_element", {})
        if key == "force_rmse" and 1 < len(elements) <= 2 * MOST_PANELS:
            for element in elements:
                axis.semilogy(x, curve("force_rmse_by_element", element), lw=0.8, label=element)
            axis.legend()
    for axis in axes:
        axis.set_xlabel("epoch")
    return [_pictures.save(figure, folder / "training.png", 120)]


def plot_parity(file: Path, sample: dict[str, Any], errors: dict[str, Any], title: str) -> list[Path]:
    """Draws labels against predictions (`_training.Trainer.parity`): energies, forces of each element where there are few, stresses. `errors` are those of
    the whole set."""
    import numpy as np
    from ase.data import chemical_symbols

    plt = _pyplot()
    panels = []
    if len(sample["energies"]):
        panels.append(("energy beyond that of the atoms, eV/atom", sample["energies"], errors.get("energy_per_atom_rmse")))
    numbers = sample["numbers"]
    elements = np.unique(numbers)
    if 1 <= len(elements) <= MOST_PANELS:
        for z in elements:
            symbol = chemical_symbols[int(z)]
            panels.append((f"forces on {symbol}, eV/angstrom", sample["forces"][numbers == z], errors.get("force_rmse_by_element", {}).get(symbol)))
    elif len(elements):
        panels.append(("forces, eV/angstrom", sample["forces"], errors.get("force_rmse")))
    if len(sample["stresses"]):
        panels.append(("stress, eV/angstrom^3", sample["stresses"], errors.get("stress_rmse")))
    if not panels:
        return []
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 4), squeeze=False, constrained_layout=True)
    for axis, (label, rows, rmse) in zip(axes[0], panels):
        if len(rows) > MOST_DOTS:
            axis.hexbin(rows[:, 0], rows[:, 1], gridsize=70, bins="log", mincnt=1, linewidths=0.1)
        else:
            axis.plot(rows[:, 0], rows[:, 1], ".", ms=3, alpha=0.6)
        axis.axline((rows[0, 0], rows[0, 0]), slope=1, color="0.5", lw=0.8, zorder=3)
        axis.set(xlabel=f"DFT {label}", ylabel="predicted")
        if rmse is not None:
            axis.text(0.04, 0.96, f"RMSE {1e3 * rmse:.3g} m{label.rsplit(', ', 1)[1]}", transform=axis.transAxes, va="top")
    figure.suptitle(f"{title} ({sample['configurations']} of {sample['of']} configurations)" if sample["configurations"] < sample["of"] else title)
    return [_pictures.save(figure, file, 120)]


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
