# SPDX-License-Identifier: MIT
"""Structures as ASE reads them, and names of elements."""

from __future__ import annotations

from pathlib import Path


def read_structures(file: Path, index: str = ":") -> list:
    """All structures of a file in any format that ASE reads. ValueError, naming the file, where ASE cannot."""
    import ase.io

    if not file.is_file():
        raise FileNotFoundError(f"no structure file at {file}")
    try:
        structures = ase.io.read(file, index=index, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise whatever their parsing raises
        raise ValueError(f"{file}: ASE cannot read it ({type(error).__name__}: {error})") from error
    structures = structures if isinstance(structures, list) else [structures]
    if not structures:
        raise ValueError(f"{file}: no structures in it (index {index!r})")
    return structures


def symbols(numbers) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]
