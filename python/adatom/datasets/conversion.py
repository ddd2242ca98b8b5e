# SPDX-License-Identifier: MIT
"""Any data files into one extxyz file or training cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from adatom._core import DataError, LabelKeys, __version__
from adatom.datasets.frames import LABELS, label_keys
from adatom.datasets.reading import detect_format, read, refuse_unused_keys
from adatom.datasets.writing import open_writer


def convert(
    files: Sequence[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    format: str | None = None,
    keys: LabelKeys | None = None,
    drop_defective: bool = False,
    progress: Callable[[int], object] | None = None,
    **options,
) -> dict:
    """Reads `files` and writes `output` (.extxyz, .xyz or .cache), with the usual names of labels. A summary is returned, and kept in a cache.

    drop_defective: leave out frames that cannot be used (numbers that are not finite, ...), and list them in the summary; otherwise the first is an
    error. progress: called with the number of new frames now and then. options: as `read` takes them.

    Raises DataError that names file and frame.
    """
    keys = label_keys(keys, **{name: options.pop(name) for name in LABELS if name in options})
    formats = [format or detect_format(file) for file in files]
    refuse_unused_keys(files, formats, keys)
    summary = {
        "adatom": __version__,
        "sources": [{"name": str(file), "format": found, "sha256": sha256(file)} for file, found in zip(files, formats)],
        "keys": {name: getattr(keys, name) for name in LABELS if getattr(keys, name) != getattr(LabelKeys(), name)},
    }
    # A file without JSON's provenance is written once all is known, a cache keeps what is known at the start.
    writer = open_writer(output, provenance=summary)
    dropped, since = [], 0
    for file in files:
        frames = read(file, format, keys=keys, **options)
        for i, frame in enumerate(frames):
            defects = frame.defects()
            if defects and not drop_defective:
                raise DataError(f"{file}: frame {i} cannot be used: {defects[0]}; mend it, or leave such frames out with --drop-defective")
            if defects:
                dropped.append({"file": str(file), "frame": i, "what": defects[0]})
            else:
                writer.add(frame)
            since += 1
            if progress and since == 100:
                progress(since)
                since = 0
    if progress:
        progress(since)
    if len(writer) == 0:
        raise DataError(f"nothing to write to {output}: {'all frames have defects' if dropped else 'there are no frames'}")
    frames_written = len(writer)
    writer.commit()
    return {**summary, "output": str(output), "frames": frames_written, "dropped": dropped}


def sha256(path: str | PathLike[str]) -> str:
    """Of a file, or of the names and contents of all files of a folder."""
    path = Path(path)
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
