# SPDX-License-Identifier: MIT
"""The configuration of a loop: one TOML file. Unknown keys, wrong types and contradictions are errors."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

CALCULATORS = ("gpaw", "espresso", "cp2k", "emt")  # and module:function
METHODS = ("cover", "farthest", "random")
LARGEST_SEED = 10**9  # LAMMPS has 32 bits for the seeds of its velocities, which count on from this one


@dataclass(frozen=True)
class Start:
    """The first model, and the data that it was trained on: labelled configurations, or displaced copies of the seed structures that the loop labels first."""

    train: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    displaced: int = 0  #: so many copies of the seeds in place of `train` and `held_out`; a quarter of them is held out
    amplitude: float = 0.1  #: angstrom; the displacements' standard deviation, drawn for each copy between a fifth of this and this
    model: str = ""  #: trained on `train`; empty: the first model is trained here
    pretrained: str = ""  #: model whose weights the first training begins with, of whichever data and level of theory; empty: random ones


@dataclass(frozen=True)
class Explore:
    """Dynamics in LAMMPS: one run for each structure, temperature and pressure."""

    structures: list[str]
    temperatures: list[float]
    pressures: list[float] = field(default_factory=list)  #: bar; empty: at constant volume
    steps: int = 20000
    timestep: float = 1.0  #: fs
    every: int = 10  #: steps between checks
    distance: float = 1.5  #: thresholds of the guard; 0: none
    force: float = 0.0  #: eV/angstrom
    halt: float = 2.0  #: a run goes on beyond the thresholds, up to so many times them: what it meets there is worth most; 1: it stops where it trips
    collect: float = 1.0  #: for "farthest": distance above which configurations are candidates though they trip nothing; 0: only those that tripped
    damping: float = 100.0  #: fs, of the thermostat; ten times that of the barostat
    ranks: int = 1
    threads: int = 1
    commands: str = ""  #: file with LAMMPS commands in place of thermostat and run


@dataclass(frozen=True)
class Select:
    number: int = 10  #: most configurations of a round
    method: str = "cover"
    held_out: float = 0.2  #: part of the labelled configurations that is held out


@dataclass(frozen=True)
class Label:
    calculator: str
    workers: int = 1
    threads: int = 0  #: of each worker's calculation; 0: OMP_NUM_THREADS of the environment, or 1
    seconds: float = 0.0  #: most for one calculation; 0: no limit
    largest_force: float = 50.0  #: eV/angstrom; a configuration with a larger component is kept apart: nothing is learned from it but what is known anyway
    python: str = ""  #: interpreter that has the labelling program; empty: this one
    wait: bool = False  #: start no workers, wait for those that `adatom label` runs elsewhere
    parameters: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()  # of the configuration, where module:function is looked for; no key


@dataclass(frozen=True)
class Stop:
    rounds: int = 10
    trips: int = 0  #: the loop ends when no more runs than this tripped,
    force_error: float = 0.0  #: and the error of newly labelled configurations, before they are learned, is below this, eV/angstrom; 0: not asked


@dataclass(frozen=True)
class LearnConfig:
    output: Path
    start: Start
    explore: Explore
    select: Select
    label: Label
    stop: Stop
    train: dict[str, Any]  #: keys of `adatom train`, without data.train, data.valid, output
    seed: int = 1


def load(file: str | Path) -> LearnConfig:
    """Reads a configuration; relative paths count from its folder. Raises FileNotFoundError, ValueError."""
    from adatom.training._config import tomllib

    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no configuration at {file}")
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}" + (": save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "")) from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply: a configuration has tables, and lists of lists at most") from error
    try:
        return parse(document, file.resolve().parent)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{file}: {error}") from error


def parse(document: dict[str, Any], folder: Path) -> LearnConfig:
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name of the folder {ascii(str(folder))} is not UTF-8, and files in it cannot be named to all programs: rename it") from error
    tables = {"start": Start, "explore": Explore, "select": Select, "label": Label, "stop": Stop}
    unknown = set(document) - {*tables, "output", "seed", "train"}
    if unknown:
        raise ValueError(f"unknown key '{sorted(unknown)[0]}'; there are output, seed, {', '.join(tables)}, train")
    parts = {name: _table(name, document.get(name, {}), kind) for name, kind in tables.items()}
    train = document.get("train", {})
    if not isinstance(train, dict) or not all(isinstance(v, dict) or k in ("precision", "threads", "seed", "frozen", "device") for k, v in train.items()):
        raise ValueError("[train] holds the tables of `adatom train`, such as [train.model]")
    data = train.get("data", {})
    for key in ("train", "valid", "test"):
        if key in data:
            raise ValueError(f"train.data.{key}: the loop itself gives the data; the first is start.train and start.held_out")
    if "keys" in data:
        raise ValueError("train.data.keys: the loop's labels have ASE's names (energy, forces, stress); rename those of start.train and start.held_out")
    if "output" in train or "file" in train.get("model", {}):
        raise ValueError("train.output and train.model.file: the loop itself gives them; the first model is start.model")

    def absolute(path: str) -> str:
        return str(folder / os.path.expanduser(path)) if path else ""

    output, seed = document.get("output", "learn"), document.get("seed", 1)
    if not isinstance(output, str) or not output:
        raise ValueError(f"output is {output!r:.60}, expected a folder")
    output = folder / os.path.expanduser(output)
    if not next(path for path in (output, *output.parents) if path.exists()).is_dir():
        raise ValueError(f"output is {output}, which is or lies below a file: name a folder")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 < seed <= LARGEST_SEED:
        raise ValueError(f"seed is {seed!r:.60}, expected a whole number from 1 to {LARGEST_SEED}")
    start, explore, label, select, stop = parts["start"], parts["explore"], parts["label"], parts["select"], parts["stop"]
    label = replace(label, folder=folder, python=absolute(label.python) if "/" in label.python else label.python)
    start = Start(
        [absolute(p) for p in start.train], [absolute(p) for p in start.held_out], start.displaced, start.amplitude, absolute(start.model),
        absolute(start.pretrained)
    )
    if start.displaced and (start.train or start.held_out or start.model):
        raise ValueError("start.displaced labels the first configurations here: leave start.train, start.held_out and start.model out")
    if start.displaced and (start.displaced < 4 or not start.amplitude > 0):
        raise ValueError("start.displaced has to be 4 at least, three to train on and one to hold out, and start.amplitude above zero")
    if start.pretrained and (start.model or "model" in train):
        raise ValueError("start.pretrained gives the architecture and the weights that the first training begins with: leave start.model and [train.model] out")
    if start.model and "model" in train:
        raise ValueError("start.model gives the architecture, and training goes on from its weights: leave [train.model] out, or start.model")
    explore = Explore(**{**vars(explore), "structures": [absolute(p) for p in explore.structures], "commands": absolute(explore.commands)})
    files = {"start.train": start.train, "start.held_out": start.held_out, "explore.structures": explore.structures}
    files |= {"start.model": [start.model], "start.pretrained": [start.pretrained], "explore.commands": [explore.commands]}
    for key, paths in files.items():
        for path in filter(None, paths):
            if not Path(path).is_file():
                raise FileNotFoundError(f"{key}: no file at {path}")
    twice = {Path(path).resolve() for path in start.train} & {Path(path).resolve() for path in start.held_out}
    if twice:
        raise ValueError(f"{min(twice)} is in start.train and in start.held_out: calibration needs configurations that were not trained on")
    if data.get("isolated_atoms"):
        if not isinstance(data["isolated_atoms"], str):
            raise ValueError(f"train.data.isolated_atoms is {data['isolated_atoms']!r}, expected a file")
        train = {**train, "data": {**data, "isolated_atoms": absolute(data["isolated_atoms"])}}
        if not Path(train["data"]["isolated_atoms"]).is_file():
            raise FileNotFoundError(f"train.data.isolated_atoms: no file at {train['data']['isolated_atoms']}")
    for name, value in (("explore.structures", explore.structures), ("explore.temperatures", explore.temperatures)):
        if not value:
            raise ValueError(f"{name} is empty")
    for name, value in (("start.train", start.train), ("start.held_out", start.held_out)):
        if not value and not start.displaced:
            raise ValueError(f"{name} is empty; start.displaced = 16 labels displaced copies of the seeds first")
    for name, value in (("explore.steps", explore.steps), ("explore.every", explore.every), ("explore.timestep", explore.timestep),
                        ("explore.damping", explore.damping), ("explore.ranks", explore.ranks), ("explore.threads", explore.threads),
                        ("select.number", select.number), ("label.workers", label.workers), ("label.threads", label.threads or 1),
                        ("label.largest_force", label.largest_force), ("stop.rounds", stop.rounds),
                        *(("explore.temperatures", t) for t in explore.temperatures)):  # fmt: skip
        if not value > 0:
            raise ValueError(f"{name} is {value}, expected a number above zero")
    for name, value in (("label.seconds", label.seconds), ("stop.trips", stop.trips), ("stop.force_error", stop.force_error)):
        if value < 0:
            raise ValueError(f"{name} is {value}, expected zero or a number above it")
    if explore.distance < 0 or explore.force < 0 or not (explore.distance or explore.force):
        raise ValueError("explore.distance and explore.force are thresholds of the guard: one of them above zero is needed, none below")
    if explore.halt < 1:
        raise ValueError(f"explore.halt is {explore.halt}, expected how many times the thresholds a run may reach, 1 at least")
    if select.method not in METHODS:
        raise ValueError(f"select.method is '{select.method}', expected {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    if select.method == "farthest" and (explore.collect < 0 or (explore.distance and explore.collect >= explore.distance)):
        raise ValueError(f"explore.collect is {explore.collect}, expected a distance below explore.distance = {explore.distance}, or 0")
    if "collect" in document["explore"] and select.method != "farthest":
        raise ValueError(f"explore.collect belongs to select.method = 'farthest'; with '{select.method}' all configurations that are checked are candidates")
    if not 0 < select.held_out < 1:
        raise ValueError(f"select.held_out is {select.held_out}, expected a part between 0 and 1: calibration needs configurations that were not trained on")
    if label.calculator not in CALCULATORS and not re.fullmatch(r"[\w.]+:\w+", label.calculator):
        known = ", ".join(CALCULATORS)
        raise ValueError(f"label.calculator is '{label.calculator}', expected {known} or module:function, a function that returns an ASE calculator")
    try:
        json.dumps(label.parameters)
    except TypeError as error:
        raise ValueError(f"[label.parameters] holds what is no number, text, list or table: {error}") from error
    return LearnConfig(output, start, explore, select, label, stop, train, seed)


def _table(name: str, values: Any, kind: type):
    if not isinstance(values, dict):
        raise ValueError(f"'{name}' is no table: write [{name}]")
    known = {f.name: f for f in fields(kind) if f.type != "Path"}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown key '{name}.{key}'; there are {', '.join(known)}")
        expected = known[key].type.split("[")[0]
        fits = {"str": isinstance(value, str), "int": isinstance(value, int) and not isinstance(value, bool), "bool": isinstance(value, bool),
                "float": isinstance(value, (int, float)) and not isinstance(value, bool), "list": isinstance(value, list), "dict": isinstance(value, dict)}  # fmt: skip
        if not fits[expected]:
            raise ValueError(f"{name}.{key} is {value!r:.60}, expected {known[key].type}")
        if expected == "list":
            inner = str if "str" in known[key].type else (int, float)
            if not all(isinstance(v, inner) and not isinstance(v, bool) for v in value):
                raise ValueError(f"{name}.{key} is {value!r:.60}, expected {known[key].type}")
        for number in value if expected == "list" else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{name}.{key} is {number}, expected a finite number")
    for key, f in known.items():
        if key not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{name}.{key} is missing, expected {f.type}")
    return kind(**values)
