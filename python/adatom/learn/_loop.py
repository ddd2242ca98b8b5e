# SPDX-License-Identifier: MIT
"""The loop. Its state is what lies in the folder: every step writes its result whole and is skipped where that is there.

    config.json                    what must not change, lest two levels of theory are mixed
    labels/TASK/                   the queue, of all rounds (_labels.py)
    rounds/000/model.safetensors   the model of the round, with detectors
               first.json          of round 0: what start.displaced gave
               data/               what it was trained and calibrated on; isolated atoms of start.train
               train/              the run of training
               md/runs.json        what the runs of the round are
               md/000/...          dynamics, each with done.json in the end
               selected.extxyz     what is worth a calculation
               labels.json         which of that could be labelled, and why others could not
               labelled.extxyz     the same with labels, and with the uncertainty of each atom
               round.json          what the round gave
    report.html
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from adatom._structures import symbols
from adatom.learn import _explore, _labels, _process
from adatom.learn._calculation import temporary_name
from adatom.learn._config import LearnConfig
from adatom.learn._files import copy_file, read_frames, read_json, remove_temporary, write_frames, write_json, write_text
from adatom.learn._selection import select
from adatom.learn._where import by_element, with_uncertainty
from adatom.potential import Potential
from adatom.uncertainty import fit, judge


def learn(config: LearnConfig, say=print, warn=None) -> dict[str, Any]:
    """Runs the loop, or goes on with it, until it stops by its rule. Returns the summary that the report shows. `warn` says warnings; without it `say` does."""
    from adatom.learn._report import write_report

    seeds = _explore.read_seeds(config)
    done = finished_rounds(config.output)
    if not _stops(config, done):
        _check(config, len(done), seeds)
    config.output.mkdir(parents=True, exist_ok=True)
    with _only_one(config.output):
        for folder, pattern in (("", "*"), ("rounds", "**/*")):  # the queue is not the loop's alone
            remove_temporary(config.output / folder, pattern)
        _same_theory(config)
        _say_changed_start(config, warn or say)
        while True:
            done = finished_rounds(config.output)
            reason = _stops(config, done)
            if reason:
                write_report(config, done, reason)
                say(f"ended after {len(done)} rounds: {reason}")
                return {"rounds": done, "reason": reason, "model": str(_round(config, len(done)) / "model.safetensors")}
            try:
                _one_round(config, len(done), seeds, say)
            except RuntimeError as error:
                write_report(config, done, f"stopped: {error}")
                raise
            write_report(config, finished_rounds(config.output), "")


def _check(config: LearnConfig, k: int, seeds) -> None:
    """What would fail only after calculations were paid for. Raises ValueError or FileNotFoundError."""
    _explore.lammps(config.explore.ranks)
    _explore.check_commands(config)
    if not config.label.wait:
        _labels.check_program(config.label)
    seen = {symbol for atoms in seeds for symbol in atoms.symbols}
    model, start = _round(config, k) / "model.safetensors", config.start
    trained_on, isolated = seen, []
    if model.exists():
        known, source = set(symbols(Potential.load(model).elements)), str(model)
    else:
        train, isolated = _first_data(start.train)
        train += _first_data(start.held_out)[0]
        trained_on = {symbol for atoms in train for symbol in atoms.symbols} or seen
        given = start.model or start.pretrained
        known = set(symbols(Potential.load(given).elements)) if given else trained_on
        known, source = (known | trained_on, "start.pretrained and the first data") if start.pretrained else (known, "start.model" if given else "start.train")
    if not seen <= known:
        raise ValueError(f"explore.structures have {', '.join(sorted(seen - known))}, which {source} has not: the model would not know it")
    with tempfile.TemporaryDirectory(prefix="adatom-learn-") as folder:
        _try_all(config, k, Path(folder), seeds, sorted(trained_on), isolated)


def _try_all(config: LearnConfig, k: int, folder: Path, seeds, elements: list[str], isolated) -> None:
    """One step of training on made-up labels, which finds what is wrong in [train]: much of it is looked at only when the model is made. Then the first step of
    LAMMPS, with the model of the round or what came of that."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    rng, frames = np.random.default_rng(0), []
    for symbol in [*elements, *elements[:1] * 4]:  # atomic energies are fitted to them: as many kinds of composition as elements
        line = [*elements, symbol]
        atoms = Atoms(line, [[2.0 * n, 0.3 * (n % 2), 0.0] for n in range(len(line))], cell=[2.0 * len(line) + 1.0, 8.0, 8.0], pbc=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)), stress=1e-3 * rng.normal(size=6))
        frames.append(atoms)
    model = _round(config, k) / "model.safetensors"
    start = next((Path(file) for file in (model, config.start.model, config.start.pretrained) if file and Path(file).is_file()), None)
    write_frames(folder / "data/train.extxyz", frames[:-2])
    write_frames(folder / "data/held_out.extxyz", frames[-2:])
    write_frames(folder / "data/isolated.extxyz", isolated)
    write_json(folder / "train.json", _training(config, folder, start, first=start == Path(config.start.pretrained)))
    process = _process.run(_process.python(ONE_STEP, folder / "train.json", folder / "made"), scratch=folder, env=_process.safe_environment())
    if process.returncode:
        raise ValueError(f"[train]: {(process.stderr.strip().splitlines() or [f'ended with code {process.returncode}'])[-1]}")
    if not model.exists():
        made, model = folder / "made/model.safetensors", folder / "model.safetensors"
        fit(Path(config.start.model) if config.start.model else made, frames[:-2], frames[-2:], model)
    _explore.check_runs(config, folder / "md", model, seeds)


