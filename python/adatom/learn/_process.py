# SPDX-License-Identifier: MIT
"""Programs that end when this process does, however it ends, with all that they have started.

Each runs below a small supervisor in a session of its own, to which a pipe leads from here that nobody writes to. When this process is gone, killed or not, the
system closes the pipe, and the supervisor kills all below it. This file is the supervisor as well, run as a script: it may import nothing of adatom.

    adatom learn --pipe--> supervisor --> calculation --> DFT program
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@contextlib.contextmanager
def supervised(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """The program, with the options of Popen but for stdin; at the end of the block it and all that it has started is dead."""
    read, lifeline = os.pipe()  # neither is inherited, but as the supervisor's standard input
    try:
        try:
            process = subprocess.Popen([sys.executable, "-I", "-S", __file__, *map(str, command)], stdin=read, start_new_session=True, **options)
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


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """subprocess.run of a supervised program; its output is kept, as text."""
    with supervised(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS has the latter for a group of zombies
        os.killpg(leader, signal.SIGKILL)


def _supervise(command: list[str]) -> None:
    """Runs the command, and ends as it does."""
    _adopt_orphans()
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.exit(f"{command[0]} does not start: {error.strerror}")
    threading.Thread(target=_watch, daemon=True).start()
    pid, status = 0, 0
    while pid != child.pid:  # others are orphans from below
        pid, status = os.wait()
    _kill_below()
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # the same signal, so that the return code is the child's
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(abs(code))


def _watch() -> None:
    """Until the other end of standard input is closed."""
    while os.read(0, 1):
        pass
    _kill_below()
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
    _supervise(sys.argv[1:])
