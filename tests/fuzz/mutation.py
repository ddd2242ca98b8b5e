# SPDX-License-Identifier: MIT
"""Ways to damage files: their bytes, the JSON in them, tensors of model files."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import numpy as np

#: What replaces a value in JSON or TOML.
ODD_NUMBERS = (0, -1, 1, 2, 3, 17, 0.5, 2.9, -0.0, 1e-300, -1e300, 1e300, 1e9, 1e39, 2**31 - 1, 2**31, 2**32 + 1, 2**32 + 29, 2**63, 10**30)
ODD_VALUES = (*ODD_NUMBERS, True, False, "", "0e", "1o", "0x0e", "4x0e+4x1o", "99x99e", "1000000x3o", "silu", "x" * 5000, "\u00e4\U0001f600", "\0", "[bold]", [], {}, [[]], [1, 2, 3])
ODD_WEIGHTS = (0.0, -0.0, 1e-300, 1e-30, -1.0, 1e3, 1e10, 1e30, 1e39, -1e39, 1e155, 1e300, np.nan, np.inf)


def damage_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Flips, cuts, inserts, repeats or overwrites at one to three places."""
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, len(data))))
        end = min(len(data), at + int(rng.choice([1, 1, 2, 8, 100, 4000])))
        match rng.integers(0, 6) if rng.random() < 0.98 else 6:
            case 6:  # deeper than what recursion survives
                data = data[:at] + bytes(rng.choice([b"[", b'{"a":'])) * int(rng.choice([600, 200_000])) + data[at:]
            case 0:
                data = data[:at] + bytes([data[at] ^ 1 << int(rng.integers(0, 8))]) + data[at + 1 :] if data else data
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:at] + data[at:end] + data[at:]
            case 4:
                data = data[:at] + rng.bytes(end - at) + data[end:]
            case 5:
                data = data[:at] + bytes(rng.choice(np.frombuffer(b'0919-+.eE"[]{},:= \n\t\xff\x00', np.uint8), int(rng.integers(1, 6)))) + data[at:]
    return data


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything below a JSON value."""
    found = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        found += [(*path, key), *places(value, (*path, key))]
    return found


def damage_json(tree: Any, rng: np.random.Generator, times: int | None = None) -> Any:
    """A copy of which one to three values are replaced, scaled, removed, repeated, exchanged or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(times or rng.choice([1, 1, 1, 1, 2, 3])):
        paths = [path for path in places(tree) if len(path) < 100]
        if not paths:
            return tree
        path = paths[rng.integers(len(paths))]
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        key, value = path[-1], parent[path[-1]]
        match rng.integers(0, 8):
            case 0 | 1 | 2:
                odd = ODD_NUMBERS if isinstance(value, (int, float)) and rng.random() < 0.8 else ODD_VALUES
                parent[key] = copy.deepcopy(odd[rng.integers(len(odd))])
            case 3:
                if isinstance(value, float):
                    parent[key] = float(value * rng.choice([-1, 0.1, 0.9, 1.1, 2, 1e6]))
                else:
                    parent[key] = value + int(rng.choice([-1, 1, 100])) if type(value) is int else None
            case 4:
                del parent[key]
            case 5:
                if isinstance(parent, list):
                    parent.insert(key, copy.deepcopy(value))
                else:
                    parent["".join(rng.choice(list("abcde"), 3))] = copy.deepcopy(value)
            case 6:
                other = paths[rng.integers(len(paths))]
                source = tree
                try:
                    for k in other:
                        source = source[k]
                    parent[key] = copy.deepcopy(source)
                except (LookupError, TypeError):
                    pass
            case 7:
                for _ in range(int(rng.choice([1, 3, 100])) if rng.random() < 0.3 else 1):
                    value = [value]
                parent[key] = value
    return tree


class ModelParts:
    """A model file in its parts, to be changed and put together again with the hash that belongs to it."""

    def __init__(self, raw: bytes):
        length = int.from_bytes(raw[:8], "little")
        header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
        self.metadata = header.pop("__metadata__")
        self.document = json.loads(self.metadata["adatom"])
        self.entries = header
        self.tensors = {
            name: np.frombuffer(data[slice(*t["data_offsets"])], np.float32 if t["dtype"] == "F32" else np.float64).reshape(t["shape"]).copy()
            for name, t in header.items()
        }

    def damage_tensors(self, rng: np.random.Generator) -> None:
        for _ in range(rng.integers(1, 3)):
            name = list(self.tensors)[rng.integers(len(self.tensors))]
            t = self.tensors[name]
            match rng.integers(0, 7):
                case 0:
                    self.tensors[name] = np.full_like(t, ODD_WEIGHTS[rng.integers(len(ODD_WEIGHTS))])
                case 1 if t.size:
                    t.flat[rng.integers(t.size)] = ODD_WEIGHTS[rng.integers(len(ODD_WEIGHTS))]
                case 2:
                    self.tensors[name] = t * rng.choice([-1, 0, 0.5, 2, 10, 100, 1e3, 1e10, 1e30, 1e-30, 1e100])
                case 3 if t.ndim:
                    axis, size = int(rng.integers(t.ndim)), int(rng.choice([0, 1, 2, 5]))
                    self.tensors[name] = np.resize(t, [size if a == axis else n for a, n in enumerate(t.shape)]) if t.size else t
                case 4:
                    del self.tensors[name]
                case 5:
                    self.tensors[str(rng.choice([name + ".bias", name + "x", "uncertainty.extra", "layers.0.up.bias"]))] = t.copy()
                case 6:
                    self.tensors[name] = rng.normal(size=t.shape).astype(t.dtype) * rng.choice([1.0, 10.0, 1e4])

    def bytes(self, version: int, rng: np.random.Generator | None = None) -> bytes:
        """With `rng`, entries of the header are damaged before the hash is taken."""
        data, header = b"", {}
        for name, t in self.tensors.items():
            header[name] = {"dtype": "F32" if t.dtype == np.float32 else "F64", "shape": list(t.shape), "data_offsets": [len(data), len(data) + t.nbytes]}
            data += t.tobytes()
        if rng is not None:
            header = damage_json(header, rng, 1)
        document = self.document
        if version < 3 and isinstance(document, dict):
            document = {**document, "sha256": hashlib.sha256(data).hexdigest()}
        text = json.dumps(document)
        metadata = {**self.metadata, "format_version": str(version), "adatom": text}
        metadata.pop("sha256", None)
        if version >= 3:
            metadata["sha256"] = self._hash(text, header, data)
        raw = json.dumps({"__metadata__": metadata, **header}).encode()
        return len(raw).to_bytes(8, "little") + raw + data

    @staticmethod
    def _hash(text: str, header: dict, data: bytes) -> str:
        covered = "adatom 3\n" + text + "\n"
        try:
            for name in sorted(header, key=str.encode):
                t = header[name]
                covered += f"{name} {t['dtype']} {','.join(map(str, t['shape']))} {t['data_offsets'][0]} {t['data_offsets'][1]}\n"
        except (LookupError, TypeError, UnicodeEncodeError):
            pass  # a header that no reader accepts
        return hashlib.sha256(covered.encode("utf-8", "replace") + data).hexdigest()