ROW = ("round", "runs", "trips", "md_steps", "md_seconds", "labelled", "failed", "label_seconds", "train_frames")  # of round.json
TRAIN = """
import json
try:
    from adatom.training import resolved_config, train
    document = json.load(open(sys.argv[1], encoding="utf-8"))
{steps}
except Exception as error:
    sys.exit(" ".join(str(error).split()) or type(error).__name__)
"""
# Of [train] as it stands; then, for a model file, an epoch with the defaults of all that could stand in the way of so short a one.
ONE_STEP = TRAIN.format(steps="""
    resolved_config(document)
    train(document, progress=lambda *_: False, warn=lambda text: None)
    kept = {name: document[name] for name in ("model", "data", "precision", "threads", "device", "seed") if name in document}
    made = {**kept, "output": sys.argv[2], "training": {"epochs": 1, "batch_size": 4}}
    train(made, progress=lambda *_: True, warn=lambda text: None)
""")
ALL_STEPS = TRAIN.format(steps="    train(document, resume=True)")


def _same_theory(config: LearnConfig) -> None:
    """Labels of two levels of theory in one training set would be learned as one. Raises ValueError once there is a label of another one."""
    file, now = config.output / "config.json", {"calculator": config.label.calculator, "parameters": json.loads(json.dumps(config.label.parameters))}
    document = read_json(file, "label") if file.exists() else {}
    before = document.get("label", now)
    done = [task for f in config.output.glob("labels/*/label.json") if _labels.state(task := f.parent) == "done"]
    if not file.exists() and (config.output / "rounds").is_dir():  # begun by a version that did not write the file
        before = next((how for task in done if (how := read_json(task / "label.json")) != now), now)
    if before != now and any(read_json(task / "label.json") == before for task in done):
        if before["calculator"] != now["calculator"]:
            what = f"label.calculator was '{before['calculator']}' and is '{now['calculator']}'"
        else:
            b, n = before["parameters"], now["parameters"]
            key = next(key for key in sorted({*b, *n}) if b.get(key) != n.get(key) or (key in b) != (key in n))
            what = f"label.parameters.{key} was {b.get(key, 'not given')!r} and is {n.get(key, 'not given')!r}"
        raise ValueError(f"{config.output} has labels of another level of theory: {what}. Put it back, or use another output folder")
    if before != now or not file.exists():
        write_json(file, {**document, "label": now})


def _say_changed_start(config: LearnConfig, warn) -> None:
    """[start] is read once; who changes it later should know. Files count by their content."""
    first, file = _round(config, 0), config.output / "config.json"
    start, document = config.start, read_json(file, "label")

    def digest(name: str) -> str:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()

    data = {"train": [digest(f) for f in start.train], "held_out": [digest(f) for f in start.held_out]}
    data.update(displaced=start.displaced, amplitude=start.amplitude)
    models = {name: getattr(start, name) and digest(getattr(start, name)) for name in ("model", "pretrained")}
    read = {**(data if (first / "data/held_out.extxyz").exists() else {}), **(models if (first / "model.safetensors").exists() else {})}
    before = document.get("start", {})
    changed = [f"start.{name}" for name in read if name in before and before[name] != read[name]]
    if changed:
        warn(f"warning: {', '.join(changed)} changed, which has no effect any more: {first} is made. Use another output folder to begin anew")
    now = {**data, **models, **{name: before.get(name, read[name]) for name in read}}
    if now != before:
        write_json(file, {**document, "start": now})


