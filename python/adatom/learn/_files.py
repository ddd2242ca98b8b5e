# SPDX-License-Identifier: MIT
"""Files that are either whole or not there, so that a kill at any moment leaves a state to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def write_json(file: Path, document: Any) -> None:
    write_text(file, json.dumps(document, indent=1) + "\n")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text())


def write_frames(file: Path, frames: Sequence[Atoms]) -> None:
    import io

    import ase.io

    stream = io.StringIO()
    if frames:
        ase.io.write(stream, list(frames), format="extxyz")
    write_text(file, stream.getvalue())


def read_frames(file: Path) -> list[Atoms]:
    import ase.io

    return ase.io.read(file, ":", format="extxyz") if file.stat().st_size else []
