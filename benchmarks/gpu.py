# SPDX-License-Identifier: MIT
"""Engine against peers on one GPU: microseconds per atom and step over the number of atoms, milliseconds for few atoms, batches, training, memory, launches,
energy.

    python benchmarks/gpu.py MODELS [--python mace=PATH --python sevenn=PATH] [--data 3BPA] [--atoms 2 ... 1000000] [-o benchmarks/results/FILE.md]

MODELS is a folder with what `tests/reference/make_models.py mace_128 MODELS` and `adatom import` write: NAME.safetensors and, for mace, NAME.model beside it;
what is missing is made where mace-torch and sevenn can be imported. Every (engine, model) is a process of its own that goes through the sizes until one does
not fit. A step moves the atoms by a little and asks for energy and forces through ASE, host to host. A peer that cannot be imported, and a size that does not
fit, are said in the table. +tf32 and +bf16 are this engine with linear maps on tensor cores; what that changes is in the notes. Energy is NVML's counter of
the device. The roofline share is that of the larger of operations over the fp32 peak and bytes over the memory's bandwidth, both counted from sizes of arrays
and loops. With --data, the folder of 3BPA, seconds per epoch of training are measured as well (benchmarks/training.py). With -o a picture NAME.png is written
beside the table if matplotlib is there.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TURN = 1.0  # seconds of steps per size
SIZES = [2, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 1572864]
# name, file, peers
CASES = [
    ("MACE 128x0e", "mace_128_L0", ["mace", "mace+cueq"]),
    ("MACE 128x0e+128x1o", "mace_128_L1", ["mace", "mace+cueq"]),
    ("SevenNet-0", "7net-0", ["sevenn"]),
]
ROUNDED = ["adatom+tf32", "adatom+bf16"]
BATCHES = [(16, 64), (1000, 64), (1000, 27)]  # structures, atoms of each
# Data sheets: dense fp32 operations and bytes of memory per second.
PEAKS = {"H200": (67e12, 4.8e12), "H100": (67e12, 3.35e12), "A100": (19.5e12, 2.0e12), "B200": (75e12, 8.0e12)}


def copper(atoms: int):
    """fcc Cu, a = 3.61 angstrom, slightly disordered; at least `atoms` atoms, in a block as cubic as the number allows."""
    import numpy as np
    from ase.build import bulk

    if atoms <= 2:
        cell = bulk("Cu", "fcc", a=3.61, orthorhombic=True)
    else:
        cell = bulk("Cu", "fcc", a=3.61, cubic=True)
        shape = [1, 1, 1]
        while 4 * shape[0] * shape[1] * shape[2] < atoms:
            shape[shape.index(min(shape))] += 1
        cell = cell * shape
    cell.positions += np.random.default_rng(1).normal(scale=0.02, size=cell.positions.shape)
    return cell


def make_calculator(engine: str, model: str, device: str):
    if engine.startswith("adatom"):
        from adatom import AdatomCalculator

        return AdatomCalculator(model + ".safetensors", dtype="float32", device=device, matmul=engine.partition("+")[2] or "exact")
    if engine.startswith("mace"):
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=model + ".model", device=device, default_dtype="float32", enable_cueq=engine.endswith("cueq"))
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(Path(model).name, device=device)


def ask_device(what: str) -> str:
    """What nvidia-smi says of the first device; "" if there is none."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0].strip()
    except (OSError, IndexError, subprocess.SubprocessError):
        return ""


class EnergyMeter:
    """The device's own count of its energy, J; None where NVML has none."""

    def __init__(self):
        self.device = None
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
            handle = ctypes.c_void_p()
            if self.nvml.nvmlInit_v2() == 0 and self.nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) == 0:
                self.device = handle
        except (OSError, AttributeError):
            pass

    def read(self) -> float | None:
        millijoules = ctypes.c_ulonglong()
        if self.device is None or self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.device, ctypes.byref(millijoules)) != 0:
            return None
        return 1e-3 * millijoules.value


def memory_of_device() -> int | None:
    """Memory of the device in use now by anyone, bytes."""
    try:
        return int(ask_device("memory.used")) << 20
    except ValueError:
        return None


def device_name() -> str | None:
    return ask_device("name") or None


