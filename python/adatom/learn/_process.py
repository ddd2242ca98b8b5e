# SPDX-License-Identifier: MIT
"""Programs that end when this process does, however it ends, with all that they have started.

Each runs below a small supervisor in a session of its own, to which a pipe leads from here that nobody writes to. When this process is gone, killed or not, the
system closes the pipe, and the supervisor kills all below it and removes its scratch folder. This file is the supervisor as well, run as a script: it may
import nothing of adatom.

    adatom learn --pipe--> supervisor --> calculation --> DFT program
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def python(script: str, *arguments: str | Path) -> list[str]:
    """The command that runs a script in this Python, without the current folder in the path of modules, which `python -c` puts first there: a file torch.py
    that happens to lie in it is not torch."""
    return [sys.executable, "-c", f"import sys\nsys.path[:] = [folder for folder in sys.path if folder]\n{script}", *map(str, arguments)]


def safe_environment(**more: str) -> dict[str, str]:
    """For programs of our own: what they start in Python (3.11 or later) does not look for modules in the current folder either."""
    return {**os.environ, "PYTHONSAFEPATH": "1", **more}


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """SIGTERM, as Slurm sends it, and SIGHUP, of a terminal that is closed, end this process like Ctrl-C: locks are given back, scratch folders are removed."""

    def end(number: int, frame) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, end) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}  # nohup ignores one of them
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def supervised(command: list[str], scratch: Path | None = None, **options) -> Iterator[subprocess.Popen]:
    """The program, with the options of Popen but for stdin; at the end of the block it and all that it has started is dead. If this process is killed
    meanwhile, the folder `scratch` is removed."""
    supervisor = [sys.executable, "-I", "-S", __file__, str(scratch or ""), *map(str, command)]
    read, lifeline = os.pipe()  # neither is inherited, but as the supervisor's standard input
    try:
        try:
            process = subprocess.Popen(supervisor, stdin=read, start_new_session=True, **options)
        finally:
            os.close(read)
    except BaseException:
        os.close(lifeline)
        raise
    try:
        yield process
    finally:
        os.close(lifeline)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30.0)
        finally:  # without a code it is stuck, or Ctrl-C came a second time; with a signal somebody may have killed the supervisor
            if process.returncode is None or process.returncode < 0:
                _kill_group(process.pid)
                process.wait()


def run(command: list[str], seconds: float | None = None, scratch: Path | None = None, **options) -> subprocess.CompletedProcess:
    """subprocess.run of a supervised program; its output is kept, as text. Raises TimeoutExpired after so many seconds."""
    with supervised(command, scratch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **options) as process:
        output, errors = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS has the latter for a group of zombies
        os.killpg(leader, signal.SIGKILL)


_ending = threading.Lock()  # of the supervisor: who has it ends the process


def _supervise(scratch: str, command: list[str]) -> None:
    """Runs the command, and ends as it does."""
    _adopt_orphans()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.exit(f"{command[0]} does not start: {error.strerror}")
    threading.Thread(target=_watch, args=(scratch,), daemon=True).start()
    pid, status = 0, 0
    while pid != child.pid:  # others are orphans from below
        pid, status = os.wait()
    _ending.acquire()  # waits where _watch is at work, which ends this process
    _kill_below()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # the same signal, so that the return code is the child's
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(abs(code))


def _watch(scratch: str) -> None:
    """Until the other end of standard input is closed."""
    while os.read(0, 1):
        pass
    with _ending:
        _kill_below()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)


def _adopt_orphans() -> None:
    """On Linux what loses its parent becomes a child of this process, so that what has a session of its own is found, too; elsewhere the group has to do."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_below() -> None:
    """Kills all that descends from this process."""
    for _ in range(100):  # one that was killed may have started another just before
        below = _descendants()
        if not below:
            return
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants() -> list[int]:
    """By Linux's /proc; without zombies."""
    children: dict[int, list[tuple[int, str]]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = file.read_text(errors="replace").rpartition(")")[2].split()[:2]  # of "pid (name) state parent ..."; a name may have spaces
            children.setdefault(int(parent), []).append((int(file.parent.name), state))
    found, level = [], [os.getpid()]
    while level:
        below = [child for parent in level for child in children.get(parent, [])]
        found += [pid for pid, state in below if state not in "ZX"]
        level = [pid for pid, _ in below]
    return found


if __name__ == "__main__":
    _supervise(sys.argv[1], sys.argv[2:])
