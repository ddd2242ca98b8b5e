# SPDX-License-Identifier: MIT
"""Training caches (docs/training_cache.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from adatom import _core


class Cache(Sequence):
    """A training cache as a sequence of frames: `cache[i]` reads one from the disk, `len(cache)` costs nothing. Threads may share one.

    Raises DataError if the file is none or is damaged; damage within a frame is found when it is read, or by `verify`.
    """

    def __init__(self, file: str | PathLike[str]):
        self._core = _core.CacheReader(Path(file))

    def __len__(self) -> int:
        return len(self._core)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._core.read(i) for i in range(*index.indices(len(self)))]
        i = index + len(self) if index < 0 else index
        if not 0 <= i < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._core.read(i)

    @property
    def heads(self) -> list[str]:
        """Levels of theory, in the order of their first frame."""
        return self._core.heads

    @property
    def config_types(self) -> list[str]:
        return self._core.config_types

    @property
    def elements(self) -> list[int]:
        """Atomic numbers, ascending."""
        return self._core.elements

    @property
    def provenance(self) -> dict:
        return json.loads(self._core.provenance)

    @property
    def hash(self) -> str:
        """16 hex digits that change with any frame or label."""
        return self._core.hash

    def atoms(self, index: int) -> int:
        """Number of atoms of a frame, without reading it."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._core.atoms(index)

    def verify(self) -> None:
        """Reads every frame; raises DataError for the first that is damaged."""
        self._core.verify()
