# SPDX-License-Identifier: MIT
"""What is in data sets, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from adatom import _core
from adatom._core import LabelKeys
from adatom.datasets.frames import LABELS, label_keys
from adatom.datasets.reading import detect_format, open_source, read


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (severity "error": training would fail or mean nothing; "warning": a person must decide) or worth knowing ("note")."""

    severity: str
    code: str  #: short and fixed, for programs
    message: str
    advice: str  #: what to do
    frames: dict  #: {"count": all, "first": [{"file":, "frame":}, ...]}


@dataclass(frozen=True)
class Report:
    """Statistics of data sets: `data` in plain dicts, lists and numbers, `values` as arrays per frame (atoms, residual, largest_force)."""

    data: dict
    findings: list[Finding]
    values: dict

    @property
    def failed(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)


def examine(
    files: Sequence[str | PathLike[str]],
    *,
    format: str | None = None,
    keys: LabelKeys | None = None,
    near_duplicates: bool = True,
    near_tolerance: float = 1e-3,
    outlier_z: float = 8.0,
    symmetry_frames: int = 500,
    symmetry_tolerance: float = 1e-2,
    longest_list: int = 1000,
    progress: Callable[[int], object] | None = None,
    **options,
) -> Report:
    """Reads files once and reports elements, ranges, missing labels, copies, outliers, space groups, atomic energies, suspected units.

    near_duplicates: look for structures that are the same up to rotation, translation, order of atoms and choice of the cell; near_tolerance:
    relative distance of their fingerprints (0.001 is a few thousandths of an angstrom). outlier_z: robust z-score beyond which a frame is an
    outlier. symmetry_frames: at most so many crystals, drawn at random, get their space group, within symmetry_tolerance (angstrom).
    longest_list: lists of frames in the report are cut after so many. options: as `read` takes them.

    Raises DataError for files that cannot be read; frames that can be read but not used are part of the report.
    """
    keys = label_keys(keys, **{name: options.pop(name) for name in LABELS if name in options})
    statistics = _core.Statistics(
        near_duplicates=near_duplicates,
        near_tolerance=near_tolerance,
        outlier_z=outlier_z,
        symmetry_frames=symmetry_frames,
        symmetry_tolerance=symmetry_tolerance,
    )
    seen = []
    for file in files:
        found = format or detect_format(file)
        number = statistics.add_source(str(file))
        if found in ("extxyz", "cache") and not options.get("default_head"):
            source = open_source(Path(file), found, keys)
            statistics.add_all(source, number, progress)  # without Python in the loop
            seen.append({"format": found, "entries": getattr(source, "entries", None), "columns": getattr(source, "columns", None)})
            continue
        for i, frame in enumerate(read(file, found, keys=keys, **options)):
            statistics.add(frame, number, i)
            if progress:
                progress(1)
        seen.append({"format": found, "entries": None, "columns": None})
    report = statistics.finish()
    data = json.loads(report.to_json(longest_list))
    for source, more in zip(data["sources"], seen):
        source.update(more)
    return Report(data, [Finding(**finding) for finding in json.loads(report.findings_json(longest_list))], report.values())
