# SPDX-License-Identifier: MIT
"""Frames into extxyz files and training caches."""

from __future__ import annotations

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from adatom import _core
from adatom._core import Frame, LabelKeys
from adatom.datasets.frames import label_keys


def output_format(file: str | PathLike[str]) -> str:
    """By the suffix: .xyz and .extxyz are text, .cache a training cache."""
    formats = {".xyz": "extxyz", ".extxyz": "extxyz", ".cache": "cache"}
    suffix = Path(file).suffix
    if suffix not in formats:
        raise ValueError(f"{file}: the suffix {suffix!r} says no format: expected .extxyz, .xyz or .cache")
    return formats[suffix]


def open_writer(file: str | PathLike[str], keys: LabelKeys | None = None, provenance: dict | None = None):
    """A writer with `add(frame)` and `commit()`; without commit nothing is written."""
    if output_format(file) == "cache":
        return _core.CacheWriter(Path(file), json.dumps(provenance or {}))
    return _core.ExtxyzWriter(Path(file), label_keys(keys))


def write(file: str | PathLike[str], frames: Iterable[Frame], *, keys: LabelKeys | None = None, provenance: dict | None = None) -> int:
    """Writes frames to an extxyz file or a cache, told by the suffix, and returns their number. The file appears whole or not at all.

    Raises DataError for frames that a cache does not take (see docs/training_cache.md), RuntimeError if the file cannot be written (disk full, ...).
    """
    writer = open_writer(file, keys, provenance)
    for frame in frames:
        writer.add(frame)
    writer.commit()
    return len(writer)
