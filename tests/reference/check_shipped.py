# SPDX-License-Identifier: MIT
"""Compares the engine with sevenn on the checkpoints that sevenn ships: imports each, evaluates it in float64 with the radial networks themselves, and
compares with the values in data/models/7net-*.json. Their model files are too large to commit, so this is not part of `make test`.

    python check_shipped.py [NAME ...]    environment with sevenn, which must see the package adatom

Fails on the first deviation of more than 1e-8 eV/atom, 1e-7 eV/angstrom or 1e-9 eV/angstrom^3.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms

from adatom import Potential
from adatom.importers import write_model
from adatom.importers.sevennet import import_sevennet

DATA = Path(__file__).parent / "data"
LIMITS = {"energy": 1e-8, "energies": 2e-8, "forces": 1e-7, "stress": 1e-9}


def deviations(potential: Potential, structures: dict, records: dict) -> dict[str, float]:
    """Largest deviation of each quantity over the structures. NaN counts as infinite."""
    worst = dict.fromkeys(LIMITS, 0.0)
    for name, record in records.items():
        s = structures[name]
        atoms = Atoms(s["numbers"], s["positions"], cell=s["cell"], pbc=s["pbc"])
        result = potential.evaluate(atoms, energies=True, forces=True, stress="stress" in record)
        found = {"energy": result.energy / len(atoms), "energies": result.energies, "forces": result.forces}
        expected = {"energy": record["energy"] / len(atoms), "energies": record["energies"], "forces": record["forces"]}
        if "stress" in record:
            found["stress"], expected["stress"] = result.stress, record["stress"]
        for key, value in found.items():
            deviation = float(np.abs(np.asarray(value) - expected[key]).max(initial=0.0))
            worst[key] = max(worst[key], deviation) if np.isfinite(deviation) else np.inf
    return worst


def main() -> None:
    structures = json.loads((DATA / "structures.json").read_text())
    files = sorted((DATA / "models").glob("7net-*.json"))
    names = sys.argv[1:] or [file.stem for file in files]
    failed = False
    for name in names:
        reference = json.loads((DATA / "models" / f"{name}.json").read_text())
        tensors, document = import_sevennet(**reference["options"]["import_sevennet"])
        if document["provenance"]["file_sha256"] != reference["options"]["file_sha256"]:
            raise SystemExit(f"{name}: this version of sevenn ships another checkpoint than the one whose values are stored")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name}.safetensors"
            write_model(file, tensors, document)
            for head, records in reference["heads"].items():
                potential = Potential.load(file, dtype="float64", splines=False, head=head)
                worst = deviations(potential, structures, records)
                bad = [key for key, limit in LIMITS.items() if not worst[key] <= limit]
                failed |= bool(bad)
                text = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
                print(f"{name:18s} {head:8s} {len(records)} structures: {text}{'   TOO LARGE: ' + ', '.join(bad) if bad else ''}", flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
