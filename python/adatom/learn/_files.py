# SPDX-License-Identifier: MIT
"""Files that are either whole or not there, so that a kill at any moment leaves a state to go on from; and what others may have written is read with care."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adatom.learn._calculation import TEMPORARY, put, temporary_name

if TYPE_CHECKING:
    from ase import Atoms


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, text)


def write_json(file: Path, document: Any) -> None:
    write_text(file, json.dumps(document, indent=1) + "\n")


def read_json(file: Path, *keys: str) -> Any:
    """Raises ValueError, naming the file, if it holds no JSON, or (where `keys` are given) no object with these keys."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of the decoders
        raise ValueError(f"{file} is not JSON ({error}); it is written by `adatom learn`, and somebody or a full disk has altered it: remove it") from error
    missing = [key for key in keys if not isinstance(document, dict) or key not in document]
    if missing:
        raise ValueError(f"{file} has no '{missing[0]}'; it is written by `adatom learn`, and somebody has altered it: remove it")
    return document


def write_frames(file: Path, frames: Sequence[Atoms]) -> None:
    write_text(file, to_text(frames))


def to_text(frames: Sequence[Atoms]) -> str:
    """As extxyz."""
    import io

    import ase.io

    stream = io.StringIO()
    if frames:
        ase.io.write(stream, list(frames), format="extxyz")
    return stream.getvalue()


def read_frames(file: Path) -> list[Atoms]:
    """Of an extxyz file, whatever else its content looks like. Raises ValueError that names it."""
    import ase.io

    if not file.stat().st_size:
        return []
    try:
        return ase.io.read(file, ":", format="extxyz", do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise whatever their parsing raises
        raise ValueError(f"{file}: it cannot be read as extxyz ({type(error).__name__}: {error})") from error


def copy_file(source: Path, target: Path) -> None:
    """Whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    try:
        with source.open("rb") as given, temporary.open("xb") as copy:
            shutil.copyfileobj(given, copy)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_temporary(folder: Path, pattern: str = "*") -> None:
    """What killed runs left of files that did not become whole, in `folder` and, for pattern "**/*", below. Nobody else may be writing there."""
    for file in folder.glob(pattern):
        if TEMPORARY.fullmatch(file.name):
            with contextlib.suppress(OSError):
                file.unlink()


def kind(path: Path) -> str:
    """"file", "folder" or "other" (a link, a pipe, a device), of what lies under that very name; "" where nothing does."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def printable(text: str) -> str:
    """For one line of a terminal: others may have written it."""
    return "".join(c if c.isprintable() else " " for c in text)
