# SPDX-License-Identifier: MIT
"""One HTML file for people who want to know what a loop did."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from adatom.learn._config import LearnConfig
from adatom.learn._files import read_frames, read_json, write_text
from adatom.learn._where import bonded, draw, farthest_atoms

if TYPE_CHECKING:
    from ase import Atoms

FARTHEST = 3  #: atoms of a round in the table
LABELLING = ("labelled", "failed", "label_seconds")  # of first.json and labels.json
PICTURES = 6  #: rounds, the last ones

STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #ccc;padding:.3em .7em;text-align:right}"
)


def write_report(config: LearnConfig, rounds: list[dict[str, Any]], reason: str) -> None:
    parts = [f"<!doctype html><meta charset=utf-8><title>Learning</title><style>{STYLE}</style><h1>Learning, {len(rounds)} rounds</h1>"]
    labelling = _labelling(config, rounds)
    calculations = sum(r["labelled"] + len(r["failed"]) for _, r in labelling)
    seconds = sum(r["label_seconds"] + sum(f.get("seconds", 0.0) for f in r["failed"]) for _, r in labelling)
    parts.append(
        f"<p>{html.escape(reason) + '.' if reason else 'Still going.'} {calculations} calculations by {html.escape(config.label.calculator)}, "
        f"{seconds / 3600:.2f} hours{_of_first(labelling)}; {sum(r['md_steps'] for r in rounds)} steps of dynamics, "
        f"{sum(r['md_seconds'] for r in rounds) / 3600:.2f} hours.</p>"
    )
    if rounds:
        parts.append(_picture(rounds))
    parts.append("<h2>Rounds</h2>")
    head = [
        "round", "training set", "runs", "tripped", "steps", "labelled", "failed", "DFT, minutes",
        "force RMSE before", "predicted", "in 90 % interval", "after", "held out",
    ]  # fmt: skip
    parts.append(_table(head, [_row(r) for r in rounds]))
    parts.append(
        "<p>Errors in meV/angstrom. <em>Before</em>: on the newly labelled configurations, by the model that caught them, which knew nothing of them. <em>After</em>: "
        "by the next model, which was trained on most of these. <em>Held out</em>: by the next model, on all that it was not trained on.</p>"
    )
    parts.append("<h2>Where the uncertainty lay</h2>")
    rows = [
        [r["round"], s, u["atoms"], u["beyond_1"], f"{u['largest_distance']:.2f}", f"{u['largest_error']:.3f}"]
        for r in rounds
        for s, u in r.get("uncertainty", {}).items()
    ]
    parts.append(_table(["round", "element", "atoms", "beyond distance 1", "largest distance", "largest error, eV/angstrom"], rows))
    parts += _farthest(config, rounds)
    failed = [[name, f["task"], html.escape(f["reason"][:300])] for name, r in labelling for f in r["failed"]]
    if failed:
        parts.append("<h2>Calculations that failed</h2><p>Kept in labels/, never trained on.</p>" + _table(["round", "task", "reason"], failed))
    write_text(config.output / "report.html", "\n".join(parts) + "\n")


def _labelling(config: LearnConfig, rounds: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What was calculated: before round 0, in each round, and in one that did not come to its end."""
    folders = config.output / "rounds"
    first, last = folders / "000/first.json", folders / f"{len(rounds):03d}" / "labels.json"
    found = [("first", read_json(first, *LABELLING))] if first.exists() else []
    found += [(str(r["round"]), r) for r in rounds]
    return found + ([(str(len(rounds)), read_json(last, *LABELLING))] if last.exists() else [])


def _of_first(labelling: list[tuple[str, dict[str, Any]]]) -> str:
    counts = [r["labelled"] + len(r["failed"]) for name, r in labelling if name == "first"]
    return f" ({counts[0]} of them displaced copies, before round 0)" if counts else ""


