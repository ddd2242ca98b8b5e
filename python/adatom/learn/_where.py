# SPDX-License-Identifier: MIT
"""Where in its structures the uncertainty of a round lay: by element, and the atoms farthest from the training set with what surrounds them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adatom.potential import Potential

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes

RADIUS = 7.0  #: angstrom; what a picture shows around an atom
BOND = 1.2  #: times the sum of covalent radii (Cordero et al., Dalton Trans. 2008, 2832)


def with_uncertainty(model: Path, frames: list[Atoms]) -> list[Atoms]:
    """Copies of labelled frames with arrays of each atom: distance (from the training set), force_std and force_error (eV/angstrom; of a component, and the
    length of the vector)."""
    potential = Potential.load(model)
    annotated = []
    for frame in frames:
        r = potential.evaluate(frame, stress=False, uncertainty=True)
        atoms = frame.copy()
        atoms.calc = frame.calc
        atoms.set_array("distance", r.distances)
        atoms.set_array("force_std", r.force_std)
        atoms.set_array("force_error", np.linalg.norm(frame.get_forces() - r.forces, axis=1))
        annotated.append(atoms)
    return annotated


def by_element(frames: list[Atoms]) -> dict[str, dict[str, Any]]:
    """Of each element: how many of its atoms are out, how far, and how large their errors are."""
    symbols = np.concatenate([a.symbols for a in frames])
    distance, error = (np.concatenate([a.arrays[name] for a in frames]) for name in ("distance", "force_error"))
    return {
        str(s): {
            "atoms": int(np.sum(symbols == s)), "beyond_1": int(np.sum(distance[symbols == s] > 1)),
            "largest_distance": float(distance[symbols == s].max()), "largest_error": float(error[symbols == s].max()),
        }
        for s in np.unique(symbols)
    }  # fmt: skip


def farthest_atoms(frames: list[Atoms], number: int) -> list[tuple[int, int]]:
    """(frame, atom) of the largest distances, at most one atom of each frame."""
    farthest = [int(np.argmax(a.arrays["distance"])) for a in frames]
    order = sorted(range(len(frames)), key=lambda k: -frames[k].arrays["distance"][farthest[k]])
    return [(k, farthest[k]) for k in order[:number]]


def bonded(atoms: Atoms, atom: int) -> str:
    """What an atom is bonded to, such as "Cu3 O"; empty if it is alone. Images of periodic structures count each."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    radii = BOND * covalent_radii[atoms.numbers]
    i, j = neighbor_list("ij", atoms, radii)
    found = Counter(atoms.symbols[k] for k in j[i == atom])
    return " ".join(s + (str(n) if n > 1 else "") for s, n in sorted(found.items()))


def draw(atoms: Atoms, atom: int, axes: Axes, rotation: str) -> None:
    """The surroundings of an atom, out to RADIUS, in the colours of each atom's distance: white at 0, red from 2 on. A ring marks the atom."""
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list
    from ase.utils import rotate
    from matplotlib import colormaps
    from matplotlib.patches import Circle

    i, j, vectors = neighbor_list("ijD", atoms, RADIUS)
    around = np.concatenate([[atom], j[i == atom]])
    places = np.concatenate([np.zeros((1, 3)), vectors[i == atom]]) @ rotate(rotation)
    colours = colormaps["Reds"](np.clip(atoms.arrays["distance"] / 2, 0, 1))
    for k in np.argsort(places[:, 2]):  # from the back to the front
        size = 0.8 * covalent_radii[atoms.numbers[around[k]]]
        axes.add_patch(Circle(places[k, :2], size, facecolor=colours[around[k]], edgecolor="0.3", linewidth=0.5))
    axes.add_patch(Circle((0, 0), covalent_radii[atoms.numbers[atom]], fill=False, edgecolor="C0", linewidth=2))
    axes.set(xlim=(-RADIUS - 1, RADIUS + 1), ylim=(-RADIUS - 1, RADIUS + 1), aspect="equal")
    axes.axis("off")