def worker(engine: str, model: str, device: str, sizes: list[int]) -> None:
    """Writes a line of JSON for each size."""
    import numpy as np

    calculator = make_calculator(engine, model, device)
    generator = np.random.default_rng(2)
    meter = EnergyMeter()
    for size in sizes:
        atoms = copper(size)
        atoms.calc = calculator
        start = atoms.positions.copy()

        def step() -> float:
            atoms.positions = start + generator.normal(scale=0.005, size=start.shape)
            tick = time.perf_counter()
            forces = atoms.get_forces()
            seconds = time.perf_counter() - tick
            assert np.isfinite(forces).all()
            return seconds

        before = memory_of_device()
        try:
            for _ in range(3):
                step()
            times, start_energy, begin = [], meter.read(), time.perf_counter()
            while len(times) < 5 or sum(times) < TURN:
                times.append(step())
            energy, elapsed = meter.read(), time.perf_counter() - begin
        except Exception as error:  # noqa: BLE001 - whatever a peer throws for lack of memory
            print(json.dumps({"atoms": len(atoms), "error": f"{type(error).__name__}: {error}".splitlines()[0][:120]}), flush=True)
            return
        report = {"atoms": len(atoms), "seconds": statistics.median(times), "spread": (max(times) - min(times)) / statistics.median(times)}
        after = memory_of_device()
        if before is not None and after is not None:
            report["bytes"] = after - before if engine.startswith("adatom") else after
        if energy is not None and start_energy is not None:  # the counter has steps of some 0.1 s
            report["watts"] = (energy - start_energy) / elapsed
        if engine.startswith("adatom"):
            counters = calculator.potential.counters
            report |= {"flops": counters.flops_per_step, "launches": counters.launches_per_step, "bytes": counters.workspace_bytes}
            report["traffic"] = counters.bytes_per_step
            if engine in ROUNDED and size == 64:
                report["rounding"] = calculator.potential.matmul_error(atoms)
        print(json.dumps(report), flush=True)


def batch_worker(model: str, device: str) -> None:
    """Batches of structures in one call of this engine: a line of JSON for each of BATCHES."""
    import numpy as np

    from adatom import Potential

    potential = Potential.load(model + ".safetensors", dtype="float32", device=device)
    generator = np.random.default_rng(3)
    for count, size in BATCHES:
        one = copper(size)
        structures = [one.copy() for _ in range(count)]
        times = []
        while len(times) < 5 or sum(times) < TURN:
            for structure in structures:
                structure.positions = one.positions + generator.normal(scale=0.02, size=one.positions.shape)
            tick = time.perf_counter()
            potential.evaluate(structures)
            times.append(time.perf_counter() - tick)
        print(json.dumps({"structures": count, "atoms": count * len(one), "seconds": statistics.median(times[2:])}), flush=True)


