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


def select(model: Path, candidates: list[Atoms], number: int, method: str, seed: int) -> list[int]:
    """Indices of the chosen ones, in the order of choice.

    "farthest": greedy, atom by atom. An atom is novel by as much as it is farther than 1 (in units of distances) from the training set and from all atoms of
    its element in the configurations chosen before; the configuration whose atoms are novel most, all together, comes next. Ends when nothing is novel.
    """
    if method == "random":
        return [int(k) for k in np.random.default_rng(seed).permutation(len(candidates))[:number]]
    potential = Potential.load(model)
    rows = [np.nan_to_num(whitened(potential, model, atoms), posinf=1e3) for atoms in candidates]  # an element without training data: far from everything
    novel = [np.sqrt((y**2).mean(1)) for y in rows]
    chosen: list[int] = []
    while len(chosen) < min(number, len(candidates)):
        gains = np.array([np.maximum(n - 1.0, 0.0).sum() for n in novel])
        gains[chosen] = -1.0
        best = int(np.argmax(gains))
        if not gains[best] > 0:
            break
        chosen.append(best)
        numbers = candidates[best].numbers
        for k, atoms in enumerate(candidates):
            for z in np.unique(atoms.numbers):
                mine, others = rows[k][atoms.numbers == z], rows[best][numbers == z]
                if not len(others):
                    continue
                square = (mine**2).mean(1)[:, None] + (others**2).mean(1)[None] - 2 * mine @ others.T / mine.shape[1]
                nearest = np.sqrt(np.maximum(square.min(1), 0.0))
                novel[k][atoms.numbers == z] = np.minimum(novel[k][atoms.numbers == z], nearest)
    return chosen
