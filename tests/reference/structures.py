# SPDX-License-Identifier: MIT
"""The structures of the reference cases. `python structures.py` writes data/structures.json, which C++, Python and LAMMPS tests read.

Each is a dict: numbers [n], positions [n][3] and cell [3][3] in angstrom (rows are lattice vectors; zero without periodicity), pbc [3].
Deterministic: a generator with a fixed seed for each structure.
"""
import itertools
import json
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"
H, O, NA, MG, CL, CU = ELEMENTS = [1, 8, 11, 12, 17, 29]


def _structure(numbers, positions, cell=None, pbc=(False, False, False)):
    cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=float)
    return {"numbers": [int(z) for z in numbers], "positions": np.asarray(positions, dtype=float).tolist(), "cell": cell.tolist(),
            "pbc": [bool(p) for p in np.broadcast_to(pbc, 3)]}


def _crystal(basis, numbers, vectors, repeat, rattle=0.0, seed=0, pbc=(True, True, True)):
    """`basis` in fractions of the unit cell whose rows are `vectors`, repeated, with Gaussian displacements of `rattle` angstrom."""
    vectors = np.asarray(vectors, dtype=float)
    shifts = np.array([(i, j, k) for i in range(repeat[0]) for j in range(repeat[1]) for k in range(repeat[2])], dtype=float)
    positions = (shifts[:, None, :] + np.asarray(basis)[None, :, :]).reshape(-1, 3) @ vectors
    positions += np.random.default_rng(seed).normal(scale=rattle, size=positions.shape) if rattle else 0.0
    return _structure(list(numbers) * len(shifts), positions, np.diag(repeat).astype(float) @ vectors, pbc)


FCC = [(0, 0, 0), (0, .5, .5), (.5, 0, .5), (.5, .5, 0)]
ROCKSALT = FCC + [(.5, .5, .5), (.5, 0, 0), (0, .5, 0), (0, 0, .5)]


def _cu_fcc():
    return _crystal(FCC, [CU] * 4, 3.61 * np.eye(3), (2, 2, 1), 0.12, seed=1)


def _mg_hcp():
    a, c = 3.21, 5.21
    return _crystal([(0, 0, 0), (1 / 3, 2 / 3, .5)], [MG] * 2, [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]], (2, 2, 1), 0.08, seed=2)


def _slab():
    """Cu(111), three layers, with an O adatom; periodic in the plane only. The third cell vector has no meaning."""
    s = 3.61 / np.sqrt(2)
    plane = np.array([[s, 0, 0], [s / 2, s * np.sqrt(3) / 2, 0]])
    d = 3.61 / np.sqrt(3)
    positions = [(i + k / 3) * plane[0] + (j + k / 3) * plane[1] + [0, 0, k * d] for k in range(3) for i in range(2) for j in range(2)]
    positions = np.array(positions + [plane[0] * 2 / 3 + plane[1] * 2 / 3 + [0.1, 0.05, 2 * d + 1.25]])
    positions += np.random.default_rng(3).normal(scale=0.06, size=positions.shape)
    return _structure([CU] * 12 + [O], positions, [2 * plane[0], 2 * plane[1], [0, 0, 25.0]], (True, True, False))


def _molecule():
    """H2O2, not periodic, far from the origin."""
    x = np.array([[0, 0.73, -0.05], [0, -0.73, -0.05], [0.81, 0.90, 0.43], [-0.81, -0.90, 0.46]])
    return _structure([O, O, H, H], x + [10.0, -7.0, 3.0])