def measure(python: str, engine: str, model: str, device: str, sizes: list[int]) -> tuple[list[dict], str]:
    """Reports of the sizes that fitted, and why there are no more."""
    command = [python, "-W", "ignore", __file__, "--worker", engine, model, device, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    error = ""
    if reports and "error" in reports[-1]:
        last = reports.pop()
        error = f"{last['atoms']} atoms: {last['error']}"
    elif done.returncode != 0:
        error = (done.stderr.strip().splitlines() or ["died"])[-1][:120]
    return reports, error


def peaks_of(name: str) -> tuple[float, float] | None:
    return next((peaks for key, peaks in PEAKS.items() if key in name), None)


def roofline_share(report: dict, peaks: tuple[float, float] | None) -> str:
    if "flops" not in report or not peaks:
        return ""
    return f"{max(report['flops'] / peaks[0], report['traffic'] / peaks[1]) / report['seconds']:.0%}"


def make_models(folder: Path, interpreters: dict[str, str]) -> None:
    """What is missing in the folder, where the peers that make it are there."""
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(__file__).parents[1] / "tests" / "reference" / "make_models.py"
    if not (folder / "mace_128_L1.safetensors").exists():
        subprocess.run([interpreters["mace"], str(script), "mace_128", str(folder)], check=False)
    if not (folder / "7net-0.safetensors").exists():
        subprocess.run([sys.executable, "-m", "adatom", "import", "sevennet", "7net-0", "-o", str(folder / "7net-0.safetensors")], check=False,
                       env={**os.environ, "PYTHONSAFEPATH": "1"})  # fmt: skip


def row_of(engine: str, report: dict, peaks: tuple[float, float] | None) -> str:
    atoms, seconds = report["atoms"], report["seconds"]
    cells = [engine, str(atoms), f"{1e6 * seconds / atoms:.3g}", f"{1e3 * seconds:.3g}", f"{report['spread']:.0%}"]
    cells.append(f"{report['bytes'] / 2**20:.0f}" if "bytes" in report else "")
    cells.append(roofline_share(report, peaks))
    cells.append(str(report.get("launches", "")))
    cells.append(f"{1e6 * report['watts'] * seconds / atoms:.3g}" if "watts" in report else "")
    return "| " + " | ".join(cells) + " |"


def draw(results: dict, file: Path) -> None:
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return
    figure, axes = plt.subplots(1, len(results), figsize=(5 * len(results), 4), squeeze=False, sharey=True)
    for axis, (name, engines) in zip(axes[0], results.items()):
        for engine, reports in engines.items():
            axis.loglog([r["atoms"] for r in reports], [1e6 * r["seconds"] / r["atoms"] for r in reports], "o-", label=engine)
        axis.set(title=name, xlabel="atoms")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0][0].set_ylabel("microseconds per atom and step")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="interpreter that has the peer installed")
    parser.add_argument("--atoms", type=int, nargs="+", default=SIZES)
    parser.add_argument("--device", default="cuda", help="cpu to try the script out")
    parser.add_argument("--data", type=Path, help="folder of 3BPA: also seconds per epoch of training")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    interpreters = {"adatom": sys.executable, "mace": sys.executable, "sevenn": sys.executable}
    interpreters.update(p.split("=", 1) for p in arguments.python)

    import adatom

    name = device_name() if arguments.device == "cuda" else "the CPU"
    if name is None:
        raise SystemExit("nvidia-smi names no device: run this where there is one")
    peaks = peaks_of(name)
    make_models(arguments.models, interpreters)
    lines = [
        f"# Engine and peers on {name}, {datetime.date.today().isoformat()}",
        "",
        f"adatom {adatom.__version__}; fcc Cu, a = 3.61 angstrom, float32, energy and forces through ASE; medians of at least {TURN:g} s of steps."
        " Memory: of adatom what it holds beside the model, of peers what is in use on the device.",
        "",
    ]
    results: dict[str, dict[str, list[dict]]] = {}
    for case, file, peers in CASES:
        model = arguments.models / file
        if not model.with_suffix(".safetensors").exists():
            lines += [f"{case}: not measured, {model}.safetensors is not there", ""]
            continue
        lines += [f"## {case}", "", "| engine | atoms | us/atom/step | ms/step | spread | MiB | roofline | launches | J per 10^6 atom-steps |"]
        lines += ["|" + "---|" * 9]
        notes = []
        for engine in ["adatom", *(ROUNDED if arguments.device == "cuda" else []), *peers]:
            reports, error = measure(interpreters[engine.split("+")[0]], engine, str(model), arguments.device, arguments.atoms)
            if engine == "adatom" and not reports:
                raise SystemExit(f"{case}: {error}")
            results.setdefault(case, {})[engine] = reports
            lines += [row_of(engine, report, peaks) for report in reports]
            for report in reports:
                if "rounding" in report:
                    energy, force = report["rounding"]
                    notes.append(f"{engine} changes energies of atoms by up to {energy:.2g} eV, components of forces by up to {force:.2g} eV/A (64 atoms)")
            if error:
                notes.append(f"{engine}: {error}" if reports else f"{engine}: not measured ({error})")
        lines += [""] + [f"- {note}" for note in notes] + [""]
        done = subprocess.run(
            [sys.executable, __file__, "--batch-worker", str(model), arguments.device], capture_output=True, text=True, check=False
        )
        batches = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if batches:
            lines += ["Batches in one call:", "", "| structures | atoms in all | ms | atoms/s |", "|---|---|---|---|"]
            lines += [f"| {b['structures']} | {b['atoms']} | {1e3 * b['seconds']:.3g} | {b['atoms'] / b['seconds']:.3g} |" for b in batches] + [""]
        if done.returncode != 0:
            lines += [f"Batches: stopped ({(done.stderr.strip().splitlines() or ['died'])[-1][:160]})", ""]
        print("\n".join(lines[-len(notes) - 14 :]), flush=True)
    if arguments.data:
        script = Path(__file__).with_name("training.py")
        options = ["--device", arguments.device, "--no-memory", "--python", f"mace={interpreters['mace']}"]
        done = subprocess.run([sys.executable, str(script), str(arguments.data), *options], capture_output=True, text=True, check=False)
        lines += ["## Training on 3BPA", "", done.stdout.strip() if done.returncode == 0 else f"not measured ({done.stderr.strip()[-200:]})", ""]
    else:
        lines += ["Training on 3BPA: not measured, no --data", ""]
    if arguments.output:
        arguments.output.write_text("\n".join(lines))
        draw(results, arguments.output.with_suffix(".png"))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(sys.argv[2], sys.argv[3], sys.argv[4], [int(x) for x in sys.argv[5:]])
    elif len(sys.argv) > 1 and sys.argv[1] == "--batch-worker":
        batch_worker(sys.argv[2], sys.argv[3])
    else:
        main()
