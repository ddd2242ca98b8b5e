# SPDX-License-Identifier: MIT
"""The queue of calculations: a folder of tasks that any number of workers, on any number of machines that share it, take from.

A task is a folder named after its structure, so that no structure is calculated twice: `input.extxyz` and `label.json` (how), then `lock` (who works on it),
and in the end either `result.extxyz` or `failed.json`. Who has a lock touches it every now and then; one without that sign of life is taken over.

Others may write to the folder: a worker calculates by its own configuration, and takes only tasks that are what that asks for and hold no links
(_why_not, _leads_away).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adatom.learn import _calculation
from adatom.learn._config import Label
from adatom.learn._files import kind, printable, read_frames, read_json, remove_temporary, to_text, write_json, write_text
from adatom.learn._process import supervised

if TYPE_CHECKING:
    from ase import Atoms

CALCULATION = Path(__file__).with_name("_calculation.py")  # a script, so that another Python, without adatom, can run it
HEARTBEAT = 20.0  # seconds between signs of life of a worker
STALE = 15 * HEARTBEAT  # without one for so long, a worker counts as gone
PROGRAMS = {  # what a calculator needs: Python module or program, and how to get it
    "gpaw": ("module", "gpaw", "pip install gpaw, or apt install gpaw gpaw-data and label.python = \"/usr/bin/python3\""),
    "espresso": ("program", "pw.x", "apt install quantum-espresso"),
    "cp2k": ("program", " ".join(_calculation.CP2K_SHELLS), "apt install cp2k"),
}  # fmt: skip


def task_of(folder: Path, atoms: Atoms, label: Label) -> Path:
    """Enters a structure into the queue, unless it is there, and returns its folder. Raises ValueError if another one lies in its place."""
    text = to_text([_bare(atoms)])
    task = folder / _name(_parse(text), label)
    if not os.path.lexists(task / "label.json"):
        write_text(task / "input.extxyz", text)
        write_json(task / "label.json", how(label))
    elif state(task) == "open" and (reason := _why_not(task, label)):
        raise ValueError(f"{task}: {reason}; remove the folder")
    return task


def how(label: Label) -> dict[str, Any]:
    return {"calculator": label.calculator, "parameters": label.parameters}


def _bare(atoms: Atoms) -> Atoms:
    bare = atoms.copy()
    bare.calc, bare.info = None, {}
    bare.arrays = {k: v for k, v in bare.arrays.items() if k in ("numbers", "positions")}
    bare.constraints = []  # of the dynamics; forces are wanted on all atoms
    return bare


def _parse(text: str) -> Atoms:
    """As it comes back from its file, which has eight digits: a structure that went through one is the same task."""
    import ase.io

    return ase.io.read(io.StringIO(text), format="extxyz")


def _name(atoms: Atoms, label: Label) -> str:
    content = [atoms.numbers.tolist(), np.round(atoms.positions, 8).tolist(), np.round(atoms.cell.array, 9).tolist(), atoms.pbc.tolist(), how(label)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _why_not(task: Path, label: Label) -> str:
    """Why a task is not calculated here; empty: it may be. Its name is the hash of the structure and of what the configuration here asks for."""
    if kind(task) != "folder":
        return "it is no folder"
    for name in ("label.json", "input.extxyz", "lock"):
        if kind(task / name) == "other":
            return f"{name} is neither file nor folder"
    try:
        found = read_json(task / "label.json", "calculator", "parameters")
        if found["calculator"] != label.calculator:
            return f"label.json asks for calculator '{printable(str(found['calculator']))}', and label.calculator is '{label.calculator}' here"
        if json.dumps(found["parameters"], sort_keys=True) != json.dumps(label.parameters, sort_keys=True):
            return "label.json asks for other parameters than [label.parameters] here"
        if _name(read_frames(task / "input.extxyz")[0], label) != task.name:
            return "input.extxyz is not the structure that the folder is named after"
    except (ValueError, OSError, IndexError) as error:
        return printable(str(error))
    return ""


def _leads_away(task: Path) -> str:
    """What of a task that nobody else works on is no file or folder of its own: a program would write to where a link leads; empty: nothing."""
    return next((f"{path.name} is neither file nor folder" for path in task.rglob("*") if kind(path) == "other"), "")


def state(task: Path) -> str:
    """"done", "failed" or "open"."""
    return "done" if kind(task / "result.extxyz") == "file" else "failed" if kind(task / "failed.json") == "file" else "open"


def result(task: Path, asked: Atoms) -> Atoms:
    """Raises ValueError, naming the file, if it is not a label of that structure."""
    file = task / "result.extxyz"
    atoms = (read_frames(file) or [None])[0]
    complete = atoms is not None and atoms.calc is not None and {"energy", "forces"} <= set(atoms.calc.results)
    if not complete or not np.array_equal(atoms.numbers, asked.numbers) or not np.allclose(atoms.positions, asked.positions, rtol=0, atol=1e-6):
        raise ValueError(f"{file} has no energy and forces of the structure that was to be labelled; somebody has altered it: remove it")
    return atoms


def failure(task: Path) -> dict[str, Any]:
    """What a failed task says: reason, seconds."""
    found = read_json(task / "failed.json", "reason")
    seconds = found.get("seconds", 0.0)
    return {"task": task.name, "reason": str(found["reason"]), "seconds": float(seconds) if isinstance(seconds, (int, float)) else 0.0}


def work(folder: Path, label: Label, tasks: list[Path] | None = None, say=lambda text: None, checked: bool = False) -> int:
    """One worker: takes open tasks until there is none that nobody works on. Returns how many it did. `checked`: check_program was called before."""
    if not checked:
        check_program(label)
    return _work(folder, label, tasks, say, threading.Event())


def _work(folder: Path, label: Label, tasks: list[Path] | None, say, stop: threading.Event) -> int:
    done, refused = 0, set()
    while not stop.is_set():
        todo = [t for t in (tasks if tasks is not None else sorted(p.parent for p in folder.glob("*/label.json"))) if state(t) == "open" and t not in refused]
        taken, mine = None, ""
        for task in todo:
            if kind(task / "lock") == "file" and not _stale(task / "lock"):
                continue
            reason = _why_not(task, label)
            if not reason and not (mine := _lock(task)):
                continue
            if not reason and (reason := _leads_away(task)):
                _unlock(task, mine)
            if not reason:
                taken = task
                break
            refused.add(task)
            _refuse(task, reason, tasks is not None, say)
        if taken is None:
            _say_who_works([t for t in todo if t not in refused], say)
            break
        try:
            remove_temporary(taken)
            if _calculate(taken, label, mine, stop):
                done += 1
                say(f"{taken.name}: {state(taken)}")
        finally:
            _unlock(taken, mine)
    return done


def run_workers(folder: Path, label: Label, tasks: list[Path], say) -> None:
    """Until no task is open: workers of this process's own, or (label.wait) those that run elsewhere."""
    if not label.wait:
        check_program(label)
    threads: list[threading.Thread] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def one() -> None:
        try:
            _work(folder, label, tasks, say, stop)
        except BaseException as error:  # noqa: BLE001  (reported by the caller's thread)
            errors.append(error)

    try:
        if label.wait and (alone := [t for t in tasks if state(t) == "open" and not (t / "lock").exists()]):
            say(f"{len(alone)} of them wait for workers elsewhere (adatom label)")
        while todo := [t for t in tasks if state(t) == "open"]:
            threads = [t for t in threads if t.is_alive()]
            if errors:
                raise errors[0]
            if label.wait:
                _say_who_works(todo, say)
            while not label.wait and len(threads) < label.workers:
                threads.append(threading.Thread(target=one, daemon=True))
                threads[-1].start()
            time.sleep(0.2 if not label.wait else 5.0)
    except BaseException:  # Ctrl-C, for instance: the others end their calculations and give their locks back
        stop.set()
        raise
    finally:
        for t in threads:
            t.join()


