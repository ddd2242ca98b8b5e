# SPDX-License-Identifier: MIT
"""Training, engine against mace-torch, on 3BPA: seconds per epoch, and errors on the test files against wall-clock.

    python benchmarks/training.py DATA [--python mace=PATH] [--threads 2] [--device cuda] [--epochs 24] [--long 200] [--mace-epochs 24] [-o benchmarks/results/FILE.md]

DATA is the folder with train.extxyz, isolated_atoms.extxyz and test_*.extxyz of 3BPA. Both train the same shape (MACE 32x0e + 32x1o, l_max 3, correlation 3,
r_max 5) on the same 450 configurations with the same loss, optimiser, batches of 5, averaging of weights and threads, in float. They take turns in blocks
of epochs, each going on from its checkpoint, so that a machine whose speed drifts is the same for both. mace-torch runs with the allocator tuned (TUNED in
cpu.py), and its time is what its own log says between epochs, without start-up. Memory is what the largest resident size of an epoch grows by from batches of
5 to batches of 50, for each atom of the batch; for this, the allocators are as the system has them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cpu import TUNED, machine

SHAPE = {"family": "mace", "channels": 32, "max_L": 1, "l_max": 3, "correlation": 3, "layers": 2, "r_max": 5.0}
ENVIRONMENT = {**os.environ, "PYTHONSAFEPATH": "1"}  # a file torch.py in the current folder is not torch


def split(data: Path, folder: Path) -> tuple[Path, Path]:
    """450 configurations for training and 50 for validation, the same for both."""
    import ase.io
    import numpy as np

    frames = ase.io.read(data / "train.extxyz", ":")
    order = np.random.default_rng(0).permutation(len(frames))
    train, valid = folder / "train.extxyz", folder / "valid.extxyz"
    ase.io.write(train, [frames[k] for k in order[:450]])
    ase.io.write(valid, [frames[k] for k in order[450:]])
    return train, valid


def largest_resident_size(process: subprocess.Popen) -> int:
    """Bytes, once it has ended."""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"a run for the memory ended with {status}")
    return 1024 * usage.ru_maxrss


def bytes_per_atom(run) -> float:
    """`run(batch size)` starts a process that trains for an epoch. 3BPA has 27 atoms."""
    small, large = (largest_resident_size(run(size)) for size in (5, 50))
    return (large - small) / (45 * 27)


class Engine:
    name = "adatom"

    def __init__(self, data, folder, train, valid, threads, tests, device):
        self.config = {
            "model": SHAPE, "device": device, "output": str(folder / "adatom"), "threads": threads, "seed": 1,
            "data": {"train": [str(train)], "valid": [str(valid)], "isolated_atoms": str(data / "isolated_atoms.extxyz"), "test": [str(t) for t in tests]},
            "loss": {"energy": 15.0, "forces": 1000.0}, "optimizer": {"name": "adam", "learning_rate": 0.01, "weight_decay": 5e-7, "amsgrad": True},
            "training": {"batch_size": 5, "ema_decay": 0.99, "clip_gradient": 10.0},
        }  # fmt: skip
        self.folder, self.curve, self.seconds, self.epochs = folder, [], 0.0, []

    def run(self, epochs: int) -> None:
        """Goes on to `epochs` epochs in all."""
        self.config["training"]["epochs"] = epochs
        script = "import json, sys; from adatom.training import train; r = train(json.load(sys.stdin), resume=True); print(json.dumps([r.epochs, r.tests]))"
        environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(self.config["threads"])}
        done = subprocess.run([sys.executable, "-c", script], input=json.dumps(self.config), capture_output=True, text=True, env=environment, check=True)
        epochs_done, tests = json.loads(done.stdout.splitlines()[-1])
        times = [e["seconds"] for e in epochs_done]
        self.epochs += [b - a for a, b in zip([self.seconds, *times], times)]
        self.seconds = times[-1]
        self.curve.append((self.seconds, tests))

    def one_epoch(self, batch: int) -> subprocess.Popen:
        config = json.loads(json.dumps(self.config))
        config["output"] = str(self.folder / f"memory{batch}")
        config["training"].update(epochs=1, batch_size=batch, valid_batch_size=5)
        config["data"]["test"] = []
        script = "import json, sys; from adatom.training import train; train(json.loads(sys.argv[1]))"
        return subprocess.Popen([sys.executable, "-c", script, json.dumps(config)], env={**ENVIRONMENT, "OMP_NUM_THREADS": str(self.config["threads"])})


class Mace:
    name = "mace-torch"

    def __init__(self, python, data, folder, train, valid, threads, tests, device="cpu", shape=SHAPE, stress=False):
        """`data`: the folder that has isolated_atoms.extxyz, or None: atomic energies by least squares."""
        import ase.io

        energies = {int(a.numbers[0]): float(a.get_potential_energy()) for a in ase.io.read(data / "isolated_atoms.extxyz", ":")} if data else "average"
        # mace-torch wants its labels under names that ASE does not take for results
        self.files = {}
        for key, file in (("train", train), ("valid", valid), *((t.stem, t) for t in tests)):
            frames = ase.io.read(file, ":")
            for f in frames:
                f.info["REF_energy"] = f.get_potential_energy()
                f.arrays["REF_forces"] = f.get_forces()
                if stress:
                    f.info["REF_stress"] = f.get_stress(voigt=False)
                f.calc = None
            self.files[key] = folder / f"mace_{key}.extxyz"
            ase.io.write(self.files[key], frames)
        self.python, self.folder, self.threads, self.tests = python, folder, threads, tests
        self.curve, self.seconds, self.epochs = [], 0.0, []
        self.arguments = [
            "--name=mace", f"--work_dir={folder / 'mace'}", f"--train_file={self.files['train']}", f"--valid_file={self.files['valid']}", f"--E0s={energies}",
            "--model=ScaleShiftMACE", "--hidden_irreps=" + " + ".join(f"{shape['channels']}x{l}{'eo'[l % 2]}" for l in range(shape["max_L"] + 1)),
            f"--r_max={shape['r_max']}", f"--max_ell={shape['l_max']}", f"--correlation={shape['correlation']}", "--num_interactions=2", "--batch_size=5",
            "--valid_batch_size=32", "--energy_weight=15", "--forces_weight=1000", "--lr=0.01", "--weight_decay=5e-7", "--amsgrad", "--ema", "--ema_decay=0.99",
            "--clip_grad=10", "--default_dtype=float32", f"--device={device}", "--seed=1", "--restart_latest", "--scheduler_patience=50", "--num_workers=0",
            "--energy_key=REF_energy", "--forces_key=REF_forces", "--eval_interval=1",
            *(["--loss=stress", "--compute_stress=True", "--stress_weight=1000", "--stress_key=REF_stress"] if stress else []),
        ]  # fmt: skip

    def run(self, epochs: int) -> None:
        environment = {**ENVIRONMENT, **TUNED, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        environment.pop("LD_LIBRARY_PATH", None)
        before = len(self.epochs)
        process = subprocess.Popen([self.python, "-u", "-m", "mace.cli.run_train", *self.arguments, f"--max_num_epochs={epochs}"], env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder)
        last, text = None, []
        for line in process.stdout:
            text.append(line)
            if re.search(r"Initial|Epoch \d+:", line):
                now = time.perf_counter()
                if last is not None and "Epoch" in line:
                    self.epochs.append(now - last)
                last = now
        process.wait()
        if len(self.epochs) == before:
            raise RuntimeError("mace-torch did no epoch:\n" + "".join(text[-30:]))
        self.seconds += sum(self.epochs[before:])
        self.curve.append((self.seconds, self.evaluate()))

    def one_epoch(self, batch: int) -> subprocess.Popen:
        environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(self.threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        environment.pop("LD_LIBRARY_PATH", None)
        changed = {"--work_dir": str(self.folder / f"mace_memory{batch}"), "--batch_size": str(batch), "--valid_batch_size": "5"}
        arguments = [f"{key}={changed[key]}" if (key := a.split("=")[0]) in changed else a for a in self.arguments]
        return subprocess.Popen([self.python, "-m", "mace.cli.run_train", *arguments, "--max_num_epochs=1"], env=environment, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, cwd=self.folder)

    def evaluate(self) -> dict:
        """Errors of the averaged weights of the last checkpoint, by mace-torch itself."""
        script = """
