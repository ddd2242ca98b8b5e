# SPDX-License-Identifier: MIT
"""A small potential with random weights (NequIP family, two layers, elements C, O, Cu), for tests of everything around the engine.

Its numbers mean nothing; its energy is a smooth function with the right symmetries, repulsive at short range, so that relaxations and MD behave.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

ELEMENTS = (6, 8, 29)
CHANNELS = 8
CUTOFF = 4.0

_GATE = {
    "type": "gate",
    "scalar_activation": {"0e": "silu"},
    "scalar_factor": {"0e": 1.679},
    "gate_activation": "silu",
    "gate_factor": 1.679,
    "gate_irrep": "0e",
}


def _layer(features_in: str, message: str, features_out: str, paths: list, readout) -> dict:
    return {
        "features_in": features_in,
        "irreps_conv": features_in,
        "irreps_message": message,
        "features_out": features_out,
        "paths": paths,
        "radial_mlp": {"activation": "silu", "layers": 2, "layer_norm": False},
        "normalization": "constant",
        "skip": "none",
        "update": _GATE,
        "readout": readout,
    }


def small_model(heads: tuple[str, ...] = ("default",), seed: int = 0) -> tuple[dict, dict]:
    """(tensors, document) as docs/model_file.md describes them."""
    c, random = CHANNELS, np.random.default_rng(seed)
    scalars, vectors = f"{c}x0e", f"{c}x0e+{c}x1o"
    first = _layer(scalars, f"{2 * c}x0e+{c}x1o", vectors, [[0, 0, "0e"], [0, 1, "1o"]], None)
    second = _layer(vectors, scalars, scalars, [[0, 0, "0e"], [1, 1, "0e"]], {"layers": 1, "activation": "silu"})
    architecture = {
        "r_max": CUTOFF,
        "edge_harmonics": ["0e", "1o"],
        "radial_basis": {"type": "bessel", "prefactor": (2 / CUTOFF) ** 0.5},
        "cutoff_function": {"type": "polynomial", "p": 6},
        "cutoff_applies_to": "basis",
        "distance_transform": None,
        "pair_repulsion": {"type": "zbl", "p": 6, "a_exp": 0.3, "a_prefactor": 0.4543, "c": [0.1818, 0.5099, 0.2802, 0.02817]},
        "layers": [first, second],
    }

    def matrix(rows: int, columns: int, *leading: int):
        return random.normal(size=(*leading, rows, columns)) / rows**0.5

    tensors = {
        "embedding": random.normal(size=(len(ELEMENTS), c)),
        "radial_basis.frequencies": np.pi * np.arange(1, 7) / CUTOFF,
        "covalent_radii": np.array([0.76, 0.66, 1.32]),
        "atomic_energies": np.tile([-2.0, -3.0, -1.0], (len(heads), 1)) + np.arange(len(heads))[:, None],
        "scale": np.ones((len(heads), len(ELEMENTS))),
        "shift": np.zeros((len(heads), len(ELEMENTS))),
    }
    for t, layer in enumerate(architecture["layers"]):
        prefix = f"layers.{t}."
        tensors[prefix + "up.0e"] = matrix(c, c)
        tensors[prefix + "radial_mlp.0"] = matrix(6, 16)
        tensors[prefix + "radial_mlp.1"] = matrix(16, c * len(layer["paths"]))
    tensors["layers.0.linear.0e"] = matrix(c, 2 * c)
    tensors["layers.0.linear.1o"] = matrix(c, c)
    tensors["layers.1.up.1o"] = matrix(c, c)
    tensors["layers.1.linear.0e"] = matrix(2 * c, c)
    tensors["layers.1.readout.0"] = matrix(c, 1, len(heads))
    document = {
        "architecture": architecture,
        "elements": list(ELEMENTS),
        "cutoff": CUTOFF,
        "units": {"energy": "eV", "length": "angstrom"},
        "heads": list(heads),
        "provenance": {"source": f"random weights, seed {seed}", "licence": "MIT"},
    }
    return tensors, document


def write_small_model(file: Path, **options) -> Path:
    from adatom.importers import write_model

    tensors, document = small_model(**options)
    write_model(file, tensors, document)
    return file


if __name__ == "__main__":
    print(json.dumps({"written": str(write_small_model(Path(sys.argv[1])))}))