_told: set[tuple[Path, str]] = set()  # what was said already of a task: who has it, or why it is not calculated here


def _refuse(task: Path, reason: str, own: bool, say) -> None:
    if own:
        raise ValueError(f"{task}: {reason}; remove the folder")
    if (task, reason) not in _told:
        _told.add((task, reason))
        say(f"{task.name} is not calculated here: {reason}")


def _say_who_works(tasks: list[Path], say) -> None:
    """Which of the tasks other processes have; each once."""
    new = []
    for task in tasks:
        owner = _owner(task / "lock")
        who = f"process {owner['pid']} on {printable(owner['host'])}" if owner else "somebody unknown" if (task / "lock").exists() else ""
        if who and not (owner and _is_here(owner)) and (task, who) not in _told:
            _told.add((task, who))
            new.append(f"{task.name} ({who})")
    if new:
        say(f"waiting for {len(new)} calculations that others do: {', '.join(new[:10])}{', ...' if len(new) > 10 else ''}")


def check_program(label: Label) -> None:
    """Raises FileNotFoundError that says what to install, or ValueError that says why label.calculator cannot be had."""
    if label.python and not shutil.which(label.python):
        raise FileNotFoundError(f"label.python is '{label.python}', which is no program")
    sort, names, install = PROGRAMS.get(label.calculator, ("", "", ""))
    if sort == "program" and "command" not in label.parameters and not any(shutil.which(name) for name in names.split()):
        raise FileNotFoundError(f"the labelling program of calculator '{label.calculator}' is not installed ({sort} {names.split()[0]}): {install}")
    checked = subprocess.run(_command(label, ""), env=_environment(label), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if not checked.returncode:
        return
    said = printable((checked.stderr.strip().splitlines() or [f"it ended with code {checked.returncode}"])[-1])
    where = label.python or sys.executable
    if sort == "module":
        raise FileNotFoundError(f"the labelling program of calculator '{label.calculator}' is not installed ({sort} {names} for {where}: {said}): {install}")
    raise ValueError(f"label.calculator = '{label.calculator}' cannot be had in {where}: {said}")


def _command(label: Label, task: Path | str) -> list[str]:
    return [label.python or sys.executable, str(CALCULATION), str(task), str(label.folder)]


def _environment(label: Label) -> dict[str, str]:
    environment = {**os.environ, _calculation.HOW: json.dumps(how(label))}
    if label.threads:
        environment["OMP_NUM_THREADS"] = str(label.threads)
    environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def _calculate(task: Path, label: Label, mine: str, stop: threading.Event) -> bool:
    """In a process of its own, which may crash or take too long; signs of life go to the lock meanwhile. False if it was given up: `stop` is set, or another
    worker has the task."""
    start = sign = time.monotonic()
    late = False
    (task / "output.txt").unlink(missing_ok=True)
    with (task / "output.txt").open("x") as output, supervised(
        _command(label, task), stdout=output, stderr=subprocess.STDOUT, env=_environment(label)
    ) as process:
        while process.poll() is None and not late:
            left = start + label.seconds - time.monotonic() if label.seconds else 1.0
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(1.0, max(0.1, left)))
            late = process.returncode is None and bool(label.seconds) and time.monotonic() - start > label.seconds
            if stop.is_set():
                return False
            if time.monotonic() - sign > HEARTBEAT:
                sign = time.monotonic()
                if not _hold(task, mine):
                    return False
    if state(task) == "open":
        if not _hold(task, mine):
            return False
        tail = (task / "output.txt").read_text(errors="replace").strip()[-500:]
        reason = f"took longer than label.seconds = {label.seconds:g}" if late else f"ended with code {process.returncode} without a result: {tail}"
        write_json(task / "failed.json", {"reason": reason, "seconds": time.monotonic() - start})
    return True