def finished_rounds(output: Path) -> list[dict[str, Any]]:
    rounds = []
    while (file := output / "rounds" / f"{len(rounds):03d}" / "round.json").exists():
        rounds.append(read_json(file, *ROW))
    return rounds


def _round(config: LearnConfig, k: int) -> Path:
    return config.output / "rounds" / f"{k:03d}"


def _stops(config: LearnConfig, done: list[dict]) -> str:
    if not done:
        return ""
    last, stop = done[-1], config.stop
    error = last["before"]["force_rmse"] if last["labelled"] else 0.0
    accurate = not stop.force_error or (error < stop.force_error and not last.get("enough"))  # nothing was labelled where nobody asked for the error
    if config.select.method != "random" and last["trips"] <= stop.trips and accurate:
        text = f"{last['trips']} of {last['runs']} runs tripped the guard"
        return text + (f", and the error on newly labelled configurations was {error:.4g} eV/angstrom" if stop.force_error and last["labelled"] else "")
    if len(done) >= stop.rounds:
        return f"{len(done)} rounds were asked for"
    return ""


def _one_round(config: LearnConfig, k: int, seeds, say) -> None:
    folder = _round(config, k)
    model = folder / "model.safetensors"
    if k == 0:
        _first_model(config, folder, seeds, say)
    say(f"round {k}: dynamics with {len(read_frames(folder / 'data/train.extxyz'))} training configurations")
    outcomes = _explore.run_all(config, folder / "md", model, seeds, k, say)
    chosen_file = folder / "selected.extxyz"
    trips = sum(o["tripped"] for o in outcomes)
    # The loop ends with this round: neither its rule nor another model needs labels.
    enough = config.select.method != "random" and trips <= config.stop.trips and not config.stop.force_error
    if not chosen_file.exists() and enough:
        write_frames(chosen_file, [])
    elif not chosen_file.exists():
        candidates = _explore.caught(outcomes, seeds)
        train, held_out = (read_frames(folder / "data" / f"{part}.extxyz") for part in ("train", "held_out"))
        held = _held_out(len(train), len(held_out), config)
        chosen = select(model, candidates, train, held, config.select.method, config.seed + k) if candidates else []
        for c, h in zip(chosen, held):
            candidates[c].info["held_out"] = h
        write_frames(chosen_file, [candidates[c] for c in chosen])
    selected = read_frames(chosen_file)

    labelled, failed = _label_and_note(config, selected, say, folder / "labels.json")
    summary: dict[str, Any] = {
        "round": k, "runs": len(outcomes), "trips": trips, "enough": enough and not selected, "md_steps": sum(o["steps"] for o in outcomes),
        "md_seconds": sum(o["seconds"] for o in outcomes), "selected": len(selected), "labelled": len(labelled), "failed": failed,
        "label_seconds": sum(a.info.get("label_seconds", 0.0) for a in labelled), "train_frames": len(read_frames(folder / "data/train.extxyz")),
    }  # fmt: skip
    if labelled:
        summary["before"] = errors(model, labelled)
        caught = with_uncertainty(model, labelled)
        write_frames(folder / "labelled.extxyz", caught)
        summary["uncertainty"] = by_element(caught)
        following = _round(config, k + 1)
        _next_data(folder, following, labelled)
        _train(config, following, model, say)
        summary["after"] = errors(following / "model.safetensors", labelled)
        summary["held_out"] = errors(following / "model.safetensors", read_frames(following / "data/held_out.extxyz"))
    elif not (_round(config, k + 1) / "model.safetensors").exists():  # nothing new: the model stays
        _copy(folder / "data", _round(config, k + 1) / "data")
        copy_file(model, _round(config, k + 1) / "model.safetensors")
    write_json(folder / "round.json", summary)


def _label_and_note(config: LearnConfig, frames, say, note: Path) -> tuple[list, list[dict]]:
    """label(), and what came of it in a file, for the report, also where all fail."""
    labelled: list = []
    failed: list[dict] = []
    try:
        labelled, failed = label(config, frames, say, failed)
    finally:
        if labelled or failed:
            write_json(note, {"labelled": len(labelled), "failed": failed, "label_seconds": sum(a.info.get("label_seconds", 0.0) for a in labelled)})
    return labelled, failed


