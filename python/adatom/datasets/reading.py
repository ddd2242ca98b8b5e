# SPDX-License-Identifier: MIT
"""Frames of any file: extxyz and caches in C++, DeePMD's folders with numpy, everything else through ASE's readers."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from adatom import _core
from adatom._core import DataError, Frame, LabelKeys
from adatom.datasets.frames import label_keys

FORMATS = {
    "extxyz": "extended xyz, and plain xyz",
    "cache": "Adatom's training cache",
    "vasp-outcar": "VASP OUTCAR",
    "vasp-xml": "VASP vasprun.xml",
    "espresso": "output of Quantum ESPRESSO's pw.x",
    "deepmd": "folder of DeePMD-kit (type.raw, set.*/*.npy), or of several such folders",
    "ase-db": "ASE database (SQLite or JSON)",
    "ase": "any other file that ASE reads: trajectories, GPAW's text output, FHI-aims, ...",
}


def detect_format(file: str | PathLike[str]) -> str:
    """One of FORMATS, by the beginning of the file and then by its name. Raises FileNotFoundError and DataError."""
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"no data file at {path}")
    if path.is_dir():
        return "deepmd"
    if _core.is_cache(path):
        return "cache"
    with path.open("rb") as stream:
        start = stream.read(4096)
    if start.startswith(b"SQLite format 3"):
        return "ase-db"
    if b"<modeling>" in start:
        return "vasp-xml"
    if b"Program PWSCF" in start:
        return "espresso"
    if start.lstrip().startswith(b"vasp.") or "OUTCAR" in path.name.upper():
        return "vasp-outcar"
    if path.suffix == ".json" and b'"unique_id"' in start:
        return "ase-db"
    if path.suffix in (".xyz", ".extxyz") or start.split(b"\n", 1)[0].strip().isdigit():
        return "extxyz"
    return "ase"


def read(
    file: str | PathLike[str],
    format: str | None = None,
    *,
    keys: LabelKeys | None = None,
    type_map: list[str] | None = None,
    force_consistent: bool = True,
    keep_unconverged: bool = False,
    default_head: str = "",
    **names: str,
) -> Iterator[Frame]:
    """The frames of a file, one after the other; memory does not grow with their number where the format allows it.

    format: one of FORMATS; None to find out. keys, or single names such as `energy="REF_energy"`: labels of extxyz files, and the entries of an ASE
    database that are the config_type and the group. type_map: symbols of DeePMD's types, for folders without type_map.raw.
    force_consistent: the free energy that the forces belong to, not the energy extrapolated to zero smearing (VASP and others).
    keep_unconverged: also frames of VASP and Quantum ESPRESSO whose electronic cycle did not converge; otherwise a warning lists those left out.
    default_head: the level of theory of frames that name none.

    Raises DataError (a ValueError) that names the file and the frame.
    """
    found = format or detect_format(file)
    if found not in FORMATS:
        raise ValueError(f"format = {format!r}, expected one of {', '.join(FORMATS)}")
    for frame in _frames(Path(file), found, label_keys(keys, **names), type_map, force_consistent, keep_unconverged):
        if default_head and not frame.head:
            frame.head = default_head
        yield frame


def _frames(path: Path, format: str, keys: LabelKeys, type_map, force_consistent: bool, keep_unconverged: bool) -> Iterator[Frame]:
    if format in ("extxyz", "cache"):
        return iter(open_source(path, format, keys))
    if format == "deepmd":
        from adatom.datasets.deepmd import read_deepmd

        return read_deepmd(path, type_map)
    from adatom.datasets import through_ase

    if format == "ase-db":
        return through_ase.read_database(path, keys, force_consistent)
    return through_ase.read_output(path, format, force_consistent, keep_unconverged)


def open_source(path: Path, format: str, keys: LabelKeys) -> _core.FrameSource:
    if format == "extxyz":
        return _core.ExtxyzReader(path, keys)
    if not _core.is_cache(path):
        _core.CacheReader(path)  # says what it is instead
        raise DataError(f"{path}: it is no training cache")
    return _core.open_frames(path)
