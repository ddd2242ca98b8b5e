# SPDX-License-Identifier: MIT
"""The loop. Its state is what lies in the folder: every step writes its result whole and is skipped where that is there.

    labels/TASK/                   the queue, of all rounds (_labels.py)
    rounds/000/model.safetensors   the model of the round, with detectors
               data/               what it was trained and calibrated on
               train/              the run of training
               md/000/...          dynamics, each with done.json in the end
               selected.extxyz     what is worth a calculation
               labelled.extxyz     the same with labels, and with the uncertainty of each atom
               round.json          what the round gave
    report.html
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from adatom.learn import _explore, _labels, _process
from adatom.learn._config import LearnConfig
from adatom.learn._files import read_frames, read_json, write_frames, write_json, write_text
from adatom.learn._selection import select
from adatom.learn._where import by_element, with_uncertainty
from adatom.potential import Potential
from adatom.uncertainty import fit, judge


def learn(config: LearnConfig, say=print) -> dict[str, Any]:
    """Runs the loop, or goes on with it, until it stops by its rule. Returns the summary that the report shows."""
    from adatom.learn._report import write_report

    config.output.mkdir(parents=True, exist_ok=True)
    seeds = [atoms for file in config.explore.structures for atoms in _read(file)]
    with _only_one(config.output):
        while True:
            done = finished_rounds(config.output)
            reason = _stops(config, done)
            if reason:
                write_report(config, done, reason)
                say(f"ended after {len(done)} rounds: {reason}")
                return {"rounds": done, "reason": reason, "model": str(_round(config, len(done)) / "model.safetensors")}
            _one_round(config, len(done), seeds, say)
            write_report(config, finished_rounds(config.output), "")


def finished_rounds(output: Path) -> list[dict[str, Any]]:
    rounds = []
    while (file := output / "rounds" / f"{len(rounds):03d}" / "round.json").exists():
        rounds.append(read_json(file))
    return rounds


def _round(config: LearnConfig, k: int) -> Path:
    return config.output / "rounds" / f"{k:03d}"


def _stops(config: LearnConfig, done: list[dict]) -> str:
    if not done:
        return ""
    last, stop = done[-1], config.stop
    error = last["before"]["force_rmse"] if last["labelled"] else 0.0
    accurate = not stop.force_error or error < stop.force_error
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
    if not chosen_file.exists():
        candidates = _explore.caught(outcomes, seeds)
        train, held_out = (read_frames(folder / "data" / f"{part}.extxyz") for part in ("train", "held_out"))
        held = _held_out(len(train), len(held_out), config)
        chosen = select(model, candidates, train, held, config.select.method, config.seed + k) if candidates else []
        for c, h in zip(chosen, held):
            candidates[c].info["held_out"] = h
        write_frames(chosen_file, [candidates[c] for c in chosen])
    selected = read_frames(chosen_file)

    labelled, failed = label(config, selected, say)
    summary: dict[str, Any] = {
        "round": k, "runs": len(outcomes), "trips": sum(o["tripped"] for o in outcomes), "md_steps": sum(o["steps"] for o in outcomes),
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
        _copy_file(model, _round(config, k + 1) / "model.safetensors")
    write_json(folder / "round.json", summary)


def label(config: LearnConfig, frames, say) -> tuple[list, list[dict]]:
    """Those of the configurations that could be labelled, and reasons for the others; what is in the queue already is not calculated again.

    Raises RuntimeError if all fail.
    """
    tasks = [_labels.task_of(config.output / "labels", atoms, config.label) for atoms in frames]
    if tasks:
        say(f"{len(tasks)} configurations to label")
        _labels.run_workers(config.output / "labels", config.label, tasks, say)
    labelled, failed = [], []
    for task, frame in zip(tasks, frames):
        if _labels.state(task) == "failed":
            failed.append({"task": task.name, **read_json(task / "failed.json")})
            continue
        atoms = _labels.result(task)
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
        train = [a for f in config.start.train for a in _read(f)]
        held_out = [a for f in config.start.held_out for a in _read(f)]
        if config.start.displaced:
            labelled, failed = label(config, displaced(seeds, config.start.displaced, config.start.amplitude, config.seed), say)
            train, held_out = [a for k, a in enumerate(labelled) if k % 4 != 3], labelled[3::4]
            if not held_out:
                reason = f"{len(failed)} of {config.start.displaced} first calculations failed, the first: {failed[0]['reason']}"
                raise RuntimeError(f"{reason}; the rest are too few to begin with")
        write_frames(folder / "data/train.extxyz", train)
        write_frames(folder / "data/held_out.extxyz", held_out)
    if (folder / "model.safetensors").exists():
        return
    if not config.start.model:
        _train(config, folder, Path(config.start.pretrained) if config.start.pretrained else None, say, first=True)
        return
    given = Path(config.start.model)
    if Potential.load(given).members:
        _copy_file(given, folder / "model.safetensors")
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
    document = json.loads(json.dumps(config.train))
    data = document.setdefault("data", {})
    data.update(train=[str(folder / "data/train.extxyz")], valid=[str(folder / "data/held_out.extxyz")])
    document["output"] = str(folder / "train")
    document.setdefault("seed", config.seed)
    document.setdefault("training", {}).setdefault("keep", "last")  # of so few held-out configurations the best epoch is luck; and they calibrate
    if start is not None:
        document["model"] = {"file": str(start)}
        if first:
            data.setdefault("atomic_energies", "isolated" if "isolated_atoms" in data else "least_squares")
        else:
            data.pop("isolated_atoms", None)
            if data.get("atomic_energies") in (None, "isolated", "least_squares"):
                data.pop("atomic_energies", None)  # the model's own
    write_json(folder / "train.json", document)
    say(f"training on {len(read_frames(folder / 'data/train.extxyz'))} configurations")
    script = "import json, sys; from adatom.training import train; train(json.load(open(sys.argv[1])), resume=True)"
    process = _process.run([sys.executable, "-c", script, str(folder / "train.json")])
    if process.returncode:
        raise RuntimeError(f"training failed in {folder}: {process.stderr.strip()[-1500:]}")
    _calibrate(folder / "train/model.safetensors", folder)


def _calibrate(model: Path, folder: Path) -> None:
    temporary = folder / ".model.safetensors"
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


def _read(file: str):
    from adatom.cli.calibrate import read_all

    if file.endswith((".xyz", ".extxyz")):
        import ase.io

        return [a for a in ase.io.read(file, ":") if len(a) > 1]
    return read_all([Path(file)])


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _copy(source: Path, target: Path) -> None:
    for name in ("train.extxyz", "held_out.extxyz"):
        write_text(target / name, (source / name).read_text())


class _only_one:
    """Two loops in one folder would do the same work twice."""

    def __init__(self, folder: Path):
        self.file = folder / "running"

    def __enter__(self):
        import fcntl

        self.stream = self.file.open("w")
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f"another `adatom learn` works in {self.file.parent}") from error
        self.stream.write(f"{os.getpid()} {time.time()}\n")
        self.stream.flush()

    def __exit__(self, *_):
        self.stream.close()
        self.file.unlink(missing_ok=True)
