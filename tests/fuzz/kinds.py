# SPDX-License-Identifier: MIT
"""What is damaged, and what has to hold of it. Each kind makes good files once, damaged ones from them, and uses those as a user would."""

from __future__ import annotations

import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
from mutation import ModelParts, damage_bytes, damage_json

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "python"))


class Failure(Exception):
    """Something was accepted that is wrong."""


def require_finite(what: str, values) -> None:
    if values is not None and not np.isfinite(values).all():
        raise Failure(f"{what} is not finite, and there was no error")


class Models:
    """Model files: loaded in both precisions, with and without tables, evaluated."""

    def __init__(self, folder: Path):
        from adatom.importers import write_model
        from small_model import small_model

        self.folder, self.bases = folder, []
        write_model(folder / "small.safetensors", *small_model())
        files = [folder / "small.safetensors", _with_detectors(folder / "small.safetensors", folder / "detectors.safetensors")]
        # Architectures of every kind: the smaller ones of the reference models
        files += sorted((TESTS / "reference/data/models").glob("*.safetensors"), key=lambda f: f.stat().st_size)[:24]
        self.bases = [file.read_bytes() for file in files]

    def damage(self, rng: np.random.Generator) -> tuple[str, bytes]:
        raw = self.bases[rng.integers(len(self.bases))] if rng.random() < 0.6 else self.bases[rng.integers(2)]
        if rng.random() < 0.15:
            return "model.safetensors", damage_bytes(raw, rng) if rng.random() < 0.7 else _damage_header(raw, rng)
        parts, way = ModelParts(raw), rng.random()
        if way < 0.6:
            parts.document = damage_json(parts.document, rng) if rng.random() < 0.3 else {**parts.document, **_deeper(parts.document, rng)}
        if way > 0.5:
            parts.damage_tensors(rng)
        return "model.safetensors", parts.bytes(int(rng.choice([2, 3, 3, 3])), rng if rng.random() < 0.1 else None)

    def use(self, file: Path, rng: np.random.Generator) -> None:
        from ase import Atoms

        from adatom import Potential
        from adatom.cli.info import info

        p = Potential.load(file, threads=1, dtype=str(rng.choice(["float32", "float64"])), splines=bool(rng.random() < 0.8), head=None)
        p.provenance, p.uncertainty, p.architecture, repr(p)  # noqa: B018
        if rng.random() < 0.02:
            info(file, as_json=True)
        numbers = rng.choice(p.elements, 5)
        atoms = Atoms(numbers, [[0, 0, 0], [1.2, 0.1, 0.2], [0.1, 1.5, 0.3], [2.0, 2.1, 1.9], [3.5, 0.2, 2.7]], cell=[4.1, 5.2, 6.3], pbc=rng.random() < 0.5)
        r = p.evaluate(atoms, stress=bool(atoms.pbc.all()), uncertainty=bool(p.members))
        for what in ("energy", "energies", "forces", "stress"):
            require_finite(what, getattr(r, what))
        if p.members and (np.isnan(r.force_std).any() or np.isnan(r.distances).any() or math.isnan(r.energy_std)):
            raise Failure("an uncertainty is NaN, and there was no error")


