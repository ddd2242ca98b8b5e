# SPDX-License-Identifier: MIT
"""Formats that ASE reads, as extxyz: outputs of DFT codes, trajectories, databases."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from adatom._core import DataError
from adatom.datasets.compression import SUFFIXES, is_compressed, open_binary
from adatom.datasets.text import atoms_text

ASE_NAMES = {"vasp-outcar": "vasp-out", "vasp-xml": "vasp-xml", "espresso": "espresso-out", "ase": None}
EXPECTED = ("extxyz", "cache", "deepmd", "ase-db", *ASE_NAMES)


def _said_by(error: Exception) -> str:
    """An exception of ASE's readers for a message: some quote all of a damaged file."""
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 300 else text[:300] + "..."


def output_text(path: Path, format: str, keep_unconverged: bool) -> Iterator[bytes]:
    """Each frame of a file. Its group is the file, unless `info` has one."""
    import ase.io

    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}")
    if is_compressed(path) and path.suffix not in SUFFIXES:
        raise DataError(f"{path}: it is compressed: unpack it first, or name it so ({', '.join(SUFFIXES)})")
    converged = {"vasp-xml": vasprun_convergence, "vasp-outcar": outcar_convergence, "espresso": espresso_convergence}.get(format, lambda _: [])(path)
    left_out, count = [], 0
    try:
        images = ase.io.iread(path, index=":", format=ASE_NAMES[format])
        for count, atoms in enumerate(images, start=1):
            i = count - 1
            if not keep_unconverged and i < len(converged) and not converged[i]:
                left_out.append(i)
                continue
            if len(atoms) == 0:
                raise DataError(f"{path}: frame {i} has no atoms")
            yield atoms_text(atoms, group=str(path))
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # ASE's readers raise whatever their parsing raises
        place = f" after frame {count - 1}" if count else ""
        advice = "" if count else f"; expected one of {', '.join(EXPECTED)}: give its format (`adatom data convert --format`), or convert it to extxyz"
        raise DataError(f"{path}: ASE cannot read it as {format}{place} ({_said_by(error)}){advice}") from error
    if count == 0:
        raise DataError(f"{path}: ASE finds no frames in it: did the calculation finish its first step, and is it of a kind that ASE reads?")
    if left_out:
        frames = ", ".join(map(str, left_out[:10])) + (", ..." if len(left_out) > 10 else "")
        warnings.warn(f"{path}: {len(left_out)} of {count} frames are left out: their electronic cycle did not converge ({frames})", stacklevel=2)


def database_text(path: Path) -> Iterator[bytes]:
    """Rows in the order of their id, with their key-value pairs and data as entries, or as columns where they are arrays with a row for each atom."""
    import ase.db

    if not path.is_file():
        raise FileNotFoundError(f"no database at {path}")
    empty = True
    try:
        for row in ase.db.connect(path).select():
            empty = False
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            for name, value in row.data.items():
                value = np.asarray(value)
                (atoms.arrays if value.ndim == 2 and len(value) == len(atoms) else atoms.info).setdefault(name, value)
            yield atoms_text(atoms)
    except (DataError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(f"{path}: ASE cannot read it as a database ({_said_by(error)})") from error
    if empty:
        raise DataError(f"{path}: no rows in it")


def _elements(path: Path):
    with open_binary(path) as stream:
        yield from ElementTree.iterparse(stream)


def vasprun_convergence(path: Path) -> list[bool]:
    """Of each ionic step: whether its electronic cycle ended before NELM steps. A step that was cut off counts as not converged."""
    limit, converged = None, []
    try:
        for _, element in _elements(path):
            if element.tag == "i" and element.get("name") == "NELM":
                limit = limit or int(element.text)  # later ones are those of the dielectric function and others
            elif element.tag == "calculation":
                converged.append(len(element.findall("scstep")) < (limit or 60))  # VASP's default
                element.clear()
    except (ElementTree.ParseError, EOFError, zlib.error):
        pass  # a run that was killed; ASE reads what is there
    return converged


def outcar_convergence(path: Path) -> list[bool]:
    """Of each ionic step, by what VASP says when it leaves the electronic cycle; empty if it never does (old versions)."""
    return _said(path, rb"aborting loop because EDIFF is reached", rb"aborting loop EDIFF was not reached")


def espresso_convergence(path: Path) -> list[bool]:
    return _said(path, rb"convergence has been achieved", rb"convergence NOT achieved")


def _said(path: Path, good: bytes, bad: bytes) -> list[bool]:
    expression = re.compile(b"(" + good + b")|(" + bad + b")")
    with open_binary(path) as stream:
        return [bool(match[1]) for line in stream if (match := expression.search(line))]
