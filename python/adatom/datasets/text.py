# SPDX-License-Identifier: MIT
"""Configurations of other formats as extxyz, so that one reader with one set of rules finds the labels of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

OF_THE_CELL = ("stress", "dipole")  # results whose length may be the number of atoms
TAKEN = {"species", "pos", "Z", "element", "symbol", "numbers", "positions"}  # names of columns that are structure
RESERVED = {"lattice", "properties", "pbc"}


def extxyz_text(numbers, positions, cell, pbc, info: dict[str, Any], arrays: dict[str, Any]) -> bytes:
    """One frame, with its numbers to the last bit. Entries and columns that are no numbers, texts or booleans are left out."""
    from ase.data import chemical_symbols

    symbols = [chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in np.asarray(numbers).tolist()]
    properties, columns = ["species:S:1", "pos:R:3"], [symbols, _rows(np.asarray(positions, dtype=float))]
    for name, values in arrays.items():
        values = np.asarray(values)
        if name in TAKEN or set(name) & set(':"\n') or values.dtype.kind not in "fiub" or values.shape[:1] != (len(symbols),) or values.size == 0:
            continue
        values = values.reshape(len(symbols), -1)
        properties.append(f"{name}:{'L' if values.dtype.kind == 'b' else 'R' if values.dtype.kind == 'f' else 'I'}:{values.shape[1]}")
        columns.append(_rows(values))
    entries = {"Properties": ":".join(properties)}
    if np.any(cell):
        entries["Lattice"] = np.asarray(cell, dtype=float)
    entries["pbc"] = " ".join("FT"[bool(p)] for p in pbc)
    entries |= {name: value for name, value in info.items() if str(name).lower() not in RESERVED}
    comment = " ".join(f"{_quoted(str(name))}={text}" for name, value in entries.items() if (text := _value(value)) is not None)
    return "\n".join([str(len(symbols)), comment, *map(" ".join, zip(*columns)), ""]).encode()


def atoms_text(atoms: Atoms, **info: Any) -> bytes:
    """`ase.Atoms` with all of `info`, `arrays` and the stored results of its calculator, which go before entries of the same name. Nothing is computed, and
    constraints do not change the forces. `info`: entries that are there where the atoms have none of that name."""
    entries, columns = {**info, **atoms.info}, dict(atoms.arrays)
    for name, value in ({} if atoms.calc is None else getattr(atoms.calc, "results", {})).items():
        if value is None:
            continue
        per_atom = np.ndim(value) > 0 and np.shape(value)[0] == len(atoms) and name not in OF_THE_CELL
        (columns if per_atom else entries)[name] = value
    return extxyz_text(atoms.numbers, atoms.positions, np.asarray(atoms.cell), atoms.pbc, entries, columns)


def _rows(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "b":
        return [" ".join("FT"[x] for x in row) for row in values.tolist()]
    return [" ".join(map(repr, row)) for row in values.tolist()]


def _value(value: Any) -> str | None:
    """As it stands in a comment line; None for what has no place there."""
    if isinstance(value, str):
        return _quoted(value)
    try:
        values = np.asarray(value)
    except ValueError:  # rows of several lengths
        return None
    if values.dtype.kind not in "fiub":
        return None
    (text,) = _rows(values.reshape(1, -1))
    return text if values.ndim == 0 else f'"{text}"'


def _quoted(text: str) -> str:
    text = " ".join(text.split("\n")).replace("\r", " ").replace("\0", " ")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
