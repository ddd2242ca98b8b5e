# SPDX-License-Identifier: MIT
"""A small MACE-like model with random weights, written as docs/model_file.md says, for tests that need a network and not its accuracy.

Two layers, 72 channels of l = 0, 1: in double precision a row of features has 2304 bytes, more than travels at once between the ranks of LAMMPS.
ZBL repulsion keeps atoms apart. Elements C, O and Cu.
"""
import hashlib
import json
import struct
from pathlib import Path

import numpy as np

ELEMENTS = {"C": 6, "O": 8, "Cu": 29}
CUTOFF = 4.0
CHANNELS = 72
BASIS, HIDDEN = 6, 16


def _architecture() -> dict:
    scalars, vectors = f"{CHANNELS}x0e", f"{CHANNELS}x0e+{CHANNELS}x1o"
    layer = {
        "radial_mlp": {"activation": "silu", "layers": 2, "layer_norm": False},
        "normalization": "constant",
        "skip": "none",
        "update": {"type": "contraction", "correlation": 2},
        "readout": {"layers": 1, "activation": "silu"},
    }
    first = {
        "features_in": scalars,
        "irreps_conv": scalars,
        "irreps_message": vectors,
        "features_out": vectors,
        "paths": [[0, 0, "0e"], [0, 1, "1o"]],
    }
    second = {
        "features_in": vectors,
        "irreps_conv": vectors,
        "irreps_message": vectors,
        "features_out": scalars,
        "paths": [[0, 0, "0e"], [1, 1, "0e"], [0, 1, "1o"], [1, 0, "1o"]],
        "skip": "features",
    }
    return {
        "r_max": CUTOFF,
        "edge_harmonics": ["0e", "1o"],
        "radial_basis": {"type": "bessel", "prefactor": float(np.sqrt(2.0 / CUTOFF))},
        "cutoff_function": {"type": "polynomial", "p": 6},
        "cutoff_applies_to": "basis",
        "distance_transform": None,
        "pair_repulsion": {"type": "zbl", "p": 6, "a_exp": 0.3, "a_prefactor": 0.4543, "c": [0.1818, 0.5099, 0.2802, 0.02817]},
        "layers": [{**layer, **first}, {**layer, **second}],
    }


def _tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) / np.sqrt(shape[-2])

    n, c = len(ELEMENTS), CHANNELS
    tensors = {
        "embedding": matrix(n, c),
        "covalent_radii": np.array([0.76, 0.66, 1.32]),
        "atomic_energies": np.array([[-1.0, -2.0, -3.0]]),
        "scale": np.full((1, n), 2.0),
        "shift": np.full((1, n), 0.1),
        "radial_basis.frequencies": np.pi * np.arange(1, BASIS + 1) / CUTOFF,
    }
    for t, (inputs, blocks) in enumerate([(("0e",), {"0e": 1, "1o": 1}), (("0e", "1o"), {"0e": 2, "1o": 2})]):
        for irrep in inputs:
            tensors[f"layers.{t}.up.{irrep}"] = matrix(c, c)
        tensors[f"layers.{t}.radial_mlp.0"] = matrix(BASIS, HIDDEN)
        tensors[f"layers.{t}.radial_mlp.1"] = matrix(HIDDEN, c * sum(blocks.values()))
        for irrep, paths in blocks.items():
            tensors[f"layers.{t}.linear.{irrep}"] = matrix(c * paths, c) / 3.0  # about the root of the number of neighbours
        tensors[f"layers.{t}.contraction.0e.1"] = matrix(n, 1, c)
        tensors[f"layers.{t}.contraction.0e.2"] = 0.3 * rng.normal(size=(n, 2, c))  # 0e 0e -> 0e and 1o 1o -> 0e
        tensors[f"layers.{t}.product.0e"] = matrix(c, c)
        tensors[f"layers.{t}.readout.0"] = matrix(1, c, 1)
    tensors["layers.0.contraction.1o.1"] = matrix(n, 1, c)
    tensors["layers.0.contraction.1o.2"] = 0.3 * rng.normal(size=(n, 2, c))  # 0e 1o -> 1o and 1o 0e -> 1o
    tensors["layers.0.product.1o"] = matrix(c, c)
    tensors["layers.1.skip.0e"] = matrix(n, c, c)
    return tensors


def write(path: Path, seed: int = 1, carbon: float = 1.0) -> Path:
    """Writes the model and returns its path. The same seed gives the same file. `carbon`: a factor of that element's embedding."""
    tensors = {name: np.ascontiguousarray(tensor, dtype="<f8") for name, tensor in sorted(_tensors(seed).items())}
    tensors["embedding"][0] *= carbon
    header, data = {}, b""
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F64", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + tensor.nbytes]}
        data += tensor.tobytes()
    document = {
        "architecture": _architecture(),
        "elements": list(ELEMENTS.values()),
        "cutoff": CUTOFF,
        "units": {"energy": "eV", "length": "angstrom"},
        "heads": ["default"],
        "provenance": {"weights": "random, for tests"},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    header["__metadata__"] = {"format": "adatom", "format_version": "1", "adatom": json.dumps(document)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path
