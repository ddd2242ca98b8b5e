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


REFERENCE_ATOMS = 2000  # that stand for all atoms of the candidates


def select(model: Path, candidates: list[Atoms], labelled: list[Atoms], number: int, method: str, seed: int) -> list[int]:
    """Indices of the chosen ones, in the order of choice. Distances are those of the detector, between whitened features of atoms of one element.

    "cover": greedy. The dynamics' atoms, all candidates', are each as far from the data as from the nearest atom of its element that is labelled or chosen; the
    configuration that lowers the sum of their squares most comes next (k-medoids; of the same kind as what does best for regression in arXiv 2203.09410).
    So what is far counts, but what the dynamics often visits counts more.
    "farthest": greedy, atom by atom. An atom is novel by as much as it is farther than 1 from the training set (its mean) and from all atoms of
    its element in the configurations chosen before; the configuration whose atoms are novel most, all together, comes next.
    Both end when nothing is gained.
    """
    if method == "random":
        return [int(k) for k in np.random.default_rng(seed).permutation(len(candidates))[:number]]
    potential = Potential.load(model)
    described = [_describe(potential, model, atoms) for atoms in candidates]
    if method == "farthest":
        return _farthest(described, number)
    return _cover(described, (_describe(potential, model, atoms) for atoms in labelled), number, np.random.default_rng(seed))


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


def _cover(candidates, labelled, number: int, rng) -> list[int]:
    numbers, rows = (np.concatenate([c[k] for c in candidates]) for k in (0, 1))
    sample = rng.permutation(len(rows))[:REFERENCE_ATOMS]
    numbers, rows = numbers[sample], rows[sample]
    far = np.full(len(rows), 1e6)  # of an element that no label has
    for one in labelled:
        far = np.minimum(far, _nearest(numbers, rows, one))
    distances = np.array([_nearest(numbers, rows, one) for one in candidates])
    chosen: list[int] = []
    while len(chosen) < min(number, len(candidates)):
        gains = np.maximum(far - distances, 0.0).sum(1)
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            break
        chosen.append(best)
        far = np.minimum(far, distances[best])
    return chosen
