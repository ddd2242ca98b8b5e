# SPDX-License-Identifier: MIT
"""Division of data sets into parts for training, validation and testing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from adatom import _core
from adatom._core import DataError, LabelKeys, __version__
from adatom.datasets.compression import open_binary
from adatom.datasets.conversion import sha256
from adatom.datasets.frames import LABELS, label_keys
from adatom.datasets.reading import detect_format, open_source, read, refuse_unused_keys
from adatom.datasets.writing import open_writer

GROUPINGS = ("frame", "config_type", "group", "block")


def split(
    files: Sequence[str | PathLike[str]],
    folder: str | PathLike[str],
    parts: dict[str, float],
    *,
    seed: int = 0,
    group_by: str = "frame",
    block: int = 100,
    near_duplicates: bool = False,
    near_tolerance: float = 1e-3,
    cache: bool = False,
    format: str | None = None,
    keys: LabelKeys | None = None,
    progress: Callable[[int], object] | None = None,
    **options,
) -> dict:
    """Writes one file per part into `folder`, `NAME.extxyz` or with `cache` `NAME.cache`, and `split.json`, which says how; returns that summary.

    parts: shares that add up to 1, {"train": 0.8, "valid": 0.1, "test": 0.1}, or numbers of frames, 0 for the rest.
    group_by: what is never cut: "frame", "config_type", "group" (the key `group`, e.g. the name of a trajectory), or "block" (runs of `block` frames
    of a file). Copies of a structure are always on one side; near_duplicates: also those up to rotation, order of atoms and the like.
    Isolated atoms go to the first part. The same seed gives the same split on every machine.

    Frames of extxyz files are copied as they stand, with everything that they hold; written anew, with the labels alone, are those of other
    formats, and all with `cache` or `default_head`. Raises DataError, also for a part that would be empty.
    """
    keys = label_keys(keys, **{name: options.pop(name) for name in LABELS if name in options})
    if group_by not in GROUPINGS:
        raise ValueError(f"group_by = {group_by!r}, expected one of {', '.join(GROUPINGS)}")
    splitter = _core.Splitter(
        parts=list(parts.values()),
        seed=seed,
        group_by=getattr(_core.GroupBy, group_by),
        block=block,
        near_duplicates=near_duplicates,
        near_tolerance=near_tolerance,
    )
    formats = [format or detect_format(file) for file in files]
    refuse_unused_keys(files, formats, keys)
    opening = {name: options[name] for name in ("type_map", "keep_unconverged") if name in options}
    for number, (file, found) in enumerate(zip(files, formats)):
        splitter.add_all(open_source(Path(file), found, keys, **opening), number, progress)  # without Python in the loop
    part_of = splitter.finish()
    if group_by in ("config_type", "group") and splitter.without_label == len(part_of):
        raise DataError(f"no frame has a {group_by} to group by: name its key (--{group_by.replace('_', '-')}-key), or group by something else")

    names = list(parts)
    summary = {
        "adatom": __version__,
        "sources": [{"name": str(file), "sha256": sha256(file)} for file in files],
        "parts": {name: {"asked": parts[name], "frames": part_of.count(p)} for p, name in enumerate(names)},
        "seed": seed,
        "group_by": group_by,
        "block": block if group_by == "block" else None,
        "near_duplicates": near_tolerance if near_duplicates else None,
        "units": splitter.units,
        "frames_without_label": splitter.without_label,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outputs = [folder / f"{name}.{'cache' if cache else 'extxyz'}" for name in names]
    writers = [open_writer(file, provenance=summary) for file in outputs]
    next_part = iter(part_of)
    for file, found in zip(files, formats):
        if found == "extxyz" and not cache and not options.get("default_head"):
            _copy_text(Path(file), keys, writers, next_part)
        else:
            for frame in read(file, found, keys=keys, **options):
                writers[next(next_part)].add(frame)
    for writer in writers:
        writer.commit()
    summary["files"] = [str(file) for file in outputs]
    (folder / "split.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _copy_text(file: Path, keys: LabelKeys, writers: list, next_part) -> None:
    reader = open_source(file, "extxyz", keys)
    with open_binary(file) as stream:
        for _ in reader:
            stream.seek(reader.begin)
            writers[next(next_part)].add_text(stream.read(reader.end - reader.begin))
