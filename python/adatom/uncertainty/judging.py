# SPDX-License-Identifier: MIT
"""How good predicted errors are: correlation, coverage of intervals, detection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adatom.potential import Potential

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Judgement:
    """Errors and predicted errors of m configurations with n atoms in all. Errors are labels minus predictions."""

    energy_errors: NDArray[np.float64]  #: [m], eV
    energy_std: NDArray[np.float64]  #: [m], eV
    force_errors: NDArray[np.float64]  #: [n, 3], eV/angstrom
    force_std: NDArray[np.float64]  #: [n], eV/angstrom
    distances: NDArray[np.float64]  #: [n]
    frame: NDArray[np.int64]  #: [n], configuration of each atom
    levels: tuple[float, ...]  #: of intervals
    energy_intervals: tuple[float, ...]  #: half widths in standard deviations
    force_intervals: tuple[float, ...]

    def force_spearman(self) -> float:
        """Rank correlation of the length of each atom's force error and its predicted standard deviation."""
        from scipy.stats import spearmanr

        return float(spearmanr(np.linalg.norm(self.force_errors, axis=1), self.force_std).statistic)

    def force_coverage(self) -> list[float]:
        """Fraction of force components within the interval of each level."""
        return [float((np.abs(self.force_errors) <= q * self.force_std[:, None]).mean()) for q in self.force_intervals]

    def energy_coverage(self) -> list[float]:
        return [float((np.abs(self.energy_errors) <= q * self.energy_std).mean()) for q in self.energy_intervals]

    def scores(self) -> dict[str, NDArray[np.float64]]:
        """Of each configuration: the ensemble's (standard deviation of the energy by the square root of the number of atoms), and the distance's (mean and
        largest over atoms)."""
        sizes = np.bincount(self.frame)
        mean = np.bincount(self.frame, self.distances) / sizes
        largest = np.zeros(len(sizes))
        np.maximum.at(largest, self.frame, self.distances)
        return {"ensemble": self.energy_std / np.sqrt(sizes), "mean distance": mean, "largest distance": largest}

    def combined_scores(self, inside: Judgement) -> NDArray[np.float64]:
        """The largest of the scores, each in standard deviations of its logarithm from what `inside` has: any detector raises the alarm."""
        mine, theirs = self.scores(), inside.scores()
        z = []
        for name in mine:
            reference = np.log(theirs[name] + 1e-300)
            z.append((np.log(mine[name] + 1e-300) - reference.mean()) / max(reference.std(), 1e-12))
        return np.max(z, axis=0)


def judge(potential: Potential, frames: Iterable[Atoms]) -> Judgement:
    """Evaluates labelled configurations. Raises ValueError where labels or the model's detectors are missing."""
    if potential.no_uncertainty:
        raise ValueError(potential.no_uncertainty)
    energies, energy_std, forces, force_std, distances, sizes = [], [], [], [], [], []
    for k, atoms in enumerate(frames):
        results = getattr(atoms.calc, "results", {})
        if results.get("energy") is None or results.get("forces") is None:
            raise ValueError(f"configuration {k} lacks an energy or forces")
        r = potential.evaluate(atoms, stress=False, uncertainty=True)
        energies.append(results["energy"] - r.energy)
        forces.append(results["forces"] - r.forces)
        energy_std.append(r.energy_std)
        force_std.append(r.force_std)
        distances.append(r.distances)
        sizes.append(len(atoms))
    if not sizes:
        raise ValueError("no configurations")
    description = potential.uncertainty
    return Judgement(
        np.array(energies), np.array(energy_std), np.concatenate(forces), np.concatenate(force_std), np.concatenate(distances),
        np.repeat(np.arange(len(sizes)), sizes), tuple(description["levels"]), tuple(description["energy_intervals"]), tuple(description["force_intervals"]),
    )  # fmt: skip


def auroc(inside, outside) -> float:
    """Probability that a score from outside is larger than one from inside."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([inside, outside]))
    return float((ranks[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2) / len(inside) / len(outside))


def table(judgements: dict[str, Judgement]) -> list[dict]:
    """A row of numbers for each set; AUROC of configurations against the first set, which has none itself. Where a set has elements that the detectors do not
    know, their predicted errors are infinite."""
    inside = next(iter(judgements.values()))
    scores = inside.scores()
    rows = []
    for name, j in judgements.items():
        row = {
            "set": name, "configurations": len(j.energy_errors), "force_rmse": float(np.sqrt((j.force_errors**2).mean())),
            "force_std": float(np.sqrt((j.force_std**2).mean())), "force_spearman": j.force_spearman(),
            "force_coverage": dict(zip(map(str, j.levels), j.force_coverage())), "energy_rmse": float(np.sqrt((j.energy_errors**2).mean())),
            "energy_std": float(np.sqrt((j.energy_std**2).mean())), "energy_coverage": dict(zip(map(str, j.levels), j.energy_coverage())),
        }  # fmt: skip
        if j is not inside:
            row["auroc"] = {score: auroc(scores[score], values) for score, values in j.scores().items()}
            row["auroc"]["together"] = auroc(inside.combined_scores(inside), j.combined_scores(inside))
        rows.append(row)
    return rows
