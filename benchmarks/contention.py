# SPDX-License-Identifier: MIT
"""Evaluations while another process holds one of the cores: as many threads as cores must not be slower than one.

    python benchmarks/contention.py models/metals/model.safetensors

Threads and conditions alternate, in processes of their own; medians over the rounds. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

TIMED = """
import sys, time
from ase.build import bulk
from adatom import Potential
model, repeat, threads, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
potential = Potential.load(model, threads=threads)
atoms = bulk("Cu", cubic=True) * (repeat, repeat, repeat)
atoms.rattle(0.05, seed=1)
for _ in range(3):
    potential.evaluate(atoms)
start, steps = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    potential.evaluate(atoms)
    steps += 1
print(1e6 * (time.perf_counter() - start) / steps / len(atoms))
"""
HOG = "while True: pass"


def timed(python: str, model: str, repeat: int, threads: int, seconds: float, busy: bool) -> float:
    """Microseconds per atom, mean over `seconds`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    hog = subprocess.Popen([sys.executable, "-c", HOG]) if busy else None
    try:
        command = [python, "-c", TIMED, model, str(repeat), str(threads), str(seconds)]
        return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    finally:
        if hog:
            hog.kill()
            hog.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters whose adatom is compared, in pairs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    most = len(os.sched_getaffinity(0))
    print(f"| atoms | {most - 1} of {most} cores free | adatom of | 1 thread, us/atom | {most} threads, us/atom | ratio |\n|---|---|---|---|---|---|")
    for repeat in (2, 5):
        for busy in (False, True):
            times: dict[tuple[str, int], list[float]] = {}
            for _ in range(arguments.rounds):
                for python in arguments.python:
                    for threads in (1, most):
                        times.setdefault((python, threads), []).append(timed(python, arguments.model, repeat, threads, arguments.seconds, busy))
            for python in arguments.python:
                one, all_threads = (statistics.median(times[python, threads]) for threads in (1, most))
                print(f"| {4 * repeat**3} | {'yes' if busy else 'no, all'} | {python} | {one:.1f} | {all_threads:.1f} | {all_threads / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
