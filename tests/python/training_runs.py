# SPDX-License-Identifier: MIT
"""Small runs of training, for the tests of training."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from safetensors.numpy import load_file

DATA = Path(__file__).parents[1] / "data"
MACE = {"family": "mace", "channels": 16, "max_L": 0, "l_max": 2, "correlation": 2, "layers": 2, "r_max": 4.0, "radial_mlp": [16, 16]}


def small_run(folder: Path) -> dict:
    """A configuration with 42 frames of a molecule of 27 atoms; four epochs take a second."""
    return {
        "model": dict(MACE),
        "output": str(folder),
        "threads": 1,
        "seed": 3,
        "data": {"train": [str(DATA / "3bpa_sample.extxyz")], "isolated_atoms": str(DATA / "3bpa_isolated_atoms.extxyz"), "valid_fraction": 0.2},
        "loss": {"energy": 15.0, "forces": 1000.0},
        "training": {"epochs": 4, "batch_size": 5},
    }


def tensors(folder):
    return load_file(Path(folder) / "model.safetensors")


def command(folder, config, **environment):
    """`adatom train` on a configuration, as a process that runs."""
    file = Path(folder) / "config.json.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(as_toml(config))
    arguments = [sys.executable, "-m", "adatom", "train", str(file), "--json"]
    return arguments, {**os.environ, "OMP_NUM_THREADS": "1", **environment}


def as_toml(table, prefix=""):
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in plain.items())
    for k, v in table.items():
        if isinstance(v, dict):
            text += f"\n[{prefix}{k}]\n" + as_toml(v, f"{prefix}{k}.")
    return text