import glob, json, sys, numpy as np, torch, ase.io
from mace.calculators import MACECalculator
folder, tests = sys.argv[1], json.loads(sys.argv[2])
model = sorted(glob.glob(folder + "/mace/*.model") + glob.glob(folder + "/mace/checkpoints/*.model"), key=__import__("os").path.getmtime)[-1]
calculator = MACECalculator(model_paths=model, device="cpu", default_dtype="float32")
out = {}
rms = lambda x: float(np.sqrt(np.mean(np.square(x))))
for name, file in tests.items():
    e, f, s, n = [], [], [], []
    for a in ase.io.read(file, ":"):
        reference = a.info["REF_energy"], a.arrays["REF_forces"], a.info.get("REF_stress")
        a.calc = calculator
        n.append(len(a))
        e.append(a.get_potential_energy() - reference[0]); f.append(a.get_forces() - reference[1])
        if reference[2] is not None:
            s.append(a.get_stress(voigt=False) - np.reshape(reference[2], (3, 3)))
    out[name] = {"energy_rmse": rms(e), "energy_per_atom_rmse": rms(np.array(e) / n), "force_rmse": rms(np.concatenate(f))}
    if s:
        out[name]["stress_rmse"] = rms(s)
print(json.dumps(out))
"""
        tests = {t.stem: str(self.files[t.stem]) for t in self.tests}
        environment = {**ENVIRONMENT, "OMP_NUM_THREADS": str(self.threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        environment.pop("LD_LIBRARY_PATH", None)
        done = subprocess.run([self.python, "-c", script, str(self.folder), json.dumps(tests)], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="mace=PATH", help="interpreter that has mace-torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--epochs", type=int, default=24, help="of the engine, in blocks of 8")
    parser.add_argument("--long", type=int, default=0, help="epochs to which the engine goes on afterwards")
    parser.add_argument("--mace-epochs", type=int, default=24, help="of mace-torch, in blocks of 8")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    pythons = dict(p.split("=", 1) for p in arguments.python)
    tests = sorted(arguments.data.glob("test_*.extxyz"), key=lambda t: int(re.search(r"(\d+)K", t.name)[1]))

    folder = Path(tempfile.mkdtemp(prefix="training-"))
    train, valid = split(arguments.data, folder)
    runs = [(Engine(arguments.data, folder, train, valid, arguments.threads, tests, arguments.device), arguments.epochs)]
    if "mace" in pythons and arguments.mace_epochs:
        runs.append((Mace(pythons["mace"], arguments.data, folder, train, valid, arguments.threads, tests, arguments.device), arguments.mace_epochs))
    block = 8
    for upto in range(block, max(n for _, n in runs) + block, block):
        for engine, most in runs:
            if upto - block < most:
                engine.run(min(upto, most))
                print(engine.name, f"{engine.seconds:.1f} s", {k: (round(1e3 * v["energy_rmse"], 1), round(1e3 * v["force_rmse"], 1)) for k, v in engine.curve[-1][1].items()},
                      flush=True)
    if arguments.long > arguments.epochs:
        for upto in range(arguments.epochs, arguments.long, 50):
            runs[0][0].run(min(upto + 50, arguments.long))

    memory = {} if arguments.no_memory else {engine.name: bytes_per_atom(engine.one_epoch) for engine, _ in runs}
    text = report([engine for engine, _ in runs], memory, tests, arguments)
    print(text)
    if arguments.output:
        arguments.output.write_text(text)
        picture([engine for engine, _ in runs], tests, arguments.output.with_suffix(".png"))
    shutil.rmtree(folder)


def report(engines, memory, tests, arguments) -> str:
    lines = [
        f"# Training on 3BPA, {datetime.date.today()}", "",
        f"{machine()}, {arguments.threads} threads{', on a GPU' if arguments.device == 'cuda' else ''}; MACE 32x0e + 32x1o, l_max 3, correlation 3, r_max 5, batches of 5, float; 450 configurations. `benchmarks/training.py`.", "",
        "| | seconds per epoch (median) | epochs | seconds | " + " | ".join(f"{t.stem.removeprefix('test_')}: E meV, F meV/A" for t in tests) + " |",
        "|---|---|---|---|" + "---|" * len(tests),
    ]  # fmt: skip
    for engine in engines:
        for k, (seconds, errors) in enumerate(engine.curve):
            row = " | ".join(f"{1e3 * errors[t.stem]['energy_rmse']:.1f}, {1e3 * errors[t.stem]['force_rmse']:.1f}" for t in tests)
            median = f"{statistics.median(engine.epochs):.2f}" if k == 0 else ""
            lines.append(f"| {engine.name if k == 0 else ''} | {median} | {'' if k else len(engine.epochs)} | {seconds:.1f} | {row} |")
    if len(engines) > 1:
        ratio = statistics.median(engines[1].epochs) / statistics.median(engines[0].epochs)
        lines += ["", f"An epoch of mace-torch takes {ratio:.1f} times as long."]
    if memory:
        lines += ["", "Memory that a batch takes: " + ", ".join(f"{name} {value / 1024:.0f} KiB per atom" for name, value in memory.items()) + "."]
    return "\n".join(lines) + "\n"


def picture(engines, tests, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for engine, style in zip(engines, ("o-", "s--")):
        for t, colour in zip(tests, ("tab:blue", "tab:orange", "tab:red")):
            x = [seconds for seconds, _ in engine.curve]
            label = f"{engine.name}, {t.stem.removeprefix('test_').removesuffix('_sub')}"
            axes[0].loglog(x, [1e3 * e[t.stem]["force_rmse"] for _, e in engine.curve], style, color=colour, label=label, markersize=4)
            axes[1].loglog(x, [1e3 * e[t.stem]["energy_rmse"] for _, e in engine.curve], style, color=colour, markersize=4)
    axes[0].set_ylabel("RMSE of forces, meV/angstrom")
    axes[1].set_ylabel("RMSE of energies, meV")
    for a in axes:
        a.set_xlabel("seconds of training")
    axes[0].legend(fontsize=7)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
