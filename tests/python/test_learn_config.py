# SPDX-License-Identifier: MIT
"""What a loop refuses before it calculates anything, and what may change from one run of it to the next."""

from __future__ import annotations

import copy

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk

from adatom.learn import load
from adatom.learn._config import parse

CONFIG = {
    "output": "run",
    "start": {"displaced": 8, "amplitude": 0.05},
    "explore": {"structures": ["seed.extxyz"], "temperatures": [300.0], "steps": 20, "every": 5, "distance": 2.0},
    "label": {"calculator": "emt"},
    "train": {
        "threads": 1,
        "model": {"family": "mace", "channels": 8, "max_L": 0, "l_max": 1, "correlation": 2, "r_max": 4.0},
        "training": {"epochs": 2, "batch_size": 4},
    },
    "stop": {"rounds": 1},
}


def document(folder, **changes):
    """CONFIG with changes: explore__steps = 1 is [explore] steps; None removes. Writes the seed, copper, unless there is one."""
    if not (folder / "seed.extxyz").exists():
        ase.io.write(folder / "seed.extxyz", bulk("Cu", cubic=True))
    found = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        table, _, name = key.partition("__")
        where, name = (found.setdefault(table, {}), name) if name else (found, table)
        if value is None:
            where.pop(name, None)
        else:
            where[name] = value
    return found


def config(folder, **changes):
    return parse(document(folder, **changes), folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label__seconds": -5.0}, "label.seconds is -5.0, expected zero or"),
        ({"stop__trips": -1}, "stop.trips is -1"),
        ({"stop__force_error": -1}, "stop.force_error is -1"),
        ({"seed": 1.7}, "seed is 1.7, expected a whole number from 1"),
        ({"seed": 0}, "seed is 0, expected a whole number from 1"),
        ({"seed": True}, "seed is True"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"explore__distance": float("nan")}, "explore.distance is nan, expected a finite number"),
        ({"explore__temperatures": [300.0, float("inf")]}, "explore.temperatures is inf, expected a finite number"),
        ({"label__calculator": ":"}, "label.calculator is ':'"),
        ({"label__calculator": "module:"}, "label.calculator is 'module:'"),
        ({"output": 3}, "output is 3, expected a folder"),
        ({"output": ""}, "output is '', expected a folder"),
        ({"explore__temperatures": None}, "explore.temperatures is missing"),
        ({"label": None}, "label.calculator is missing"),
        ({"start": {"train": ["seed.extxyz"], "held_out": ["./seed.extxyz"]}}, "is in start.train and in start.held_out"),
        ({"start": {"train": ["seed.extxyz"], "held_out": ["other.extxyz"], "model": "seed.extxyz"}}, r"leave \[train.model\] out"),
        ({"train__data": {"keys": {"energy": "REF_energy"}}}, "train.data.keys: the loop writes and reads labels by ASE's names"),
        ({"train__data": {"isolated_atoms": 3}}, "train.data.isolated_atoms is 3"),
        ({"train__data": {"isolated_atoms": "nowhere.xyz"}}, "no file at"),
        ({"explore__collect": 0.0}, "explore.collect belongs to select.method = 'farthest'"),
        ({"select__method": "farthest", "explore__distance": 1.0}, "explore.collect is 1.0, expected a distance below"),
    ],
)  # fmt: skip
def test_refused(tmp_path, changes, message):
    ase.io.write(tmp_path / "other.extxyz", bulk("Cu"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        config(tmp_path, **changes)


@pytest.mark.parametrize("distance", [0.3, 1.0])
def test_small_thresholds(tmp_path, distance):
    """explore.collect is of one method only; its default is in nobody's way."""
    assert config(tmp_path, explore__distance=distance).explore.distance == distance
    assert config(tmp_path, explore__distance=distance, explore__collect=0.0, select__method="farthest").explore.collect == 0.0
