# SPDX-License-Identifier: MIT
"""CO on Cu(111): the same energies and forces by DFT and by a potential that learned from it, on the same core. Factor, error, and growth with the number of atoms.

    python speedup.py MODEL [--python PYTHON] [--sizes 2x2x3 3x3x3 ...] [--growth 8x8x4 ...] [--limit SECONDS] [--converged] [--reuse]
                      [--core K] [-o TABLE.md]

PYTHON is an interpreter that has GPAW (Debian's: /usr/bin/python3). Each slab is taken at two configurations, with thermal displacements: DFT begins the first from
atoms and the second from the density of the first, as in dynamics; its time is that of the second ("warm"). The potential's time is the median of force calls
between which every atom moves, neighbour list included. A slab whose first step takes longer than --limit ends the list. --converged repeats the smallest slab with
higher cutoff and more k points: the difference to that is what the DFT set-up itself leaves open, the measure for the potential's error. --reuse takes DFT's
results from the folder where they are there, for another potential.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111

from adatom import Potential

GPAW = {"mode": {"name": "pw", "ecut": 400}, "xc": "PBE", "occupations": {"name": "fermi-dirac", "width": 0.1}}
CONVERGED = {**GPAW, "mode": {"name": "pw", "ecut": 600}, "kpts": [6, 6, 1], "convergence": {"density": 1e-6}}


def slab(size: str, rng: np.random.Generator) -> list[Atoms]:
    """Two configurations of a slab with one CO on top of an atom; the second is a time step of a few femtoseconds from the first."""
    nx, ny, layers = (int(n) for n in size.split("x"))
    atoms = fcc111("Cu", size=(nx, ny, layers), a=3.64, vacuum=6.0)
    add_adsorbate(atoms, Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.16]]), 1.86, "ontop")
    atoms.cell[2, 2] = atoms.positions[:, 2].max() + 6.0
    atoms.info = {}
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    moved = atoms.copy()
    moved.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    return [atoms, moved]


def kpoints(size: str) -> list[int]:
    """Of about the same density for all slabs: 3 x 3 for 2 x 2 cells."""
    nx, ny, _ = (int(n) for n in size.split("x"))
    return [-(-6 // nx), -(-6 // ny), 1]


def run_dft(python: str, folder: Path, frames: list[Atoms], parameters: dict, limit: float, reuse: bool) -> list[dict]:
    """Results of the frames that were done: limit is for the first, and the second gets as much again."""
    if reuse and (folder / "dft.json").exists():
        return json.loads((folder / "dft.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    ase.io.write(folder / "frames.extxyz", frames)
    (folder / "parameters.json").write_text(json.dumps(parameters))
    out = folder / "dft.json"
    out.unlink(missing_ok=True)
    process = subprocess.Popen([python, str(Path(__file__).with_name("dft.py")), "frames.extxyz", "parameters.json", "dft.json"], cwd=folder)
    start = time.monotonic()
    try:
        while process.poll() is None:
            if time.monotonic() - start > (2 * limit if out.exists() else limit):
                process.terminate()
                break
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()
    if process.returncode > 0:
        raise SystemExit(f"GPAW failed in {folder} with {python}; see its output there. It is in Debian: apt install gpaw gpaw-data, with --python /usr/bin/python3")
    return json.loads(out.read_text()) if out.exists() else []


def time_potential(potential: Potential, frames: list[Atoms], seconds: float = 2.0) -> float:
    """Median seconds of a call for energy and forces; every atom moves between calls."""
    rng = np.random.default_rng(1)
    atoms = frames[0].copy()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < seconds:
        atoms.positions = frames[0].positions + rng.normal(scale=0.01, size=atoms.positions.shape)
        start = time.perf_counter()
        potential.evaluate(atoms, stress=False)
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def errors(potential: Potential, frames: list[Atoms], dft: list[dict]) -> tuple[float, float]:
    """Root mean square error of force components, eV/angstrom, and error of the energy difference of the two configurations, eV (nan with one)."""
    ours = [potential.evaluate(a, stress=False) for a in frames[: len(dft)]]
    force = np.sqrt(np.mean([(np.array(d["forces"]) - r.forces) ** 2 for d, r in zip(dft, ours)]))
    energy = (ours[1].energy - ours[0].energy) - (dft[1]["energy"] - dft[0]["energy"]) if len(dft) > 1 else float("nan")
    return float(force), float(abs(energy))


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def plot(rows: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    dft = [r for r in rows if "warm" in r]
    axes.loglog([r["atoms"] for r in dft], [r["cold"] for r in dft], "s--", color="0.6", label="GPAW, from atoms")
    axes.loglog([r["atoms"] for r in dft], [r["warm"] for r in dft], "s-", color="k", label="GPAW, from the last density")
    axes.loglog([r["atoms"] for r in rows], [r["potential"] for r in rows], "o-", color="C0", label="Adatom")
    axes.set(xlabel="atoms", ylabel="seconds for energy and forces, one core")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def table(rows: list[dict], converged: dict | None, model: str) -> str:
    lines = [
        f"# CO on Cu(111): DFT and potential on the same core, {datetime.date.today()}", "",
        f"{processor()}, one core. GPAW, plane waves of 400 eV, PBE, k points as dense as 3 x 3 for 2 x 2 cells, against {model}. `examples/speedup_vs_dft/speedup.py`.", "",
        "| slab | atoms | k points | GPAW from atoms, s | from the last density, s | potential, ms | factor | force error, meV/A | energy difference, meV |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        if "cold" in r:
            warm = f"{r['warm']:.0f}" if "warm" in r else ""
            step = r.get("warm", r["cold"])
            lines.append(f"| {r['size']} | {r['atoms']} | {r['kpts']} | {r['cold']:.0f} | {warm} | {1e3 * r['potential']:.3f} | {step / r['potential']:.3g} | {1e3 * r['force']:.0f} | {1e3 * r['energy']:.0f} |")
        else:
            lines.append(f"| {r['size']} | {r['atoms']} | | {r.get('note', '')} | | {1e3 * r['potential']:.3f} | | | |")
    dft = [r for r in rows if "warm" in r]
    if len(dft) > 2:
        slope = np.polyfit(np.log([r["atoms"] for r in dft]), np.log([r["warm"] for r in dft]), 1)[0]
        ours = np.polyfit(np.log([r["atoms"] for r in rows]), np.log([r["potential"] for r in rows]), 1)[0]
        lines += ["", f"Growth with the number of atoms N: DFT as N^{slope:.1f} (k points get fewer as cells grow), the potential as N^{ours:.2f}."]
    if converged:
        lines += ["", f"The DFT set-up itself, against 600 eV and 6 x 6 k points on the smallest slab: forces {1e3 * converged['force']:.0f} meV/A (root mean square), "
                  f"energy difference of the two configurations {1e3 * converged['energy']:.0f} meV; {converged['seconds']:.0f} s for both."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has GPAW")
    parser.add_argument("--sizes", nargs="+", default=["2x2x3", "3x3x3", "3x3x4", "4x4x3", "4x4x4"], metavar="NXxNYxLAYERS")
    parser.add_argument("--growth", nargs="+", default=["8x8x4", "16x16x4", "32x32x6"], metavar="NXxNYxLAYERS", help="larger slabs, for the potential alone")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for the first step of a slab")
    parser.add_argument("--converged", action="store_true")
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--core", type=int, help="where both run; by default the last one")
    parser.add_argument("--folder", type=Path, default=Path("build/speedup_vs_dft"), help="for GPAW's files and results.json")
    parser.add_argument("-o", "--output", type=Path, help="table; the picture goes beside it, as .png")
    arguments = parser.parse_args()
    core = max(os.sched_getaffinity(0)) if arguments.core is None else arguments.core
    os.sched_setaffinity(0, {core})  # GPAW's process inherits it
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    folder = arguments.folder.absolute()
    potential = Potential.load(arguments.model, threads=1)

    rows: list[dict] = []
    for size in arguments.sizes:
        frames = slab(size, np.random.default_rng(7))
        row = {"size": size, "atoms": len(frames[0]), "kpts": "x".join(map(str, kpoints(size))), "potential": time_potential(potential, frames)}
        dft = run_dft(arguments.python, folder / size, frames, {**GPAW, "kpts": kpoints(size)}, arguments.limit, arguments.reuse)
        row["potential"] = float(np.median([row["potential"], time_potential(potential, frames)]))
        rows.append(row)
        if not dft:
            row["note"] = f"more than {arguments.limit:.0f}"
            print(f"{size}: {len(frames[0])} atoms: not done after {arguments.limit:.0f} s", flush=True)
            break
        row["cold"] = dft[0]["seconds"]
        if len(dft) > 1:
            row["warm"] = dft[1]["seconds"]
        row["force"], row["energy"] = errors(potential, frames, dft)
        step = dft[-1]["seconds"]
        print(f"{size}: {row['atoms']} atoms: GPAW {row['cold']:.0f} s from atoms, {step:.0f} s in its last step; potential {1e3 * row['potential']:.3f} ms, "
              f"{step / row['potential']:.3g} times faster; forces differ by {1e3 * row['force']:.0f} meV/A", flush=True)  # fmt: skip
    for size in arguments.growth:
        frames = slab(size, np.random.default_rng(7))
        rows.append({"size": size, "atoms": len(frames[0]), "potential": time_potential(potential, frames)})

    converged = None
    if arguments.converged:
        size = arguments.sizes[0]
        frames = slab(size, np.random.default_rng(7))
        fine = run_dft(arguments.python, folder / "converged", frames, CONVERGED, 1e9, arguments.reuse)
        coarse = json.loads((folder / size / "dft.json").read_text())
        converged = {
            "force": float(np.sqrt(np.mean([(np.array(a["forces"]) - b["forces"]) ** 2 for a, b in zip(coarse, fine)]))),
            "energy": abs((fine[1]["energy"] - fine[0]["energy"]) - (coarse[1]["energy"] - coarse[0]["energy"])), "seconds": sum(f["seconds"] for f in fine),
        }  # fmt: skip
    (folder / "results.json").write_text(json.dumps({"rows": rows, "converged": converged}, indent=1))
    text = table(rows, converged, arguments.model.parent.name or arguments.model.name)
    print(text)
    if arguments.output:
        plot(rows, arguments.output.with_suffix(".png"))
        arguments.output.write_text(text + f"\n![seconds against atoms]({arguments.output.stem}.png)\n")


if __name__ == "__main__":
    main()
