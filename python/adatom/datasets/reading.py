# SPDX-License-Identifier: MIT
"""Frames of any file: extxyz and caches in C++; compressed files, DeePMD's folders and what ASE reads become extxyz on the way, so that names, energies and
heads mean the same in all."""

from __future__ import annotations

import warnings
import lzma
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from adatom import _core
from adatom._core import DataError, Frame, LabelKeys
from adatom.datasets.compression import is_compressed, name_inside, open_binary, pieces
from adatom.datasets.frames import LABELS, label_keys

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
OUTPUTS = ("vasp-outcar", "vasp-xml", "espresso")  # whose energies with and without smearing are no surprise


def detect_format(file: str | PathLike[str]) -> str:
    """One of FORMATS, by the beginning of the file, unpacked if it is compressed (gzip, bzip2, xz), and then by its name. Raises FileNotFoundError and
    DataError."""
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"no data file at {path}")
    if path.is_dir():
        return "deepmd"
    if _core.is_cache(path):
        return "cache"
    try:
        with open_binary(path) as stream:
            start = stream.read(4096)
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: it cannot be read ({error})") from error
    path = name_inside(path)
    if start.startswith(b"AdatomDS"):
        raise DataError(f"{file}: it is a compressed training cache: unpack it first")
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

    format: one of FORMATS; None to find out. keys, or single names such as `energy="REF_energy"`: labels of extxyz files, of `info` and `arrays` of ASE's
    formats, and of the key-value pairs of a database. type_map: symbols of DeePMD's types, for folders without type_map.raw.
    force_consistent: the free energy that the forces belong to, where there is one and no key of the energy is named, not the energy extrapolated to zero
    smearing.
    keep_unconverged: also frames of VASP and Quantum ESPRESSO whose electronic cycle did not converge; otherwise a warning lists those left out.
    default_head: the level of theory of frames that name none.

    After the last frame Python's warnings have what a person should know: names that were chosen, labels that contradict each other, charges.
    Raises DataError (a ValueError) that names the file and the frame.
    """
    found = format or detect_format(file)
    if found not in FORMATS:
        raise ValueError(f"format = {format!r}, expected one of {', '.join(FORMATS)}")
    refuse_unused_keys([file], [found], label_keys(**names))
    keys = label_keys(keys, **names)
    keys.free_energy = keys.free_energy and force_consistent
    source = open_source(Path(file), found, keys, type_map=type_map, keep_unconverged=keep_unconverged)
    for frame in source:
        if default_head and not frame.head:
            frame.head = default_head
        yield frame
    for note in reading_notes(source, found):
        if note["kind"] != "unread":
            warnings.warn(f"{file}: {note['message']}; {note['advice']}", stacklevel=2)


def refuse_unused_keys(files: Sequence[str | PathLike[str]], formats: Sequence[str], keys: LabelKeys) -> None:
    """Raises ValueError for keys that were named where all files are training caches, which keep labels under their meaning."""
    if keys.named and files and all(format == "cache" for format in formats):
        label = next(label for label in LABELS if label in keys.named)
        raise ValueError(
            f"{files[0]}: the {label} key {getattr(keys, label)!r} means nothing to a training cache, which keeps labels under their meaning: "
            "give it to `adatom data convert`, where the cache is made"
        )


def reading_notes(source: _core.FrameSource, format: str) -> list[dict[str, str]]:
    """What a person should know of the frames that were read: `kind` (unread, choice, warning), `code`, `message`, `advice`."""
    return [note for note in source.notes() if not (format in OUTPUTS and note["code"] == "labels-differ")]


def open_source(path: Path, format: str, keys: LabelKeys, *, type_map: list[str] | None = None, keep_unconverged: bool = False) -> _core.FrameSource:
    if format == "cache":
        if not _core.is_cache(path):
            _core.CacheReader(path)  # says what it is instead
            raise DataError(f"{path}: it is no training cache")
        return _core.open_frames(path)
    text = open_text(path, format, type_map=type_map, keep_unconverged=keep_unconverged)
    return _core.ExtxyzReader(path, keys) if text is None else _core.ExtxyzReader(path, keys, *text)


def open_text(path: Path, format: str, *, type_map: list[str] | None = None, keep_unconverged: bool = False) -> tuple[Iterator[bytes], bool] | None:
    """A file as extxyz, in pieces, and whether its lines are those of the file. None where the file itself is what is to be read: extxyz and caches."""
    if format == "cache" or (format == "extxyz" and not (path.is_file() and is_compressed(path))):
        return None
    if format == "extxyz":
        return pieces(path), True
    if format == "deepmd":
        from adatom.datasets.deepmd import deepmd_text

        return deepmd_text(path, type_map), False
    from adatom.datasets import through_ase

    if format == "ase-db":
        return through_ase.database_text(path), False
    return through_ase.output_text(path, format, keep_unconverged), False
