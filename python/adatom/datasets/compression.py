# SPDX-License-Identifier: MIT
"""Files as they are, or unpacked while they are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adatom._core import DataError

OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
SUFFIXES = (".gz", ".bz2", ".xz")


def _opener(path: Path):
    with path.open("rb") as stream:
        start = stream.read(8)
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)


def is_compressed(path: Path) -> bool:
    """Whether the file begins as one of gzip, bzip2 or xz does."""
    return _opener(path) is not None


def open_binary(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked if it is compressed."""
    return (_opener(path) or open)(path, "rb")


def name_inside(path: Path) -> Path:
    """`a.extxyz` of a file `a.extxyz.gz`."""
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def pieces(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a file, unpacked. Raises DataError where it is damaged."""
    try:
        with open_binary(path) as stream:
            while piece := stream.read(size):
                yield piece
    except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: it cannot be unpacked ({error}): was it cut, or is it damaged?") from error
