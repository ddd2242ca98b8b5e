# SPDX-License-Identifier: MIT
"""Process groups from what torchrun, mpirun or srun put into the environment."""

from __future__ import annotations

import os
import queue
import re
import socket
import subprocess
import threading
import time

# Launcher: its variables for rank, number of processes, rank on this machine
_LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MPICH, Intel MPI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


def launched() -> tuple[int, int] | None:
    """(rank, processes) if a launcher started this process together with others, else None."""
    for rank, size, _ in _LAUNCHERS.values():
        if rank in os.environ and size in os.environ and int(os.environ[size]) > 1:
            return int(os.environ[rank]), int(os.environ[size])
    return None


def rank() -> int:
    """Of this process; 0 for a process alone."""
    found = launched()
    return found[0] if found else 0


def _first_host() -> str:
    """The machine of rank 0. Slurm's lists of machines have a syntax of their own (`n[1-3,7],m[01-02]-ib`), which `scontrol` knows. Raises RuntimeError."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    if not nodes:
        return "127.0.0.1"
    if "[" not in nodes and "," not in nodes:
        return nodes
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30)
        failure = "" if done.returncode == 0 and done.stdout.split() else f"it ended with {done.returncode}: {' '.join((done.stderr or done.stdout).split())}"
    except FileNotFoundError as error:  # as in a container
        if plain := re.match(r"([^][,]+)(?:\[(\d+)[^][]*\]([^][,]*))?(,|$)", nodes):
            return "".join(part or "" for part in plain.groups()[:3])
        failure = str(error)
    except (OSError, subprocess.SubprocessError) as error:
        failure = str(error)
    if failure:
        raise RuntimeError(f"`scontrol show hostnames {nodes}` does not name the first machine of the job ({failure}): set MASTER_ADDR to it")
    return done.stdout.split()[0]


def _require_host(host: str, seconds: float = 45.0) -> None:
    """RuntimeError where the name of the meeting point stays unknown: torch would repeat a warning for half an hour."""
    answers: queue.Queue = queue.Queue()

    def look() -> None:  # a resolver may take its time
        try:
            socket.getaddrinfo(host, None)
            answers.put(None)
        except (OSError, UnicodeError) as error:
            answers.put(error)

    end, failure = time.monotonic() + seconds, "no answer"
    for pause in (0.0, 1.0, 4.0):  # machines of a job that has just begun may be known a little later
        time.sleep(pause)
        threading.Thread(target=look, daemon=True).start()
        try:
            answer = answers.get(timeout=max(end - time.monotonic(), 0.1))
        except queue.Empty:
            break
        if answer is None:
            return
        failure = answer.strerror if isinstance(answer, OSError) and answer.strerror else str(answer)
    raise RuntimeError(f"the machine '{host}', where the processes are to meet, cannot be found ({failure}): set MASTER_ADDR to a name or address of the first one")


def choose_device() -> bool:
    """Of several processes on a machine with GPUs each takes the device of its rank there (as the engine does). Whether the group can have NCCL."""
    import torch

    if launched() is None or not torch.cuda.is_available() or not torch.distributed.is_nccl_available():
        return False
    local = next((int(os.environ[name]) for _, _, name in _LAUNCHERS.values() if name in os.environ), 0)
    torch.cuda.set_device(local % torch.cuda.device_count())
    return True


def join(on_device: bool = False) -> str:
    """Joins the processes' group and returns its name for the trainer; "" for a process alone. Gloo, and with `on_device` NCCL for tensors of devices.

    Every launcher but torchrun leaves the meeting point to us: MASTER_ADDR and MASTER_PORT if they are set, else the first machine of the
    Slurm job (or this one) and a port that follows from the job's number. RuntimeError where that machine cannot be found.
    """
    found = launched()
    if found is None:
        return ""
    import torch.distributed as distributed

    rank, size = found
    if not distributed.is_initialized():
        if not os.environ.get("MASTER_ADDR"):
            os.environ["MASTER_ADDR"] = _first_host()
        _require_host(os.environ["MASTER_ADDR"])
        os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID", "9500")) % 20000))
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_device else "gloo", rank=rank, world_size=size)
    return distributed.group.WORLD.group_name


def leave() -> None:
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
