# SPDX-License-Identifier: MIT
"""Pictures of a run from its log."""

from __future__ import annotations

import json
from pathlib import Path


def plot_run(folder: str | Path) -> list[Path]:
    """Draws loss and errors against epochs from log.jsonl; returns the files written."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder = Path(folder)
    by_epoch = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "epoch":
            by_epoch[event["epoch"]] = event  # a run that was resumed repeats epochs: the last one counts
    epochs = [by_epoch[k] for k in sorted(by_epoch)]
    if not epochs:
        return []
    x = [e["epoch"] + 1 for e in epochs]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), constrained_layout=True)
    axes[0].semilogy(x, [e["train_loss"] for e in epochs], label="training")
    axes[0].semilogy(x, [e["valid"]["loss"] for e in epochs], label="validation")
    axes[0].legend()
    axes[0].set_ylabel("loss")
    for axis, key, label in ((axes[1], "energy_per_atom_rmse", "RMSE of energies, meV/atom"), (axes[2], "force_rmse", "RMSE of forces, meV/angstrom")):
        axis.semilogy(x, [1e3 * e["valid"].get(key, float("nan")) for e in epochs], color="black", label="all")
        axis.set_ylabel(label)
    elements = epochs[-1]["valid"].get("force_rmse_by_element", {})
    if 1 < len(elements) <= 10:
        for element in elements:
            axes[2].semilogy(x, [1e3 * e["valid"].get("force_rmse_by_element", {}).get(element, float("nan")) for e in epochs], lw=0.8, label=element)
        axes[2].legend()
    for a in axes:
        a.set_xlabel("epoch")
    target = folder / "training.png"
    figure.savefig(target, dpi=120)
    plt.close(figure)
    return [target]
