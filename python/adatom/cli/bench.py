# SPDX-License-Identifier: MIT
"""adatom bench: speed and memory of a model on this machine."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from adatom import _structures
from adatom.cli import common


def bench(
    model: common.ModelFile,
    structure: Annotated[Optional[Path], typer.Option("--structure", help="Structure to run; of several, the last.", show_default=False)] = None,
    atoms: Annotated[Optional[int], typer.Option("--atoms", min=1, help="Make a crystal of at least so many atoms.", show_default="500")] = None,
    element: Annotated[Optional[str], typer.Option("--element", help="Element of that crystal.", show_default="Cu, or the model's first")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Evaluations to time.")] = 20,
    warmup: Annotated[int, typer.Option("--warmup", min=1, help="Evaluations before that.")] = 3,
    dtype: common.DTypeOption = common.DType.float32,
    device: common.DeviceOption = common.Device.cpu,
    threads: common.Threads = None,
    head: common.Head = None,
    matmul: Annotated[common.Matmul, typer.Option("--matmul", help="Linear maps on a GPU in float32; what tf32 and bf16 change is measured.")] = common.Matmul.exact,
    as_json: common.Json = False,
) -> None:
    """Times energy, forces and stress of one structure whose atoms move a little every step, as in molecular dynamics.

    The median over the steps is reported, neighbour list included. Peak memory is what the operating system counts for the evaluations on
    top of the loaded model. The share of the FMA peak compares the counted floating-point operations with fused multiply-adds
    that this machine reaches in registers, with the same number of threads, instructions and precision.
    """
    import numpy as np

    if structure and atoms:
        raise ValueError("--structure and --atoms exclude each other")
    potential = common.load(model, device, dtype, threads, head, matmul)
    system = _structures.read_structures(structure, "-1")[0] if structure else crystal(potential.elements, element, atoms or 500)
    threads = threads or default_threads()
    potential.set_threads(threads)

    random = np.random.default_rng(1)
    rest = system.positions.copy()
    before = reset_peak_memory()
    times = []
    with common.progress(as_json) as bar:
        task = bar.add_task(f"{len(system)} atoms", total=warmup + steps)
        for _ in range(warmup + steps):
            system.positions = rest + random.normal(scale=0.02, size=rest.shape)
            start = time.perf_counter()
            potential.evaluate(system)
            times.append(time.perf_counter() - start)
            bar.advance(task)
    seconds = float(np.median(times[warmup:]))
    after = peak_memory()
    counters = potential.counters
    measured = 0 if before is None or after is None else after - before
    document = {
        "model": str(model),
        "summary": potential.summary,
        "backend": potential.backend,
        "dtype": dtype.value,
        "atoms": len(system),
        "threads": threads,
        "steps": steps,
        "ms_per_step": 1e3 * seconds,
        "us_per_atom_step": 1e6 * seconds / len(system),
        "us_per_atom_step_spread": [1e6 * float(np.percentile(times[warmup:], q)) / len(system) for q in (10, 90)],
        "peak_bytes_per_atom": max(measured, counters.workspace_bytes) / len(system),
        "workspace_bytes_per_atom": counters.workspace_bytes / len(system),
        "flops_per_atom_step": counters.flops_per_step / len(system),
        "gflops": 1e-9 * counters.flops_per_step / seconds,
    }
    if matmul != common.Matmul.exact:
        energy, force = potential.matmul_error(system)
        document |= {"matmul": matmul.value, "matmul_error_meV_per_atom": 1e3 * energy, "matmul_error_meV_per_angstrom": 1e3 * force}
    if potential.backend.startswith("cpu"):
        document |= fma_share(potential.backend, dtype.value, threads, document["gflops"])
    if as_json:
        common.print_json(document)
        return
    from rich.table import Table

    table = Table(show_header=False, title=document["summary"], title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # names are printed whole
    for key, value in document.items():
        if key != "summary":
            table.add_row(key, " to ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in (value if isinstance(value, list) else [value])))
    common.console().print(table)


def default_threads() -> int:
    """What OpenMP would take: OMP_NUM_THREADS, or the cores that this process may use."""
    requested = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(requested) if requested.isdigit() and int(requested) > 0 else len(os.sched_getaffinity(0))


def crystal(elements: tuple[int, ...], element: str | None, atoms: int):
    """A cube of the element's own crystal (copper, or the model's first element, by default) with at least `atoms` atoms."""
    from ase.build import bulk
    from ase.data import covalent_radii, reference_states

    available = _structures.symbols(elements)
    symbol = element or ("Cu" if "Cu" in available else available[0])
    if symbol not in available:
        raise ValueError(f"--element {symbol}: the model has {' '.join(available)}")
    number = elements[available.index(symbol)]
    reference = reference_states[number] or {}
    if reference.get("symmetry") in ("fcc", "bcc", "diamond"):
        cell = bulk(symbol, cubic=True)
    else:  # any dense crystal serves to time: close packing at the sum of the covalent radii
        cell = bulk(symbol, "fcc", a=2 * covalent_radii[number] * 2**0.5, cubic=True)
    repeat = 1
    while len(cell) * repeat**3 < atoms:
        repeat += 1
    return cell.repeat(repeat)


def fma_share(backend: str, dtype: str, threads: int, gflops: float) -> dict:
    """The machine's rate of fused multiply-adds, measured now by a loop in the backend itself, and the part of it that the evaluation reached."""
    import adatom

    library = Path(adatom.__file__).parent / "lib" / f"libadatom_{backend.replace('-', '_')}.so"
    measure = ctypes.CDLL(str(library)).adatom_cpu_fma_peak
    measure.argtypes, measure.restype = (ctypes.c_bool, ctypes.c_int), ctypes.c_double
    peak = 1e-9 * measure(dtype == "float32", threads)
    return {"fma_peak_gflops": peak, "fma_peak_share": gflops / peak}


def reset_peak_memory() -> int | None:
    """Sets the kernel's high-water mark of this process to its present memory, and returns that in bytes; None where there is no such mark."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return peak_memory()


def peak_memory() -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), None)
