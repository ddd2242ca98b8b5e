# SPDX-License-Identifier: MIT
"""Labelled configurations: read, examine, split, cache.

    from adatom import datasets

    for frame in datasets.read("train.extxyz", energy="REF_energy"):
        ...
    report = datasets.examine(["train.extxyz", "test.extxyz"])
    datasets.convert(["OUTCAR"], "train.cache")
    cache = datasets.Cache("train.cache")

Units: eV, angstrom, eV/angstrom; stress in eV/angstrom^3 with ASE's sign, Voigt order xx yy zz yz xz xy. Frames and atoms count from 0.
"""

from __future__ import annotations

from adatom._core import DataError, Frame, LabelKeys, fingerprint_distance
from adatom.datasets.cache import Cache
from adatom.datasets.conversion import convert
from adatom.datasets.reports import Finding, Report, examine
from adatom.datasets.frames import frame_from_atoms, frame_to_atoms, label_keys
from adatom.datasets.reading import FORMATS, detect_format, read
from adatom.datasets.splitting import split
from adatom.datasets.writing import write

__all__ = [
    "FORMATS",
    "Cache",
    "DataError",
    "Finding",
    "Frame",
    "LabelKeys",
    "Report",
    "convert",
    "detect_format",
    "examine",
    "fingerprint_distance",
    "frame_from_atoms",
    "frame_to_atoms",
    "label_keys",
    "read",
    "split",
    "write",
]
