# SPDX-License-Identifier: MIT
"""Trains a model of this folder again, and writes it and its errors beside its configuration.

    python models/train.py NAME DATA [--threads N] [--calibrate-only]

DATA is the folder with the data sets (models/README.md says which, and where they come from).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import ase.io

from adatom.training import load_config, train
from adatom.uncertainty import fit


def calibrate(model: Path, data: dict, output: Path) -> None:
    """Detectors of uncertainty, calibrated on the official test split."""
    frames = {part: [a for file in data[part] for a in ase.io.read(file, ":")] for part in ("train", "test")}
    fit(model, frames["train"], frames["test"], output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("data", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--calibrate-only", action="store_true", help="fit the detectors of uncertainty of the model that is there again")
    parser.add_argument("--output", type=Path, help="folder of the run; by default build/models/NAME")
    arguments = parser.parse_args()
    folder = Path(__file__).parent / arguments.name
    config = load_config(folder / "config.toml")
    for key in ("train", "valid", "test"):
        if key in config["data"]:
            config["data"][key] = [str(arguments.data / f.split("{data}/")[1]) for f in config["data"][key]]
    if arguments.calibrate_only:
        calibrate(folder / "model.safetensors", config["data"], folder / "model.safetensors")
        return
    output = arguments.output or Path("build") / "models" / arguments.name
    config.update(output=str(output), threads=arguments.threads)
    start = time.monotonic()

    def report(epoch: dict) -> bool:
        v = epoch["valid"]
        print(f"{epoch['epoch']}/{epoch['epochs']}  E {1e3 * v['energy_per_atom_rmse']:.2f} meV/atom  F {1e3 * v['force_rmse']:.1f} meV/A  {epoch['seconds']:.0f} s", flush=True)
        return True

    result = train(config, resume=True, report=report)
    calibrate(Path(result.model), config["data"], folder / "model.safetensors")
    errors = {"parameters": result.parameters, "seconds": round(time.monotonic() - start), "threads": arguments.threads, "tests": result.tests}
    (folder / "errors.json").write_text(json.dumps(errors, indent=1) + "\n")
    print(json.dumps(errors, indent=1))


if __name__ == "__main__":
    main()
