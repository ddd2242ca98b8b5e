# SPDX-License-Identifier: MIT
"""The structures of the LAMMPS tests. The cells are lower triangular, as LAMMPS stores them."""
import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule


def _disturb(atoms: Atoms, amplitude: float = 0.08, oxygen: float = 0.2) -> Atoms:
    rng = np.random.default_rng(7)
    atoms.positions += rng.normal(scale=amplitude, size=atoms.positions.shape)
    atoms.numbers[rng.random(len(atoms)) < oxygen] = 8
    return atoms


def crystal() -> Atoms:
    """32 atoms; the box (7.2 angstrom) is shorter than twice the cutoff."""
    return _disturb(bulk("Cu", cubic=True, a=3.6) * (2, 2, 2))


def large_crystal() -> Atoms:
    return _disturb(bulk("Cu", cubic=True, a=3.6) * (4, 4, 4), amplitude=0.02)


def small_cell() -> Atoms:
    """4 atoms in a box that is shorter than the cutoff: atoms are neighbours of their own images."""
    return _disturb(bulk("Cu", cubic=True, a=3.6))


def triclinic() -> Atoms:
    cell = [[7.5, 0.0, 0.0], [2.1, 7.0, 0.0], [-1.4, 1.9, 6.8]]
    grid = np.stack(np.meshgrid(*[np.arange(3) / 3] * 3), axis=-1).reshape(-1, 3)
    return _disturb(Atoms("Cu27", scaled_positions=grid, cell=cell, pbc=True))


def slab() -> Atoms:
    """CO on Cu(111), vacuum along z: ranks along z have no atoms."""
    atoms = fcc111("Cu", (3, 2, 2), a=3.6, orthogonal=True)
    atoms.positions[:, 2] += 3.0 - atoms.positions[:, 2].min()
    co = molecule("CO")
    co.rotate(180, "x")
    co.positions += atoms.positions[-1] + [0.0, 0.0, 1.8] - co.positions[co.numbers == 6][0]
    atoms += co
    atoms.cell[2] = [0.0, 0.0, 60.0]
    atoms.pbc = True
    return _disturb(atoms, amplitude=0.02, oxygen=0.0)


def cluster() -> Atoms:
    """Five atoms in the corner of a large open box."""
    positions = [[3, 3, 3], [5.2, 3, 3], [3, 5.1, 3.2], [4.8, 4.9, 3.1], [3.9, 4.1, 5.0]]
    return Atoms("CuCuCuOC", positions=positions, cell=[60, 60, 60], pbc=False)


def lone_atoms() -> Atoms:
    """An atom alone and a pair that does not see it: no edges at all for one of them."""
    return Atoms("CuOC", positions=[[5, 5, 5], [25, 25, 25], [26.3, 25, 25]], cell=[40, 40, 40], pbc=True)


ALL = {f.__name__: f for f in (crystal, small_cell, triclinic, slab, cluster, lone_atoms)}
