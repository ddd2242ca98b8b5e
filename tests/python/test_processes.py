# SPDX-License-Identifier: MIT
"""Potentials among processes, threads and signals: what is forked, what is interrupted, which cores are used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from adatom import Potential


def rattled(seed: int, repeat: int = 2):
    atoms = bulk("Cu", cubic=True) * (repeat, repeat, repeat)
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def metals():
    return Path(__file__).parents[2] / "models" / "metals" / "model.safetensors"


potential_of_parent: Potential


def of_parent(seed: int) -> float:
    return potential_of_parent.evaluate(rattled(seed)).energy


def of_child(arguments: tuple[str, int | None, int]) -> float:
    file, threads, seed = arguments
    return Potential.load(file, threads=threads).evaluate(rattled(seed)).energy


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("evaluated", [False, True], ids=["loaded", "evaluated"])
def test_forked_workers_give_the_parents_numbers(metals, threads, evaluated):
    """With the parent's potential and with one of their own."""
    global potential_of_parent
    potential_of_parent = Potential.load(metals, threads=threads)
    expected = [potential_of_parent.evaluate(rattled(seed)).energy for seed in range(4)] if evaluated else None
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(of_parent, range(4)).get(timeout=60)
        loaded = pool.map_async(of_child, [(str(metals), threads, seed) for seed in range(4)]).get(timeout=60)
    assert found == loaded == (expected or [potential_of_parent.evaluate(rattled(seed)).energy for seed in range(4)])


def test_a_process_forked_in_the_middle_of_an_evaluation_says_so(metals):
    """The lock of the potential is held by a thread that is not there."""
    potential = Potential.load(metals, threads=1)
    many = [rattled(seed, 4) for seed in range(200)]
    at_work = threading.Thread(target=potential.evaluate, args=(many,))
    at_work.start()
    time.sleep(0.3)
    receive, send = multiprocessing.Pipe(False)
    child = os.fork()
    if child == 0:
        try:
            potential.evaluate(rattled(0))
            send.send("no error")
        except RuntimeError as error:
            send.send(str(error))
        finally:
            os._exit(0)
    still_at_work = at_work.is_alive()
    assert receive.poll(20), "the child hangs"
    message = receive.recv()
    os.waitpid(child, 0)
    at_work.join()
    assert still_at_work and "load it in the child" in message


@pytest.fixture
def listening():
    """A shell starts what runs in the background deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("one", [True, False], ids=["one structure", "a batch"])
def test_interrupts_are_heard_within_a_second(metals, threads, one, listening):
    """And the potential gives the same bits afterwards."""
    potential = Potential.load(metals, threads=threads)
    small = rattled(1)
    before = potential.evaluate(small)
    big = rattled(2, 25) if one else [rattled(seed, 3) for seed in range(1500)]
    times = []

    def interrupt():
        time.sleep(0.7)
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        potential.evaluate(big)
        sender.join()
    assert time.monotonic() - times[0] < 1.0
    sender.join()
    after = potential.evaluate(small)
    assert after.energy == before.energy and np.array_equal(after.forces, before.forces)


def test_threads_share_a_potential(metals):
    potential = Potential.load(metals, threads=2)
    frames = [rattled(seed) for seed in range(40)]
    expected = [potential.evaluate(atoms).energy for atoms in frames]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda atoms: potential.evaluate(atoms).energy, frames)) == expected


@pytest.mark.parametrize("variables, expected", [({"OMP_NUM_THREADS": "3"}, 3), ({"OMP_NUM_THREADS": "3,2"}, 3), ({"OMP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}, 2),
                                                 ({"OMP_NUM_THREADS": "all"}, None)])  # fmt: skip
def test_number_of_threads_by_default(metals, variables, expected):
    script = f"""
import os
from adatom import Potential
from ase.build import bulk
Potential.load({str(metals)!r}).evaluate(bulk("Cu", cubic=True) * (8, 8, 8))
print(sum(open(f"/proc/self/task/{{task}}/comm").read() == "adatom\\n" for task in os.listdir("/proc/self/task")))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | variables
    helpers = int(subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True).stdout)
    assert helpers + 1 == (expected or len(os.sched_getaffinity(0)))
