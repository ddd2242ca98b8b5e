# SPDX-License-Identifier: MIT
"""Pictures of a calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adatom import _pictures
from adatom.uncertainty.judging import Judgement

BINS = 12


def plot(judgements: dict[str, Judgement], file: Path) -> None:
    """Reliability (coverage against level), error against predicted error of forces, and distances, into one PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (reliability, errors, distances) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for (name, j), colour in zip(judgements.items(), plt.rcParams["axes.prop_cycle"].by_key()["color"] * len(judgements)):
        reliability.plot(j.levels, j.force_coverage(), "o-", color=colour, ms=4, label=f"{name}: forces")
        reliability.plot(j.levels, j.energy_coverage(), "s--", color=colour, ms=4, mfc="none", label=f"{name}: energies")
        order = np.argsort(j.force_std)
        groups = [g for g in np.array_split(order, BINS) if len(g)]
        predicted = [1e3 * np.sqrt((j.force_std[g] ** 2).mean()) for g in groups]
        found = [1e3 * np.sqrt((j.force_errors[g] ** 2).mean()) for g in groups]
        errors.loglog(predicted, found, "o-", color=colour, ms=4, label=name)
        finite = j.distances[np.isfinite(j.distances)]
        if finite.size:
            distances.hist(finite, bins=60, density=True, histtype="step", color=colour, label=name)
    reliability.plot([0.4, 1], [0.4, 1], color="0.6", lw=0.8)
    reliability.set(xlabel="level of the interval", ylabel="fraction within")
    low, high = errors.get_xlim()
    errors.plot([low, high], [low, high], color="0.6", lw=0.8)
    errors.set(xlabel="predicted error of forces, meV/angstrom", ylabel="RMS error, meV/angstrom")
    distances.axvline(1, color="0.6", lw=0.8)
    distances.set(xlabel="distance of atoms from the training set", ylabel="density")
    for axis in (reliability, errors, distances):
        axis.legend(fontsize=7)
    _pictures.save(figure, file, 130)