def label(config: LearnConfig, frames, say, failed: list[dict] | None = None) -> tuple[list, list[dict]]:
    """Those of the configurations that could be labelled, and reasons for the others; what is in the queue already is not calculated again.

    Raises RuntimeError if all fail; the reasons are in `failed` then, where it is given.
    """
    tasks = [_labels.task_of(config.output / "labels", atoms, config.label) for atoms in frames]
    if tasks:
        say(f"{len(tasks)} configurations to label")
        _labels.run_workers(config.output / "labels", config.label, tasks, say)
    labelled, failed = [], [] if failed is None else failed
    for task, frame in zip(tasks, frames):
        if _labels.state(task) == "failed":
            failed.append(_labels.failure(task))
            continue
        atoms = _labels.result(task, frame)
        if (largest := np.abs(atoms.get_forces()).max()) <= config.label.largest_force:
            atoms.info["held_out"] = bool(frame.info.get("held_out"))
            labelled.append(atoms)
            continue
        reason = f"a force of {largest:.3g} eV/angstrom, more than label.largest_force = {config.label.largest_force:g}"
        failed.append({"task": task.name, "reason": reason, "seconds": atoms.info["label_seconds"]})
    if tasks and not labelled:
        advice = f"see {config.output / 'labels'}, mend the cause and remove its failed.json files"
        if all(_labels.state(task) == "done" for task in tasks):
            advice = "if such forces are meant to be learned, raise label.largest_force"
        raise RuntimeError(f"all {len(tasks)} calculations failed; the first: {failed[0]['reason']} ({advice})")
    return labelled, failed


def displaced(seeds, number: int, amplitude: float, seed: int) -> list:
    """Copies of the seeds in turn, with normal displacements of all atoms; each copy's standard deviation is drawn between a fifth of `amplitude` and that."""
    rng = np.random.default_rng(seed)
    copies = []
    for k in range(number):
        atoms = seeds[k % len(seeds)].copy()
        atoms.positions += rng.normal(scale=rng.uniform(0.2, 1.0) * amplitude, size=atoms.positions.shape)
        copies.append(atoms)
    return copies


def _first_model(config: LearnConfig, folder: Path, seeds, say) -> None:
    if not (folder / "data/held_out.extxyz").exists():
        (train, isolated), (held_out, _) = _first_data(config.start.train), _first_data(config.start.held_out)
        if config.start.displaced:
            copies = displaced(seeds, config.start.displaced, config.start.amplitude, config.seed)
            labelled, failed = _label_and_note(config, copies, say, folder / "first.json")
            train, held_out = [a for k, a in enumerate(labelled) if k % 4 != 3], labelled[3::4]
            if not held_out:
                reason = f"{len(failed)} of {config.start.displaced} first calculations failed, the first: {failed[0]['reason']}"
                raise RuntimeError(f"{reason}; the rest are too few to begin with")
        write_frames(folder / "data/isolated.extxyz", isolated)
        write_frames(folder / "data/train.extxyz", train)
        write_frames(folder / "data/held_out.extxyz", held_out)
    if (folder / "model.safetensors").exists():
        return
    if not config.start.model:
        _train(config, folder, Path(config.start.pretrained) if config.start.pretrained else None, say, first=True)
        return
    given = Path(config.start.model)
    if Potential.load(given).members:
        copy_file(given, folder / "model.safetensors")
    else:
        _calibrate(given, folder)


def _held_out(train: int, held_out: int, config: LearnConfig) -> list[bool]:
    """Of the configurations that a round labels, which ones are held out: so many that their part of all stays what it should be."""
    held = []
    for _ in range(config.select.number):
        held.append(held_out < config.select.held_out * (train + held_out))
        train, held_out = train + (not held[-1]), held_out + held[-1]
    return held


def _next_data(folder: Path, following: Path, labelled) -> None:
    if (following / "data/held_out.extxyz").exists():
        return
    train, held_out = read_frames(folder / "data/train.extxyz"), read_frames(folder / "data/held_out.extxyz")
    for atoms in labelled:
        (held_out if atoms.info["held_out"] else train).append(atoms)
    write_frames(following / "data/train.extxyz", train)
    write_frames(following / "data/held_out.extxyz", held_out)  # last: its presence says that both are there


