# SPDX-License-Identifier: MIT
"""Formats that ASE reads: outputs of DFT codes, trajectories, databases."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from adatom._core import DataError, Frame, LabelKeys
from adatom.datasets.frames import frame_from_atoms

ASE_NAMES = {"vasp-outcar": "vasp-out", "vasp-xml": "vasp-xml", "espresso": "espresso-out", "ase": None}


def read_output(path: Path, format: str, force_consistent: bool, keep_unconverged: bool) -> Iterator[Frame]:
    import ase.io

    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}")
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
            yield frame_from_atoms(atoms, force_consistent=force_consistent, group=str(path))
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # ASE's readers raise whatever their parsing raises
        place = f" after frame {count - 1}" if count else ""
        raise DataError(f"{path}: ASE cannot read it as {format}{place} ({type(error).__name__}: {error})") from error
    if count == 0:
        raise DataError(f"{path}: ASE finds no frames in it: did the calculation finish its first step, and is it of a kind that ASE reads?")
    if left_out:
        frames = ", ".join(map(str, left_out[:10])) + (", ..." if len(left_out) > 10 else "")
        warnings.warn(f"{path}: {len(left_out)} of {count} frames are left out: their electronic cycle did not converge ({frames})", stacklevel=2)


def read_database(path: Path, keys: LabelKeys, force_consistent: bool) -> Iterator[Frame]:
    """Rows in the order of their id. The key-value pairs named like the keys of config_type, group and head become those labels; a group
    that is not given is none."""
    import ase.db

    if not path.is_file():
        raise FileNotFoundError(f"no database at {path}")
    empty = True
    try:
        for row in ase.db.connect(path).select():
            empty = False
            pairs = row.key_value_pairs
            labels = {name: str(pairs.get(getattr(keys, name), "")) for name in ("config_type", "group", "head")}
            yield frame_from_atoms(row.toatoms(), force_consistent=force_consistent, **labels)
    except (DataError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(f"{path}: ASE cannot read it as a database ({type(error).__name__}: {error})") from error
    if empty:
        raise DataError(f"{path}: no rows in it")


def vasprun_convergence(path: Path) -> list[bool]:
    """Of each ionic step: whether its electronic cycle ended before NELM steps. A step that was cut off counts as not converged."""
    limit, converged = None, []
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "i" and element.get("name") == "NELM":
                limit = limit or int(element.text)  # later ones are those of the dielectric function and others
            elif element.tag == "calculation":
                converged.append(len(element.findall("scstep")) < (limit or 60))  # VASP's default
                element.clear()
    except ElementTree.ParseError:
        pass  # a run that was killed; ASE reads what is there
    return converged


def outcar_convergence(path: Path) -> list[bool]:
    """Of each ionic step, by what VASP says when it leaves the electronic cycle; empty if it never does (old versions)."""
    return _said(path, rb"aborting loop because EDIFF is reached", rb"aborting loop EDIFF was not reached")


def espresso_convergence(path: Path) -> list[bool]:
    return _said(path, rb"convergence has been achieved", rb"convergence NOT achieved")


def _said(path: Path, good: bytes, bad: bytes) -> list[bool]:
    expression = re.compile(b"(" + good + b")|(" + bad + b")")
    with path.open("rb") as stream:
        return [bool(match[1]) for line in stream if (match := expression.search(line))]
