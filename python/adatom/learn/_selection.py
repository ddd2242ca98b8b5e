# SPDX-License-Identifier: MIT
"""Which of the caught configurations are worth a DFT calculation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adatom.potential import Potential
from adatom.uncertainty import whitened

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray


REFERENCE_ATOMS = 2000  # that stand for the atoms that dynamics visits


def select(model: Path, candidates: list[Atoms], trained: list[Atoms], held_out: list[bool], method: str, seed: int) -> list[int]:
    """Indices of the chosen ones, in the order of choice: as many as `held_out` has entries. Where it says yes one is drawn at random: calibration is for
    what dynamics visits; the others are the method's. Distances are those of the detector, between whitened features of atoms of one element.

    "cover": greedy. An atom that dynamics visits has an expected error by its distance to the nearest atom of its element that is trained on or chosen (_cost);
    the configuration that lowers the sum of their squares most comes next (k-medoids; of the same kind as what does best for regression in arXiv 2203.09410).
    So what is far counts, but what dynamics often visits counts more. Each run (`info["run"]`) has the same weight, however early it was stopped: the few
    configurations of one that was stand for all that it did not come to.
    "farthest": greedy, atom by atom. An atom is novel by as much as it is farther than 1 from the training set (its mean) and from all atoms of
    its element in the configurations chosen before; the configuration whose atoms are novel most, all together, comes next.
    Both end when nothing is gained.
    """
    rng = np.random.default_rng(seed)
    drawn = [int(k) for k in rng.permutation(len(candidates))]
    if method == "random":
        return drawn[: len(held_out)]
    potential, number = Potential.load(model), held_out.count(False)
    described = [_describe(potential, model, atoms) for atoms in candidates]
    if method == "farthest":
        best = _farthest(described, number)
    else:
        runs = [atoms.info.get("run", "") for atoms in candidates]
        best = _cover(described, runs, (_describe(potential, model, atoms) for atoms in trained), number, rng)
    if number and not best:
        return []
    best, others = iter(best), iter([k for k in drawn if k not in best])
    chosen = [next(others if held else best, None) for held in held_out]
    return chosen[: chosen.index(None)] if None in chosen else chosen


def _describe(potential: Potential, model: Path, atoms: Atoms) -> tuple[NDArray, NDArray]:
    """Atomic numbers and whitened features; those of an element without training data are far from everything."""
    return atoms.numbers, np.nan_to_num(whitened(potential, model, atoms), posinf=1e3)


def _nearest(numbers, rows, others) -> NDArray:
    """Squared distance of each atom to the nearest one of its element among the others (atomic numbers and rows); inf where there is none."""
    nearest = np.full(len(rows), np.inf)
    for z in np.unique(numbers):
        mine, its = rows[numbers == z], others[1][others[0] == z]
        if len(its):
            square = (mine**2).mean(1)[:, None] + (its**2).mean(1)[None] - 2 * mine @ its.T / mine.shape[1]
            nearest[numbers == z] = np.maximum(square.min(1), 0.0)
    return nearest


def _farthest(candidates, number: int) -> list[int]:
    novel = [np.sqrt((y**2).mean(1)) for _, y in candidates]
    chosen: list[int] = []
    while len(chosen) < min(number, len(candidates)):
        gains = np.array([np.maximum(n - 1.0, 0.0).sum() for n in novel])
        gains[chosen] = -1.0
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            break
        chosen.append(best)
        for k, (numbers, rows) in enumerate(candidates):
            novel[k] = np.minimum(novel[k], np.sqrt(_nearest(numbers, rows, candidates[best])))
    return chosen


def _cost(square: NDArray) -> NDArray:
    """What an atom at that squared distance costs: a squared force error, in arbitrary units. Errors are found to grow as the square of the distance within the
    spread of the training set (1), as a function does that is known to first order, and more slowly outside."""
    return square**2 / (1.0 + square)


def _cover(candidates, runs, labelled, number: int, rng) -> list[int]:
    numbers, rows = (np.concatenate([c[k] for c in candidates]) for k in (0, 1))
    run = np.repeat(np.unique(runs, return_inverse=True)[1], [len(c[0]) for c in candidates])
    number_of_runs = run.max() + 1
    sample = [rng.permutation(np.flatnonzero(run == r))[: -(-REFERENCE_ATOMS // number_of_runs)] for r in range(number_of_runs)]
    weights = np.concatenate([np.full(len(atoms), 1.0 / len(atoms)) for atoms in sample])
    numbers, rows = numbers[np.concatenate(sample)], rows[np.concatenate(sample)]
    far = np.full(len(rows), 1e6)  # of an element that no label has
    for one in labelled:
        far = np.minimum(far, _nearest(numbers, rows, one))
    far, distances = _cost(far), _cost(np.minimum(np.array([_nearest(numbers, rows, one) for one in candidates]), 1e6))
    chosen: list[int] = []
    while len(chosen) < min(number, len(candidates)):
        gains = np.maximum(far - distances, 0.0) @ weights
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            break
        chosen.append(best)
        far = np.minimum(far, distances[best])
    return chosen