def _train(config: LearnConfig, folder: Path, start: Path | None, say, first: bool = False) -> None:
    """folder/model.safetensors from folder/data, beginning with the weights of `start`. The first one may come from data of another level of theory, so its
    atomic energies are those of the data here."""
    if (folder / "model.safetensors").exists():
        return
    document = _training(config, folder, start, first)
    write_json(folder / "train.json", document)
    say(f"training on {len(read_frames(folder / 'data/train.extxyz'))} configurations")
    process = _process.run(_process.python(ALL_STEPS, folder / "train.json"), env=_process.safe_environment())
    if process.returncode:
        said = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"training failed in {folder}, with code {process.returncode}: {said}")
    _calibrate(folder / "train/model.safetensors", folder)


def _training(config: LearnConfig, folder: Path, start: Path | None, first: bool) -> dict[str, Any]:
    """The document for `adatom train`."""
    document = json.loads(json.dumps(config.train))
    data = document.setdefault("data", {})
    data.update(train=[str(folder / "data/train.extxyz")], valid=[str(folder / "data/held_out.extxyz")])
    document["output"] = str(folder / "train")
    document.setdefault("seed", config.seed)
    document.setdefault("training", {}).setdefault("keep", "last")  # of so few held-out configurations the best epoch is luck; and they calibrate
    isolated = folder / "data/isolated.extxyz"
    fitted = data.get("atomic_energies", "auto") in ("auto", "isolated") and "isolated_atoms" not in data
    if (start is None or first) and fitted and isolated.exists() and isolated.stat().st_size:
        data["isolated_atoms"] = str(isolated)
    if start is not None:
        document["model"] = {"file": str(start)}
        if first:
            data.setdefault("atomic_energies", "isolated" if "isolated_atoms" in data else "least_squares")
        else:
            data.pop("isolated_atoms", None)
            if data.get("atomic_energies") in (None, "isolated", "least_squares"):
                data.pop("atomic_energies", None)  # the model's own
    return document


def _calibrate(model: Path, folder: Path) -> None:
    temporary = temporary_name(folder / "model.safetensors")
    fit(model, read_frames(folder / "data/train.extxyz"), read_frames(folder / "data/held_out.extxyz"), temporary)
    temporary.replace(folder / "model.safetensors")


def errors(model: Path, frames) -> dict[str, float]:
    j = judge(Potential.load(model), frames)
    sizes = np.bincount(j.frame)
    return {
        "frames": len(sizes), "energy_per_atom_rmse": float(np.sqrt(np.mean((j.energy_errors / sizes) ** 2))),
        "force_rmse": float(np.sqrt(np.mean(j.force_errors**2))), "force_std": float(np.sqrt(np.mean(j.force_std[np.isfinite(j.force_std)] ** 2))),
        "coverage_90": j.force_coverage()[j.levels.index(0.9)],
    }  # fmt: skip


def _first_data(files: list[str]) -> tuple[list, list]:
    """Labelled configurations, and the isolated atoms among them, where every element has one: these have no environment to learn from, but give atomic
    energies. Raises ValueError that names the file."""
    from adatom.datasets import read
    from adatom.datasets.frames import frame_to_atoms

    rest, isolated = [], []
    for file in files:
        frames = list(read(file))
        alone = [frame_to_atoms(frame) for frame in frames if frame.is_isolated_atom() and not frame.is_ion()]
        found = [frame_to_atoms(frame) for frame in frames if not frame.is_isolated_atom()]
        if not any(a.calc is not None and {"energy", "forces"} <= set(a.calc.results) for a in found):
            raise ValueError(f"{file}: no configuration with energy and forces in it")
        rest += found
        isolated += [a for a in alone if a.calc is not None and "energy" in a.calc.results]
    covered = {a.symbols[0] for a in isolated} >= {symbol for a in rest for symbol in a.symbols}
    return rest, isolated if covered else []


def _copy(source: Path, target: Path) -> None:
    for name in ("train.extxyz", "held_out.extxyz"):
        write_text(target / name, (source / name).read_text())


class _only_one:
    """Two loops in one folder would do the same work twice."""

    def __init__(self, folder: Path):
        self.file = folder / "running"

    def __enter__(self):
        import fcntl

        try:
            self.stream = os.fdopen(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
        except OSError as error:
            raise RuntimeError(f"{self.file}: {error.strerror}; it is this loop's sign for workers, and no link: remove it") from error
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.stream.close()
            raise RuntimeError(f"another `adatom learn` works in {self.file.parent}") from error
        self.stream.truncate()
        self.stream.write(f"{os.getpid()} {time.time()}\n")
        self.stream.flush()

    def __exit__(self, *_):
        self.stream.close()
        self.file.unlink(missing_ok=True)
