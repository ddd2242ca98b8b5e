# SPDX-License-Identifier: MIT
"""The queue of calculations: a folder of tasks that any number of workers, on any number of machines that share it, take from.

A task is a folder named after its structure, so that no structure is calculated twice: `input.extxyz` and `label.json` (how), then `lock` (who works on it),
and in the end either `result.extxyz` or `failed.json`. A lock whose process is gone is taken over.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adatom.learn import _calculation
from adatom.learn._config import Label
from adatom.learn._files import read_frames, read_json, write_frames, write_json

if TYPE_CHECKING:
    from ase import Atoms

CALCULATION = Path(__file__).with_name("_calculation.py")  # a script, so that another Python, without adatom, can run it
HEARTBEAT = 20.0  # seconds between signs of life of a worker
STALE = 15 * HEARTBEAT  # without one for so long, a worker on another machine counts as gone
PROGRAMS = {  # what a calculator needs: Python module or program, and how to get it
    "gpaw": ("module", "gpaw", "pip install gpaw, or apt install gpaw gpaw-data and label.python = \"/usr/bin/python3\""),
    "espresso": ("program", "pw.x", "apt install quantum-espresso"),
    "cp2k": ("program", " ".join(_calculation.CP2K_SHELLS), "apt install cp2k"),
}  # fmt: skip


def task_of(folder: Path, atoms: Atoms, label: Label) -> Path:
    """Enters a structure into the queue, unless it is there, and returns its folder."""
    how = {"calculator": label.calculator, "parameters": label.parameters}
    # eight digits are what an extxyz file has, so that a structure that went through one is the same task
    content = [atoms.numbers.tolist(), np.round(atoms.positions, 8).tolist(), np.round(atoms.cell.array, 9).tolist(), atoms.pbc.tolist(), how]
    task = folder / hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    if not (task / "label.json").exists():
        bare = atoms.copy()
        bare.calc, bare.info = None, {}
        bare.arrays = {k: v for k, v in bare.arrays.items() if k in ("numbers", "positions")}
        bare.constraints = []  # of the dynamics; forces are wanted on all atoms
        write_frames(task / "input.extxyz", [bare])
        write_json(task / "label.json", how)
    return task


def state(task: Path) -> str:
    """"done", "failed" or "open"."""
    return "done" if (task / "result.extxyz").exists() else "failed" if (task / "failed.json").exists() else "open"


def result(task: Path) -> Atoms:
    return read_frames(task / "result.extxyz")[0]


def work(folder: Path, label: Label, tasks: list[Path] | None = None, say=lambda text: None) -> int:
    """One worker: takes open tasks until there is none that nobody works on. Returns how many it did."""
    check_program(label)
    done = 0
    while True:
        todo = [t for t in (tasks if tasks is not None else sorted(p.parent for p in folder.glob("*/label.json"))) if state(t) == "open"]
        taken = next((t for t in todo if _lock(t)), None)
        if taken is None:
            return done
        try:
            _calculate(taken, label)
            done += 1
            say(f"{taken.name}: {state(taken)}")
        finally:
            (taken / "lock").unlink(missing_ok=True)


def run_workers(folder: Path, label: Label, tasks: list[Path], say) -> None:
    """Until no task is open: workers of this process's own, or (label.wait) those that run elsewhere."""
    if not label.wait:
        check_program(label)
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []

    def one() -> None:
        try:
            work(folder, label, tasks, say)
        except BaseException as error:  # noqa: BLE001  (reported by the caller's thread)
            errors.append(error)

    while any(state(t) == "open" for t in tasks):
        threads = [t for t in threads if t.is_alive()]
        if errors:
            raise errors[0]
        if not label.wait:
            while len(threads) < label.workers:
                threads.append(threading.Thread(target=one, daemon=True))
                threads[-1].start()
        time.sleep(0.2 if not label.wait else 5.0)
    for t in threads:
        t.join()


def check_program(label: Label) -> None:
    """Raises FileNotFoundError that says what to install."""
    if label.python and not shutil.which(label.python):
        raise FileNotFoundError(f"label.python is '{label.python}', which is no program")
    if label.calculator not in PROGRAMS or "command" in label.parameters:
        return
    kind, names, install = PROGRAMS[label.calculator]
    if kind == "program":
        found = any(shutil.which(name) for name in names.split())
    elif label.python:
        found = subprocess.run([label.python, "-c", f"import {names}"], capture_output=True).returncode == 0
    else:
        found = importlib.util.find_spec(names) is not None
    if not found:
        where = f" for {label.python or sys.executable}" if kind == "module" else ""
        raise FileNotFoundError(f"the labelling program of calculator '{label.calculator}' is not installed ({kind} {names.split()[0]}{where}): {install}")


def _calculate(task: Path, label: Label) -> None:
    """In a process of its own, which may crash or take too long; signs of life go to the lock meanwhile."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(label.threads)}
    start = time.monotonic()
    with (task / "output.txt").open("w") as output:
        process = subprocess.Popen([label.python or sys.executable, str(CALCULATION), str(task)], stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                try:
                    process.wait(min(HEARTBEAT, max(0.1, start + label.seconds - time.monotonic())) if label.seconds else HEARTBEAT)
                except subprocess.TimeoutExpired:
                    os.utime(task / "lock")
                    if label.seconds and time.monotonic() - start > label.seconds:
                        process.kill()
                        process.wait()
                        write_json(task / "failed.json", {"reason": f"took longer than label.seconds = {label.seconds:g}", "seconds": label.seconds})
                        return
        finally:
            if process.poll() is None:
                process.kill()
    if state(task) == "open":
        tail = (task / "output.txt").read_text(errors="replace").strip()[-500:]
        write_json(task / "failed.json", {"reason": f"ended with code {process.returncode} without a result: {tail}", "seconds": time.monotonic() - start})


def _lock(task: Path) -> bool:
    """Whether this process has the task now."""
    lock = task / "lock"
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "thread": threading.get_ident()})
    for _ in range(2):
        try:
            with lock.open("x") as stream:
                stream.write(mine)
            return state(task) == "open" or bool(lock.unlink(missing_ok=True))
        except FileExistsError:
            if not _stale(lock):
                return False
            # Of several that find it stale one renames it, and so may take it away.
            grave = lock.with_name(f"lock.{os.getpid()}.{threading.get_ident()}")
            try:
                lock.rename(grave)
            except FileNotFoundError:
                return False
            grave.unlink()
    return False


def _stale(lock: Path) -> bool:
    try:
        owner, age = json.loads(lock.read_text() or "{}"), time.time() - lock.stat().st_mtime
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    if not owner:
        return age > STALE
    if owner["host"] != socket.gethostname():
        return age > STALE
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

