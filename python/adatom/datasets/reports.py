# SPDX-License-Identifier: MIT
"""What is in data sets, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from adatom import _core
from adatom._core import LabelKeys
from adatom.datasets.frames import LABELS, label_keys
from adatom.datasets.reading import FORMATS, detect_format, open_source, reading_notes, refuse_unused_keys

SEVERITIES = ("error", "warning", "note")
MOST_LISTED = 3  # files whose entries and columns are listed where labels are missing


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
    keys.free_energy = keys.free_energy and options.pop("force_consistent", True)
    default_head = options.pop("default_head", "")
    seen, notes, contents = [], [], []
    formats = [format or detect_format(file) for file in files]
    refuse_unused_keys(files, formats, keys)
    for file, found in zip(files, formats):
        if found not in FORMATS:
            raise ValueError(f"format = {found!r}, expected one of {', '.join(FORMATS)}")
        number = statistics.add_source(str(file))
        source = open_source(Path(file), found, keys, **options)
        if not default_head:
            statistics.add_all(source, number, progress)  # without Python in the loop
        for i, frame in enumerate(source if default_head else ()):
            frame.head = frame.head or default_head
            statistics.add(frame, number, i)
            if progress:
                progress(1)
        seen.append({"format": found, "entries": getattr(source, "entries", None), "columns": getattr(source, "columns", None)})
        notes += [(file, note) for note in reading_notes(source, found)]
        contents.append(f"{file}: {source.contents}" if source.contents else "")
    report = statistics.finish()
    data = json.loads(report.to_json(longest_list))
    for source, more in zip(data["sources"], seen):
        source.update(more)
    findings = [Finding(**finding) for finding in json.loads(report.findings_json(longest_list))]
    return Report(data, _with_notes(findings, notes, contents), report.values())


def _with_notes(findings: list[Finding], notes: list[tuple], contents: list[str]) -> list[Finding]:
    """Findings with what the files' readers have to say: which names were read and which were not, and, where labels are missing, which there are."""
    listed = ". ".join(text for text in contents[:MOST_LISTED] if text) + (", ..." if len(contents) > MOST_LISTED else "")
    findings = [replace(f, advice=f"{f.advice}. {listed}") if listed and f.code in ("no-labels", "missing-energy", "missing-forces") else f for f in findings]
    for file, note in notes:
        severity = "warning" if note["kind"] == "warning" else "note"
        findings.append(Finding(severity, note["code"], f"{file}: {note['message']}", note["advice"], {"count": 0, "first": []}))
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
