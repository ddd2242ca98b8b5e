# SPDX-License-Identifier: MIT
"""Labelled frames that `adatom learn` needs, with its selection and with random frames of the same dynamics, for the same force error on the same test frames.

    python benchmarks/learning.py LEARN.toml TEST.extxyz ... [--methods cover] [--seeds 1 2 3] [--frames 48] [--folder build/learning] [-o FILE.md]

silicon/ has such files, with labels that take GPAW seconds.

Every loop begins with the labelled frames of LEARN.toml and differs from the others only in `select.method` and `seed`. "random" runs the same dynamics
without a guard and labels frames drawn from all that were written. A loop ends when it has --frames labelled frames, twice as many for random ones, or when a
round finds nothing new. The model of every round is judged on TEST. All loops resume where they were interrupted.
"""

from __future__ import annotations

import argparse
import datetime
import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
from cpu import machine

from adatom.learn import _loop, load
from adatom.learn._files import read_frames


def labelled_frames(output: Path, k: int) -> int:
    """Calculations behind the model of round k: training and held-out frames, and those that failed on the way."""
    data = output / "rounds" / f"{k:03d}" / "data"
    failed = sum(len(r["failed"]) for r in _loop.finished_rounds(output)[:k])
    return sum(len(read_frames(data / f"{part}.extxyz")) for part in ("train", "held_out")) + failed


def run(config, frames: int, test, say) -> list[dict]:
    """The learning curve of one loop: labelled frames and force error on the test frames (eV/angstrom) of each round's model."""
    curve: list[dict] = []
    while True:
        rounds = _loop.finished_rounds(config.output)
        for k in range(len(curve), len(rounds) + 1):  # nothing is there before the first round
            model = config.output / "rounds" / f"{k:03d}" / "model.safetensors"
            if rounds:
                curve.append({"frames": labelled_frames(config.output, k), "error": _loop.errors(model, test)["force_rmse"]})
                say(curve[-1])
        if curve and (curve[-1]["frames"] >= frames or rounds[-1]["selected"] == 0):
            return curve
        _loop.learn(replace(config, stop=replace(config.stop, rounds=len(rounds) + 1, trips=-1)), lambda text: None)


def frames_for(curve: list[dict], error: float) -> float:
    """Labelled frames after which the error is below `error` for the first time, between rounds by straight lines of logarithms; inf where it never is."""
    for a, b in zip(curve, curve[1:]):
        if b["error"] <= error:
            if a["error"] <= error:
                return a["frames"]
            share = np.log(a["error"] / error) / np.log(a["error"] / b["error"])
            return float(a["frames"] * (b["frames"] / a["frames"]) ** share)
    return float("inf")


def table(curves: dict[str, dict[int, list[dict]]], title: str, tested: int) -> str:
    lines = [
        f"# Labelled frames that learning needs, {datetime.date.today()}", "",
        f"{machine()}. `benchmarks/learning.py`, {title}; force errors (root mean square, meV/A) on {tested} test frames.", "",
        "| selection | seed | labelled frames: force error of each round |", "|---|---|---|",
    ]  # fmt: skip
    for method, by_seed in curves.items():
        for seed, curve in by_seed.items():
            lines.append(f"| {method} | {seed} | " + ", ".join(f"{p['frames']}: {1e3 * p['error']:.0f}" for p in curve) + " |")
    ours = [m for m in curves if m != "random"]
    lines += [
        "", "Frames until an error is reached, and the ratio of the means over the seeds. Where a loop never reached it all its frames count;",
        "a ratio is an upper bound (<=) where a random loop did not, a lower one (>=) where the other did not.", "",
        "| error, meV/A | " + " | ".join(f"{m}, seed {s}" for m in curves for s in curves[m]) + " | " + " | ".join(f"{m} / random" for m in ours) + " |",
        "|---" * (1 + len(ours) + sum(len(c) for c in curves.values())) + "|",
    ]  # fmt: skip
    reached = max(min(p["error"] for p in c) for c in curves[ours[0]].values())  # by all seeds
    highest = min(c[0]["error"] for c in curves[ours[0]].values())
    for error in np.geomspace(highest * 0.5, reached, 5):
        needs = {m: [frames_for(c, error) for c in curves[m].values()] for m in curves}
        most = {m: np.mean([min(n, c[-1]["frames"]) for n, c in zip(needs[m], curves[m].values())]) for m in curves}
        missed = {m: not np.isfinite(needs[m]).all() for m in curves}
        cells = [f"{n:.0f}" if np.isfinite(n) else "never" for m in curves for n in needs[m]]
        for m in ours:
            bound = "? " if missed[m] and missed["random"] else "<= " if missed["random"] else ">= " if missed[m] else ""
            cells.append(f"{bound}{most[m] / most['random']:.2f}")
        lines.append(f"| {1e3 * error:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(curves, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.6))
    for m, (method, by_seed) in enumerate(curves.items()):
        color = "0.5" if method == "random" else f"C{m}"
        for k, curve in enumerate(by_seed.values()):
            axes.loglog([p["frames"] for p in curve], [1e3 * p["error"] for p in curve], "o-", color=color, label=method if k == 0 else None)
    axes.set(xlabel="labelled frames", ylabel="force error on test frames, meV/A")
    first, most = (f(p["frames"] for by_seed in curves.values() for curve in by_seed.values() for p in curve) for f in (min, max))
    axes.minorticks_off()
    axes.set_xticks(ticks := [first * 2**k for k in range(int(np.log2(most / first)) + 1)], ticks)
    errors = [1e3 * p["error"] for by_seed in curves.values() for curve in by_seed.values() for p in curve]
    axes.set_yticks(ticks := [d * 10**k for k in range(4) for d in (1, 2, 3, 5) if min(errors) < d * 10**k < max(errors)], ticks)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("test", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=["cover"])
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--folder", type=Path, default=Path("build/learning"))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    config, test = load(arguments.config), [a for file in arguments.test for a in ase.io.read(file, ":")]
    curves: dict[str, dict[int, list[dict]]] = {m: {} for m in [*arguments.methods, "random"]}
    for seed in arguments.seeds:
        for method in curves:
            folder = arguments.folder.absolute()
            labels = folder / f"{method}-{seed}" / "labels"  # one queue for all: what two loops want is calculated once
            if not labels.exists():
                (folder / "labels").mkdir(parents=True, exist_ok=True)
                labels.parent.mkdir(exist_ok=True)
                labels.symlink_to(folder / "labels")
            one = replace(config, output=labels.parent, seed=seed, select=replace(config.select, method=method))
            curves[method][seed] = run(one, arguments.frames * (2 if method == "random" else 1), test, lambda p: print(method, seed, p, flush=True))
    (arguments.folder / "curves.json").write_text(json.dumps(curves, indent=1))
    text = table(curves, arguments.config.name, len(test))
    print(text)
    if arguments.output:
        plot(curves, arguments.output.with_suffix(".png"))
        arguments.output.write_text(text + f"\n![force error against labelled frames]({arguments.output.stem}.png)\n")


if __name__ == "__main__":
    main()