def _lock(task: Path) -> str:
    """The content of the lock if this worker has the task now, or "". A stale one is taken over."""
    mine = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "worker": uuid.uuid4().hex})
    lock = task / "lock"
    if lock.exists() and not _stale(lock):
        return ""
    with _alone(task):
        if state(task) != "open" or (lock.exists() and not _stale(lock)):
            return ""
        lock.unlink(missing_ok=True)
        return mine if _create(lock, mine) else ""


def _hold(task: Path, mine: str) -> bool:
    """A sign of life; whether the task is still this worker's. A lock that vanished is made again."""
    lock = task / "lock"
    with _alone(task):
        try:
            if lock.read_text() != mine:
                return False
            os.utime(lock, follow_symlinks=False)
            return True
        except FileNotFoundError:
            return task.is_dir() and state(task) == "open" and _create(lock, mine)


def _unlock(task: Path, mine: str) -> None:
    lock = task / "lock"
    with contextlib.suppress(FileNotFoundError), _alone(task):
        if lock.read_text() == mine:
            lock.unlink()


def _create(lock: Path, content: str) -> bool:
    try:
        with lock.open("x") as stream:
            stream.write(content)
        return True
    except FileExistsError:
        return False


@contextlib.contextmanager
def _alone(task: Path) -> Iterator[None]:
    """Between looking at a lock and changing it no other worker may change it. label.json is there in every task and is never replaced; what is in it does not
    matter here. It is open for writing because NFS wants that."""
    with (task / "label.json").open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # until the file is closed
        yield


def _stale(lock: Path) -> bool:
    """Without a sign of life for long, whosever it is: its process's number may be another's by now. Of a process of this machine that is gone at once."""
    try:
        age = time.time() - lock.lstat().st_mtime
    except FileNotFoundError:
        return False
    if age > STALE:
        return True
    owner = _owner(lock)
    if not owner or owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _owner(lock: Path) -> dict[str, Any]:
    """Empty if there is none, or it is half written."""
    try:
        owner = json.loads(lock.read_text())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    complete = isinstance(owner, dict) and isinstance(owner.get("host"), str) and isinstance(owner.get("pid"), int)
    return owner if complete else {}


def _is_here(owner: dict[str, Any]) -> bool:
    return owner["host"] == socket.gethostname() and owner["pid"] == os.getpid()