def _water():
    """Eight molecules in a box, some atoms outside the cell."""
    rng = np.random.default_rng(4)
    molecule = np.array([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
    positions = []
    for corner in np.ndindex(2, 2, 2):
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        positions.append(molecule @ (q * np.sign(np.diag(r))) + 3.1 * np.array(corner) + rng.normal(scale=0.1, size=3))
    return _structure([O, H, H] * 8, np.concatenate(positions), 6.2 * np.eye(3), True)


def _nacl():
    return _crystal(ROCKSALT, [NA] * 4 + [CL] * 4, 5.64 * np.eye(3), (1, 1, 1), 0.1, seed=5)


def _primitive():
    """One atom in a strained primitive cell that is smaller than every cutoff: all its neighbours are its own images."""
    cell = 3.61 / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) @ (np.eye(3) + [[.02, .03, 0], [0, -.01, .02], [.01, 0, .03]])
    return _structure([CU], [[0.3, -0.2, 0.1]], cell, True)


def _triclinic():
    """A very oblique cell: angles of about 40 and 140 degrees."""
    return _structure([NA, CL, O, MG], np.array([[.1, .2, .15], [.62, .35, .4], [.35, .8, .55], [.85, .7, .95]]) @ _OBLIQUE, _OBLIQUE, True)


_OBLIQUE = np.array([[5.2, 0.0, 0.0], [4.1, 3.4, 0.0], [-3.6, 1.0, 4.0]])


def _close_contact():
    """Pairs at 0.5 to 1.4 angstrom, where the short-range repulsion acts."""
    x = [[0, 0, 0], [0.62, 0.1, 0.05], [1.2, 0.95, 0.3], [-0.4, 1.1, 0.7], [0.3, 0.2, 1.35], [1.5, -0.6, 1.1], [-1.2, -0.3, 0.4], [2.1, 0.9, -0.1]]
    return _structure([CU, H, O, NA, CL, MG, CU, H], x)


def _mixed():
    """64 atoms of five elements on a rocksalt lattice."""
    s = _crystal(ROCKSALT, [MG] * 4 + [O] * 4, 4.3 * np.eye(3), (2, 2, 2), 0.15, seed=6)
    rng = np.random.default_rng(7)
    s["numbers"] = [int(rng.choice([MG, CU, NA])) if z == MG else int(rng.choice([O, CL], p=[.8, .2])) for z in s["numbers"]]
    return s


def _chain():
    """Periodic along the third cell vector only."""
    x = [[0.1, 0.0, 0.0], [-0.1, 0.2, 2.0], [1.9, 0.1, 0.3], [0.2, 1.5, 2.3]]
    return _structure([MG, O, H, CL], x, [[0, 0, 0], [0, 0, 0], [0.2, 0.1, 4.1]], (False, False, True))


def _lonely():
    """A molecule and an atom without neighbours in one periodic cell."""
    return _structure([O, H, H, CU], [[1, 1, 1], [1.76, 1.59, 1], [0.24, 1.59, 1.1], [9, 9, 9]], np.diag([16.0, 17.0, 18.0]), True)


def all_structures():
    """{name: structure}"""
    return {
        "cu_fcc": _cu_fcc(), "mg_hcp": _mg_hcp(), "slab": _slab(), "molecule": _molecule(), "water": _water(), "nacl": _nacl(),
        "atom": _structure([CU], [[1.0, 2.0, 3.0]]), "dimer": _structure([CU, O], [[0, 0, 0], [1.1, 0.9, 1.0]]), "primitive": _primitive(),
        "triclinic": _triclinic(), "close_contact": _close_contact(), "mixed": _mixed(), "chain": _chain(), "lonely": _lonely(),
    }


def neighbor_list(positions, cell, pbc, cutoff):
    """Edges closer than the cutoff by trying all images: receiver, sender [E], and lattice translations [E, 3] in units of the cell vectors."""
    pbc = np.asarray(pbc)
    counts = np.zeros(3, dtype=int)
    if pbc.any():
        full = np.array(cell, dtype=float)
        # Directions without periodicity get unit vectors orthogonal to the others, so that the cell can be inverted.
        for axis in np.flatnonzero(~pbc):
            full[axis] = 0.0
            full[axis] = np.linalg.svd(full)[2][-1]
        heights = 1.0 / np.linalg.norm(np.linalg.inv(full), axis=0)
        spread = np.ptp(positions @ np.linalg.inv(full), axis=0)
        counts = np.where(pbc, np.ceil(cutoff / heights + spread).astype(int), 0)
    receiver, sender, shift = [], [], []
    for h in itertools.product(*(range(-n, n + 1) for n in counts)):
        d = positions[None, :, :] - positions[:, None, :] + np.array(h) @ np.asarray(cell, dtype=float)
        near = np.linalg.norm(d, axis=-1) < cutoff
        if not any(h):
            np.fill_diagonal(near, False)
        i, j = np.nonzero(near)
        receiver.append(i), sender.append(j), shift.append(np.tile(h, (len(i), 1)))
    return np.concatenate(receiver), np.concatenate(sender), np.concatenate(shift)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    (DATA / "structures.json").write_text(json.dumps(all_structures(), indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
