# SPDX-License-Identifier: MIT
"""A picture of a report."""

from __future__ import annotations

from os import PathLike

from adatom import _pictures
from adatom.datasets.reports import Report


def plot(report: Report, file: str | PathLike[str]) -> None:
    """Draws energies without the composition's part, largest forces, sizes of frames and elements into an image file (.png, .pdf, .svg)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, panels = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    energy, force, size, elements = panels.flat

    residual = report.values["residual"]
    residual = residual[np.isfinite(residual)]
    energy.set(title="energies", xlabel="energy less its composition's (eV/atom)", ylabel="frames")
    if len(residual):
        energy.hist(residual, bins=_bins(len(residual)), color="C0")

    largest = report.values["largest_force"]
    largest = np.maximum(largest[np.isfinite(largest)], 1e-3)
    force.set(title="forces", xlabel="largest force of a frame (eV/angstrom)", ylabel="frames", xscale="log")
    if len(largest):
        low, high = largest.min(), max(largest.max(), 1.01 * largest.min())
        force.hist(largest, bins=np.geomspace(low, high, _bins(len(largest))), color="C1")

    atoms = report.values["atoms"]
    size.set(title="sizes", xlabel="atoms of a frame", ylabel="frames")
    if len(atoms):
        size.hist(atoms, bins=min(_bins(len(atoms)), int(np.ptp(atoms)) + 1), color="C2")

    counts: dict[str, int] = {}
    for head in report.data["heads"].values():
        for symbol, element in head["elements"].items():
            counts[symbol] = counts.get(symbol, 0) + element["atoms"]
    elements.bar(list(counts), list(counts.values()), color="C3")
    elements.set(title="elements", ylabel="atoms", yscale="log" if counts else "linear")

    for panel in panels.flat:
        panel.set_axisbelow(True)
        panel.grid(alpha=0.3)
    figure.suptitle(f"{report.data['frames']} frames, {report.data['atoms']} atoms")
    _pictures.save(figure, file, 150)


def _bins(n: int) -> int:
    return max(10, min(80, round(2 * n ** (1 / 3) * 2)))
