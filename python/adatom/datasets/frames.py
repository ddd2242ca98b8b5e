# SPDX-License-Identifier: MIT
"""Frames from and to `ase.Atoms`, and the names of labels in extxyz files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adatom import _core
from adatom._core import DataError, Frame, LabelKeys
from adatom.datasets.text import atoms_text

if TYPE_CHECKING:
    from ase import Atoms

WEIGHTS = ("weight", "energy_weight", "forces_weight", "stress_weight")
LABELS = ("energy", "forces", "stress", "virial", "charges", "config_type", "group", "head", *WEIGHTS)


def label_keys(keys: LabelKeys | None = None, **names: str | None) -> LabelKeys:
    """Names under which a file keeps its labels, e.g. `label_keys(energy="REF_energy")`. None: the usual name, or others that are common where a frame lacks
    it (docs/data_sets.md); "": not read. A name that is given is the only one that is read.

    Raises TypeError for a label that does not exist.
    """
    result = LabelKeys()
    named = {label for label, name in names.items() if name is not None}
    if keys is not None:
        result.free_energy = keys.free_energy
        named |= keys.named
    result.named = named
    for label in LABELS:
        if keys is not None:
            setattr(result, label, getattr(keys, label))
        if names.get(label) is not None:
            setattr(result, label, names[label])
    unknown = set(names) - set(LABELS)
    if unknown:
        raise TypeError(f"no such label: {', '.join(sorted(unknown))}; there are {', '.join(LABELS)}")
    return result


def frame_from_atoms(
    atoms: Atoms, *, force_consistent: bool = True, config_type: str = "", group: str = "", head: str = "", keys: LabelKeys | None = None
) -> Frame:
    """The structure with the labels that its calculator has stored, or that `info` and `arrays` have under the names of `keys`, as from a file. Nothing is
    computed, and constraints do not change the forces.

    force_consistent: take the free energy, whose derivative the forces are, where there is one (electronic smearing); otherwise the energy
    extrapolated to zero smearing. config_type, group, head: instead of those of the atoms. Raises DataError for labels that cannot be read.
    """
    keys = label_keys(keys)
    keys.free_energy = keys.free_energy and force_consistent
    frame = next(_core.ExtxyzReader("atoms", keys, iter([atoms_text(atoms)]), False))
    for name, value in (("config_type", config_type), ("group", group), ("head", head)):
        if value:
            setattr(frame, name, value)
    return frame


def frame_to_atoms(frame: Frame) -> Atoms:
    """`ase.Atoms` with a SinglePointCalculator that holds the labels; config_type, group, head and weights other than 1 in `info`, under their usual names."""
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
    usual = LabelKeys()
    for name, weight in zip(WEIGHTS, frame.weights):
        if weight != 1:
            atoms.info[getattr(usual, name)] = weight
    return atoms


def refuse_defects(frame: Frame, where: str) -> None:
    """Raises DataError that names the frame if it cannot be used."""
    defects = frame.defects()
    if defects:
        raise DataError(f"{where}: {defects[0]}")
