# SPDX-License-Identifier: MIT
"""SIGTERM, which batch systems and `kill` send, and SIGHUP end a run as Ctrl-C does: after the step in work, with a checkpoint."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Stopped(KeyboardInterrupt):
    """A run was ended by a signal (`signum`) that would have killed it."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextlib.contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Within the block these signals raise `Stopped`; yields the list of those that came. Whoever handles or ignores a signal already (nohup) keeps it, and
    outside the main thread, where Python hears none, nothing is done."""
    came: list[int] = []

    def stop(signum: int, frame) -> None:
        came.append(signum)
        raise Stopped(signum)

    mine = [signal.SIGTERM, signal.SIGHUP] if threading.current_thread() is threading.main_thread() else []
    mine = [s for s in mine if signal.getsignal(s) == signal.SIG_DFL]
    for s in mine:
        signal.signal(s, stop)
    try:
        yield came
    finally:
        for s in mine:
            signal.signal(s, signal.SIG_DFL)