def _farthest(config: LearnConfig, rounds: list[dict[str, Any]]) -> list[str]:
    """Table of the atoms that were farthest from the training set, round after round, and pictures of the farthest one of each of the last rounds."""
    rows, shown = [], []
    for r in rounds:
        file = config.output / "rounds" / f"{r['round']:03d}" / "labelled.extxyz"
        if not file.exists():
            continue
        frames = read_frames(file)
        atoms_of_round = farthest_atoms(frames, FARTHEST)
        for frame, atom in atoms_of_round:
            atoms = frames[frame]
            distance, std, error = (atoms.arrays[name][atom] for name in ("distance", "force_std", "force_error"))
            rows.append([r["round"], frame, atom, atoms.symbols[atom], bonded(atoms, atom), f"{distance:.2f}", f"{std:.3f}", f"{error:.3f}"])
        shown.append((r["round"], frames[atoms_of_round[0][0]], atoms_of_round[0][1]))
    if not rows:
        return []
    head = ["round", "configuration", "atom", "element", "bonded to", "distance", "predicted error of a component, eV/angstrom", "error, eV/angstrom"]
    return [
        "<p>Atoms farthest from the training set, by number (from 0) in rounds/NNN/labelled.extxyz, at most one of a configuration; for each round the farthest of "
        f"all with its surroundings, from above (z) and from the side (y), red by distance. The last {PICTURES} rounds.</p>",
        _table(head, rows),
        _surroundings(shown[-PICTURES:]),
    ]


def _surroundings(shown: list[tuple[int, Atoms, int]]) -> str:
    plt = _pyplot()
    figure, axes = plt.subplots(2, len(shown), figsize=(2.5 * len(shown), 5), layout="constrained", squeeze=False)
    for column, (number, atoms, atom) in enumerate(shown):
        draw(atoms, atom, axes[0, column], "0x,0y,0z")
        draw(atoms, atom, axes[1, column], "-90x,0y,0z")
        axes[0, column].set_title(f"round {number}: {atoms.symbols[atom]}, {atoms.arrays['distance'][atom]:.1f}")
    return _image(figure, "surroundings of the farthest atom of each round")


def _row(r: dict[str, Any]) -> list:
    def value(part: str, key: str, scale: float, form: str) -> str:
        return form.format(scale * r[part][key]) if part in r else ""

    return [
        r["round"], r["train_frames"], r["runs"], r["trips"], r["md_steps"], r["labelled"], len(r["failed"]), f"{r['label_seconds'] / 60:.1f}",
        value("before", "force_rmse", 1e3, "{:.1f}"), value("before", "force_std", 1e3, "{:.1f}"), value("before", "coverage_90", 100, "{:.0f} %"),
        value("after", "force_rmse", 1e3, "{:.1f}"), value("held_out", "force_rmse", 1e3, "{:.1f}"),
    ]  # fmt: skip


def _table(head: list, rows: list[list]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{h}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def _picture(rounds: list[dict[str, Any]]) -> str:
    plt = _pyplot()
    figure, (errors, steps) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    labelled = [r for r in rounds if "before" in r]
    frames = [r["train_frames"] for r in labelled]
    errors.semilogy(frames, [1e3 * r["before"]["force_rmse"] for r in labelled], "o-", label="newly labelled, before")
    errors.semilogy(frames, [1e3 * r["before"]["force_std"] for r in labelled], "s--", label="predicted")
    errors.semilogy(frames, [1e3 * r["held_out"]["force_rmse"] for r in labelled], "^-", label="held out, after")
    errors.set(xlabel="training configurations", ylabel="force RMSE, meV/angstrom")
    errors.legend()
    steps.plot([r["round"] for r in rounds], [r["md_steps"] / max(1, r["runs"]) for r in rounds], "o-")
    steps.set(xlabel="round", ylabel="steps per run until the guard")
    return _image(figure, "errors and steps by round")


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _image(figure, text: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    _pyplot().close(figure)
    return f'<img alt="{text}" style="max-width:100%" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
