# SPDX-License-Identifier: MIT
"""Molecular dynamics in LAMMPS through the pair style: time per step for several numbers of atoms, MPI ranks and threads.

    python benchmarks/lammps.py MODEL [--repeat 4 6 10] [--layout 1x1 2x1 1x2] [--rounds 5] [-o benchmarks/results/FILE.md]

fcc copper, NVE at 600 K with a step of 1 fs; a layout is RANKSxTHREADS. All layouts of a size take turns, so that a machine whose speed drifts is the same
for all, and the table holds medians of what LAMMPS reports as loop time, neighbour lists and integration included. The last column is of the fastest rounds: with two
ranks, a core that is slow for a moment stops both.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cpu import machine

SCRIPT = """
units metal
lattice fcc 3.61
region box block 0 {repeat} 0 {repeat} 0 {repeat}
create_box 1 box
create_atoms 1 box
mass 1 63.546
pair_style adatom
pair_coeff * * {model} Cu
neighbor 1.0 bin
velocity all create 1200 1 mom yes rot yes dist gaussian
timestep 0.001
fix move all nve
thermo 1000000
run {warmup}
run {steps}
"""


def seconds_per_step(model: Path, repeat: int, ranks: int, threads: int, steps: int, warmup: int) -> float:
    import adatom

    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), LAMMPS_PLUGIN_PATH=os.environ.get("ADATOM_LAMMPS_PLUGIN") or adatom.lammps_plugin_folder())
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.run").write_text(SCRIPT.format(model=model.resolve(), repeat=repeat, steps=steps, warmup=warmup))
        # A core for each thread: without binding, the kernel moves spinning ranks about.
        command = [str(tools / "mpirun"), "-bind-to", f"core:{threads}", "-n", str(ranks), str(tools / "lmp"), "-in", "in.run", "-log", "none"]
        process = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    loops = re.findall(r"^Loop time of (\S+)", process.stdout, re.MULTILINE)
    if process.returncode or len(loops) != 2:
        raise SystemExit(process.stdout[-2000:] + process.stderr[-2000:])
    return float(loops[1]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeat", type=int, nargs="+", default=[4, 6, 10], help="4 repeat^3 atoms")
    parser.add_argument("--layout", nargs="+", default=["1x1", "2x1", "1x2"], metavar="RANKSxTHREADS")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    layouts = [tuple(int(n) for n in layout.split("x")) for layout in arguments.layout]

    import adatom

    lines = [
        f"# Molecular dynamics in LAMMPS, {datetime.date.today().isoformat()}",
        "",
        f"{machine()}; adatom {adatom.__version__}, {arguments.model.name}, fcc Cu, a = 3.61 angstrom, NVE, 600 K, 1 fs; medians of {arguments.rounds} rounds of"
        f" {arguments.steps} steps in which all layouts take turns.",
        "",
        "| atoms | ranks x threads | ms per step | us per atom and step | ns per day | speed against the first | of the fastest rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for repeat in arguments.repeat:
        atoms = 4 * repeat**3
        times = {layout: [] for layout in layouts}
        for _ in range(arguments.rounds):
            for layout in layouts:
                times[layout].append(seconds_per_step(arguments.model, repeat, *layout, arguments.steps, arguments.warmup))
        first = statistics.median(times[layouts[0]])
        for layout in layouts:
            seconds = statistics.median(times[layout])
            fastest = min(times[layouts[0]]) / min(times[layout])
            lines.append(f"| {atoms} | {layout[0]} x {layout[1]} | {1e3 * seconds:.2f} | {1e6 * seconds / atoms:.1f} | {0.0864 / seconds:.2f} | {first / seconds:.2f} | {fastest:.2f} |")
            print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