def _damage_header(raw: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of the header alone, whose length is right."""
    length = int.from_bytes(raw[:8], "little")
    header = damage_bytes(raw[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def _deeper(document: dict, rng: np.random.Generator) -> dict:
    """Damages what is read most: the architecture and what detectors say of themselves."""
    key = "uncertainty" if "uncertainty" in document and rng.random() < 0.3 else "architecture"
    return {key: damage_json(document[key], rng)}


def _with_detectors(file: Path, to: Path) -> Path:
    from adatom import Potential, _core

    p, rng = Potential.load(file), np.random.default_rng(1)
    z, f = len(p.elements), p.features
    tensors = {"mean": (z, f), "whitening": (z, f, f), "members": (f, 4), "force": (z, 4)}
    made = {f"uncertainty.{name}": 0.1 * rng.normal(size=shape) for name, shape in tensors.items()}
    made |= {"uncertainty.bands": np.array([f // 2, f], float), "uncertainty.distance_scale": np.array([1.0, 0.0, 2.0])}
    description = {"network": _core.network_hash(file), "head": p.head, "energy_noise": 0.01, "members": 4, "levels": [0.5], "energy_intervals": [0.6],
                   "force_intervals": [0.7], "fitted": {"train": 3}}  # fmt: skip
    _core.write_detectors(file, to, json.dumps(description), made)
    return to


class Data:
    """extxyz files, plain and compressed, and training caches: every frame is read."""

    def __init__(self, folder: Path):
        from dataset_files import tricky_frames, write_crystals

        from adatom.datasets import read, write

        self.folder = folder
        text = write_crystals(folder / "crystals.extxyz", 6).read_bytes()
        import ase.io

        ase.io.write(folder / "tricky.extxyz", tricky_frames(), format="extxyz")
        write(folder / "crystals.cache", read(folder / "crystals.extxyz"))
        self.bases = [("d.extxyz", text), ("d.extxyz", (folder / "tricky.extxyz").read_bytes()), ("d.cache", (folder / "crystals.cache").read_bytes())]

    def damage(self, rng: np.random.Generator) -> tuple[str, bytes]:
        name, raw = self.bases[rng.integers(len(self.bases))]
        if name.endswith(".extxyz") and rng.random() < 0.5:
            raw = _damage_words(raw, rng)
        if name.endswith(".cache") or rng.random() < 0.7:
            raw = damage_bytes(raw, rng)
        if name.endswith(".extxyz") and rng.random() < 0.1:
            return name + ".gz", damage_bytes(gzip.compress(raw, 1), rng) if rng.random() < 0.5 else gzip.compress(raw, 1)
        return name, raw

    def use(self, file: Path, rng: np.random.Generator) -> None:
        from adatom.datasets import examine, read

        for frame in read(file):
            finite = all(v is None or np.isfinite(v).all() for v in (frame.energy, frame.forces, frame.stress, frame.positions, frame.cell))
            if not finite and not frame.defects():
                raise Failure("a frame has a number that is not finite, and no defect")
        if rng.random() < 0.3:
            examine([file])


def _damage_words(raw: bytes, rng: np.random.Generator) -> bytes:
    """Words of a text exchanged for odd ones."""
    words = raw.split(b" ")
    odd = [b"nan", b"inf", b"1e308", b"-1e400", b"99999999999", b"-3", b"0", b"", b"X", b"Cu", b'pbc="T T F"', b'Lattice="0 0 0 0 0 0 0 0 0"', b"Properties=species:S:1",
           b"energy=nan", b"1e-320", b"\xff\xfe", b'"', b"species:S:1:pos:R:3:forces:R:99999999"]  # fmt: skip
    for _ in range(rng.integers(1, 4)):
        words[rng.integers(len(words))] = odd[rng.integers(len(odd))]
    return b" ".join(words)


class Configs:
    """Configurations of training and of active learning: read, and filled in with all defaults."""

    def __init__(self, folder: Path):
        from test_learn_config import document
        from training_runs import as_toml, small_run

        from adatom.training import resolved_config

        self.folder, self.as_toml = folder, as_toml
        run = small_run(folder / "run")
        defaults = resolved_config(run)
        nequip = {**run, "model": {"family": "nequip", "r_max": 4.0, "channels": 16}}
        self.bases = [("train.toml", run), ("train.toml", nequip), ("train.toml", {**run, **{k: defaults[k] for k in ("training", "loss", "optimizer") if k in defaults}}),
                      ("learn.toml", document(folder))]  # fmt: skip

    def damage(self, rng: np.random.Generator) -> tuple[str, bytes]:
        name, tree = self.bases[rng.integers(len(self.bases))]
        if rng.random() < 0.8:
            tree = damage_json(tree, rng)
        text = self.as_toml(_without_null(tree)).encode("utf-8", "surrogatepass") if isinstance(tree, dict) else b"1 = 2"
        return name, damage_bytes(text, rng) if rng.random() < 0.4 else text

    def use(self, file: Path, rng: np.random.Generator) -> None:
        if file.name == "learn.toml":
            from adatom.learn._config import load

            load(file)
            return
        from adatom.training import load_config, resolved_config

        json.dumps(resolved_config(load_config(file)), allow_nan=False)


def _without_null(tree):
    if isinstance(tree, dict):
        return {str(k): _without_null(v) for k, v in tree.items() if v is not None}
    return [_without_null(v) for v in tree if v is not None] if isinstance(tree, list) else tree


class Checkpoints:
    """Checkpoints of a run that has ended: resumed, which reads all of them."""

    def __init__(self, folder: Path):
        from dataset_files import write_crystals
        from training_runs import small_run

        from adatom.training import train

        self.folder = folder
        self.config = small_run(folder / "run")
        self.config["model"] |= {"channels": 4, "radial_mlp": [8], "layers": 1, "l_max": 1}
        self.config["data"] = {"train": [str(write_crystals(folder / "train.extxyz", 4))], "valid": [str(write_crystals(folder / "valid.extxyz", 2, seed=1))]}
        self.config["training"]["epochs"] = 1
        checkpoint = folder / "run/checkpoint.safetensors"
        if not (folder / "made").exists():
            train(self.config, warn=lambda text: None)
            (folder / "made").write_bytes(checkpoint.read_bytes())
        self.raw = (folder / "made").read_bytes()

    def damage(self, rng: np.random.Generator) -> tuple[str, bytes]:
        if rng.random() < 0.2:
            return "run/checkpoint.safetensors", damage_bytes(self.raw, rng)
        parts, way = ModelParts(self.raw), rng.random()
        if way < 0.7:
            provenance = parts.document["provenance"]
            provenance["checkpoint"] = damage_json(provenance["checkpoint"], rng)
            if rng.random() < 0.2:
                parts.document = damage_json(parts.document, rng)
        if way > 0.6:
            parts.damage_tensors(rng)
        return "run/checkpoint.safetensors", parts.bytes(int(rng.choice([2, 3])))

    def use(self, file: Path, rng: np.random.Generator) -> None:
        from adatom.training import train

        model = file.parent / "model.safetensors"
        model.unlink(missing_ok=True)
        # A damaged state may say that there is more to do: one step is enough
        result = train(self.config, resume=True, warn=lambda text: None, progress=lambda epoch, step, steps: False)
        for epoch in result.epochs:
            json.dumps(epoch, allow_nan=False)


KINDS = {"models": Models, "data": Data, "configs": Configs, "checkpoints": Checkpoints}
