# SPDX-License-Identifier: MIT
"""Frames from and to `ase.Atoms`, and the names of labels in extxyz files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from adatom._core import DataError, Frame, LabelKeys

if TYPE_CHECKING:
    from ase import Atoms

WEIGHTS = ("weight", "energy_weight", "forces_weight", "stress_weight")
LABELS = ("energy", "forces", "stress", "virial", "charges", "config_type", "group", "head", *WEIGHTS)


def label_keys(keys: LabelKeys | None = None, **names: str | None) -> LabelKeys:
    """Names under which an extxyz file keeps its labels, e.g. `label_keys(energy="REF_energy")`. None: the usual name; "": not read.

    Raises TypeError for a label that does not exist.
    """
    result = LabelKeys()
    for label in LABELS:
        if keys is not None:
            setattr(result, label, getattr(keys, label))
        if names.get(label) is not None:
            setattr(result, label, names[label])
    unknown = set(names) - set(LABELS)
    if unknown:
        raise TypeError(f"no such label: {', '.join(sorted(unknown))}; there are {', '.join(LABELS)}")
    return result


def frame_from_atoms(atoms: Atoms, *, force_consistent: bool = True, config_type: str = "", group: str = "", head: str = "") -> Frame:
    """The structure and what its calculator has stored. Nothing is computed, and constraints do not change the forces.

    force_consistent: take the free energy, whose derivative the forces are, where there is one (electronic smearing); otherwise the energy
    extrapolated to zero smearing.
    """
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    energy = results.get("energy")
    if force_consistent and results.get("free_energy") is not None:
        energy = results["free_energy"]
    stress = results.get("stress")
    if stress is not None and np.size(stress) == 9:
        matrix = np.reshape(stress, (3, 3))
        stress = (0.5 * (matrix + matrix.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    if stress is not None and not (np.any(stress) or atoms.cell.rank == 3):
        stress = None  # zeros of a cell without volume are no label
    forces, charges = results.get("forces"), results.get("charges")
    return Frame(
        np.asarray(atoms.numbers, dtype=np.int32),
        atoms.positions,
        np.asarray(atoms.cell),
        [bool(p) for p in atoms.pbc],
        energy=None if energy is None else float(energy),
        forces=None if forces is None else np.asarray(forces, dtype=float),
        stress=None if stress is None else np.asarray(stress, dtype=float),
        charges=None if charges is None else np.asarray(charges, dtype=float),
        config_type=config_type,
        group=group,
        head=head,
    )


def frame_to_atoms(frame: Frame) -> Atoms:
    """`ase.Atoms` with a SinglePointCalculator that holds the labels; config_type, group and head, where there are any, in `info`."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    results: dict[str, Any] = {name: getattr(frame, name) for name in ("energy", "forces", "stress", "charges")}
    results = {name: value for name, value in results.items() if value is not None}
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    for name in ("config_type", "group", "head"):
        if getattr(frame, name):
            atoms.info[name] = getattr(frame, name)
    return atoms


def refuse_defects(frame: Frame, where: str) -> None:
    """Raises DataError that names the frame if it cannot be used."""
    defects = frame.defects()
    if defects:
        raise DataError(f"{where}: {defects[0]}")
