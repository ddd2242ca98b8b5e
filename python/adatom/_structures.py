# SPDX-License-Identifier: MIT
"""Structures as ASE reads them, and names of elements."""

from __future__ import annotations

from pathlib import Path


def read_structures(file: Path, index: str = ":") -> list:
    """Structures of a file in any format that ASE reads, or of a training cache. ValueError, naming the file and what to do, where that cannot be."""
    import ase.io
    from ase.io.formats import UnknownFileTypeError, string2index

    from adatom import _core

    if not file.is_file():
        raise FileNotFoundError(f"no structure file at {file}")
    try:
        if _core.is_cache(file):
            from adatom.datasets import frame_to_atoms, read

            structures = [frame_to_atoms(frame) for frame in read(file)][string2index(index)]
        else:
            structures = ase.io.read(file, index=index, do_not_split_by_at_sign=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: it is no UTF-8 ({error}): save it as UTF-8, or let `adatom data convert` write it anew") from error
    except UnknownFileTypeError as error:
        raise ValueError(f"{file}: ASE knows no format of that suffix or content: rename it (.extxyz, .cif, .vasp, ...), or `adatom data convert` it") from error
    except Exception as error:  # ASE's readers raise whatever their parsing raises
        raise ValueError(f"{file}: ASE cannot read it ({type(error).__name__}: {error})") from error
    structures = structures if isinstance(structures, list) else [structures]
    if not structures:
        raise ValueError(f"{file}: no structures in it (index {index!r})")
    return structures


def symbols(numbers) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]
