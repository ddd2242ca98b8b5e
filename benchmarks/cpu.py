# SPDX-License-Identifier: MIT
"""Engine against peers on the CPU, side by side: microseconds per atom and step, memory, share of the machine's multiply-add peak.

    python benchmarks/cpu.py MODELS [--python mace=PATH --python sevenn=PATH --python symmetrix=PATH] [--threads 1 2] [--rounds 5] [-o benchmarks/results/FILE.md]

MODELS is a folder with what `tests/reference/make_models.py mace_128 MODELS` and `adatom import` write: NAME.safetensors and, for mace, NAME.model beside it;
for symmetrix NAME.symmetrix.json, of the same shape with a RealAgnosticInteractionBlock first, since it takes no other.
A peer that cannot be imported is left out, and the table says so. Every (engine, threads) is one process; they take turns in every round, so
that a machine whose speed drifts is the same for all. Peers run with the allocator tuned (see TUNED), as their users would after reading the manual.
Each step moves the atoms by a little, as molecular dynamics does, and asks for energy and forces. A turn is one step that is not counted, since the other
process has had the caches, and then steps for at least TURN seconds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

# Page faults are dear on virtual machines: with glibc's defaults mace-torch returns its memory to the kernel at every step.
TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
TURN = 0.3  # seconds

# name, file, peers
CASES = [
    ("MACE 128x0e", "mace_128_L0", ["mace", "symmetrix", "symmetrix-double"]),
    ("MACE 128x0e+128x1o", "mace_128_L1", ["mace", "symmetrix", "symmetrix-double"]),
    ("SevenNet-0", "7net-0", ["sevenn"]),
]


def copper(repeat: int):
    """fcc Cu, a = 3.61 angstrom, slightly disordered; 4 repeat^3 atoms."""
    import numpy as np
    from ase.build import bulk

    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (repeat, repeat, repeat)
    atoms.positions += np.random.default_rng(1).normal(scale=0.02, size=atoms.positions.shape)
    return atoms


def hexane():
    """A molecule of 20 atoms: n-hexane, all trans."""
    import numpy as np
    from ase import Atoms

    carbon = np.array([[1.27 * n, 0.0, 0.43 * (-1) ** n] for n in range(6)])  # C-C 1.53 angstrom, C-C-C 112 degrees
    hydrogen = [c + [0.0, y, 0.63 * np.sign(c[2])] for c in carbon for y in (-0.89, 0.89)]
    ends = [carbon[0] + [-0.89, 0.0, -0.63], carbon[-1] + [0.89, 0.0, 0.63]]
    return Atoms("C6H14", np.concatenate([carbon, hydrogen, ends]))


def small_structures(model: str) -> list[str]:
    """Rows of a table: what an atom costs in few-atom structures against what it costs in bulk, on one thread."""
    import time

    import numpy as np
    from ase.build import bulk

    from adatom import Potential

    potential = Potential.load(model + ".safetensors", threads=1)
    structures = {
        "2-atom cell of fcc Cu": bulk("Cu", "fcc", a=3.61, orthorhombic=True),
        "n-hexane, 20 atoms": hexane(),
        "32 atoms of fcc Cu": copper(2),
        "256 atoms of fcc Cu": copper(4),
    }
    generator = np.random.default_rng(3)
    times = {name: [] for name in structures}
    for _ in range(5):
        for name, atoms in structures.items():
            start = atoms.positions.copy()
            turn = []
            while sum(turn) < TURN:
                atoms.positions = start + generator.normal(scale=0.005, size=start.shape)
                tick = time.perf_counter()
                potential.evaluate(atoms)
                turn.append(time.perf_counter() - tick)
            atoms.positions = start
            times[name].append(1e6 * statistics.median(turn) / len(atoms))
    bulk_cost = statistics.median(times["256 atoms of fcc Cu"])
    return [f"| {name} | {statistics.median(t):.1f} | {statistics.median(t) / bulk_cost:.2f} |" for name, t in times.items()]


def make_calculator(engine: str, model: str, threads: int):
    if engine == "adatom":
        from adatom import AdatomCalculator

        return AdatomCalculator(model + ".safetensors", dtype="float32", threads=threads)
    if engine.startswith("symmetrix"):  # its Kokkos variant in float, its plain one in double: it has no others
        from symmetrix import Symmetrix

        double = engine.endswith("double")
        return Symmetrix(model + ".symmetrix.json", dtype="float64" if double else "float32", use_kokkos=not double)
    import torch

    torch.set_num_threads(threads)
    if engine == "mace":
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=model + ".model", device="cpu", default_dtype="float32")
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(Path(model).name, device="cpu")


def worker(engine: str, model: str, threads: int, repeat: int) -> None:
    """Sets up, then takes a turn for each line on standard input."""
    import resource
    import time

    import numpy as np

    atoms = copper(repeat)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    atoms.calc = make_calculator(engine, model, threads)
    generator = np.random.default_rng(2)
    start = atoms.positions.copy()
    for _ in range(2):
        atoms.get_forces()
        atoms.positions = start + generator.normal(scale=0.005, size=start.shape)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        times = []
        while len(times) < 2 or sum(times[1:]) < TURN:
            atoms.positions = start + generator.normal(scale=0.005, size=start.shape)
            tick = time.perf_counter()
            forces = atoms.get_forces()
            times.append(time.perf_counter() - tick)
            assert np.isfinite(forces).all()
        report = {"seconds": statistics.median(times[1:]), "peak_bytes": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)}
        if engine == "adatom":
            counters = atoms.calc.potential.counters
            report["flops"] = counters.flops_per_step
            report["workspace_bytes"] = counters.workspace_bytes
            report["backend"] = atoms.calc.potential.backend
        print(json.dumps(report), flush=True)


class Process:
    """A worker; None of its errors stops the benchmark."""

    def __init__(self, python: str, engine: str, model: str, threads: int, repeat: int):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS="1")
        if engine != "adatom":
            environment.update(TUNED)
        command = [python, "-W", "ignore", __file__, "--worker", engine, model, str(threads), str(repeat)]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reports: list[dict] = []
        self.error = ""
        if self.read() is None:
            self.error = (self.process.stderr.read().strip().splitlines() or ["no output"])[-1]

    def read(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return None

    def turn(self) -> None:
        if self.error:
            return
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        report = self.read()
        if report is None:
            self.error = (self.process.stderr.read().strip().splitlines() or ["died"])[-1]
        else:
            self.reports.append(report)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def median(self, key: str = "seconds") -> float:
        return statistics.median(r[key] for r in self.reports)


def machine() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores seen"
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="interpreter that has the peer installed")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=4, help="4 repeat^3 atoms")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    interpreters = {name: sys.executable for name in ("adatom", "mace", "sevenn", "symmetrix")}
    interpreters.update(p.split("=", 1) for p in arguments.python)

    import adatom
    from adatom.cli.bench import fma_share

    atoms = len(copper(arguments.repeat))
    lines = [
        f"# Engine and peers on the CPU, {datetime.date.today().isoformat()}",
        "",
        f"{machine()}; adatom {adatom.__version__}, {atoms} atoms of fcc Cu, a = 3.61 angstrom, float32; medians of"
        f" {arguments.rounds} rounds in which all processes take turns. Microseconds per atom and step.",
        "",
        "| model | threads | adatom (backend) | peer | peer / adatom | GFLOP per step | share of FMA peak | workspace, KiB per atom | peer's peak memory, KiB per atom |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, file, peers in CASES:
        model = str(arguments.models / file)
        for threads in arguments.threads:
            engine = Process(interpreters["adatom"], "adatom", model, threads, arguments.repeat)
            others = {p: Process(interpreters[p.split("-")[0]], p, model, threads, arguments.repeat) for p in peers}
            peaks = []
            for _ in range(arguments.rounds):
                if engine.error:
                    raise SystemExit(f"{name}: {engine.error}")
                engine.turn()
                peaks.append(1e9 * fma_share(engine.reports[-1]["backend"], "float32", threads, 0.0)["fma_peak_gflops"])
                for other in others.values():
                    other.turn()
            for process in (engine, *others.values()):
                process.close()
            if engine.error:
                raise SystemExit(f"{name}: {engine.error}")
            ours, flops = engine.median(), engine.reports[-1]["flops"]
            for peer, other in others.items():
                row = [name, str(threads), f"{1e6 * ours / atoms:.1f} ({engine.reports[-1]['backend']})"]
                if other.error:
                    row += [f"{peer}: not measured ({other.error[:60]})", ""]
                else:
                    row += [f"{peer} {1e6 * other.median() / atoms:.0f}", f"{other.median() / ours:.1f}"]
                row += [f"{1e-9 * flops:.3f}", f"{flops / ours / statistics.median(peaks):.0%}", f"{engine.reports[-1]['workspace_bytes'] / atoms / 1024:.1f}"]
                row += ["" if other.error else f"{other.reports[-1]['peak_bytes'] / atoms / 1024:.0f}"]
                lines.append("| " + " | ".join(row) + " |")
                print(lines[-1], flush=True)
    lines += ["", f"{CASES[0][0]}, one thread, few atoms:", "", "| structure | us per atom and step | against 256 atoms |", "|---|---|---|"]
    lines += small_structures(str(arguments.models / CASES[0][1]))
    lines += ["", "Peers ran with " + " ".join(f"{k}={v}" for k, v in TUNED.items()) + ".", ""]
    if arguments.output:
        arguments.output.write_text("\n".join(lines))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
