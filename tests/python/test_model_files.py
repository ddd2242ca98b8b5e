# SPDX-License-Identifier: MIT
"""Model files whose checksum is right and whose contents are not: refused on loading with a message that names file, key and value, or with an error of the
evaluation that names the atom."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from ase import Atoms
from small_model import small_model, write_small_model

from adatom import AdatomCalculator, ModelError, Potential, _core
from adatom.importers import read_model, write_model

ATOMS = Atoms("CO2Cu2", [[0, 0, 0], [1.2, 0.1, 0.2], [0.1, 1.5, 0.3], [2.0, 2.1, 1.9], [3.5, 0.2, 2.7]])
XPLOR = {"type": "xplor", "r_on": 3.5}


def changed(path: str, value) -> tuple[dict, dict]:
    """The small model with another value in its architecture: "layers.0.skip"; None removes a key, callables change the value that there is."""
    tensors, document = copy.deepcopy(small_model())
    *parents, key = [int(k) if k.isdigit() else k for k in path.split(".")]
    at = document["architecture"]
    for k in parents:
        at = at[k]
    if value is None:
        del at[key]
    else:
        at[key] = value
    return tensors, document


def refusal(tmp_path, tensors, document, **options) -> str:
    file = tmp_path / "m.safetensors"
    write_model(file, tensors, document)
    with pytest.raises(ModelError) as error:
        Potential.load(file, threads=1, **options).evaluate(ATOMS)
    assert str(error.value).startswith(f"model file '{file}': ") and len(str(error.value)) < 500
    return str(error.value)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("r_max", 1e300, "'r_max' of architecture is 1e+300, expected a number from 0.1 to 100.0"),
        ("r_max", "4", "'r_max' of architecture is \"4\", expected a number"),
        ("colour", 1, "'colour' of architecture is not used"),
        ("solid_harmonics", 1, "'solid_harmonics' of architecture is 1, expected true or false"),
        ("edge_harmonics", ["0e", "0e"], "'edge_harmonics' of architecture is .*each degree once"),
        ("edge_harmonics", ["0e"], "path 1 of layers.0 has a degree that edge_harmonics lack, 1"),
        ("edge_harmonics", ["0e", "1e"], "path 1 of layers.0 violates the rule of parities: 0e and the edge's give no 1o"),
        ("radial_basis", {"type": "chebyshev", "size": -1}, "'size' of radial_basis is -1, expected a whole number from 1 to 1000"),
        ("radial_basis", {"type": "chebyshev", "size": 10**12}, "'size' of radial_basis is 1000000000000"),
        ("radial_basis", {"type": "chebyshev", "size": 6.5}, "'size' of radial_basis is 6.5"),
        ("radial_basis.type", "sine", "'type' of radial_basis is \"sine\", expected one of bessel, gaussian, chebyshev"),
        ("cutoff_function.p", 0, "'p' of cutoff_function is 0, expected a number from 1.0 to 100.0"),
        ("cutoff_function", {**XPLOR, "r_on": 1e9}, "'r_on' of cutoff_function is 1000000000.0, expected a number from 0.04 to 3.96"),
        ("cutoff_function", {**XPLOR, "r_on": 4.0}, "'r_on' of cutoff_function is 4.0"),
        ("cutoff_function", {**XPLOR, "p": 6}, "'p' of cutoff_function is not used"),
        ("cutoff_function", 3, "'cutoff_function' of architecture is 3, expected an object"),
        ("distance_transform", {"type": "soft", "alpha": -1.0}, "'alpha' of distance_transform is -1.0"),
        ("pair_repulsion.c", [1, 2, 3], "'c' of pair_repulsion is .*a list of 4 to 4 entries"),
        ("pair_repulsion.c", [1, 2, 3, "4"], "'c' of pair_repulsion is .*four numbers"),
        ("layers", [], "'layers' of architecture is .*expected a list of 1 to 100 entries"),
        ("layers.1", 7, "layers.1 is 7, expected an object"),
        ("layers.0.skip", "both", "'skip' of layers.0 is \"both\", expected one of none, message, features"),
        ("layers.0.paths", [], "'paths' of layers.0 is .*expected a list of 1 to"),
        ("layers.0.paths.0", [0, 0], "path 0 of layers.0 is .*expected [entry, degree, \"irrep\""),
        ("layers.0.paths.0", [2**32, 0, "0e"], "entry of irreps_conv of path 0 of layers.0 is 4294967296, expected a whole number from 0 to 0"),
        ("layers.0.paths.0", [0, 2.0, "0e"], "the degree of path 0 of layers.0 is 2.0"),
        ("layers.0.irreps_conv", "0x0e", "'irreps_conv' of layers.0 is \"0x0e\", expected 1 to 1000 irreps with at least one channel"),
        ("layers.0.irreps_conv", "8x0e+8x1o", "irreps_conv of the first layer is 8x0e+8x1o, expected scalars"),
        ("layers.0.irreps_message", "", "'irreps_message' of layers.0 is \"\", expected 1 to 1000 irreps"),
        ("layers.0.irreps_message", "999999x0e", "expected at most as many channels as the file has weights"),
        ("layers.0.irreps_message", "8x9e", "degrees up to 3"),
        ("layers.1.features_in", "8x1o+8x0e", "features_in of layer 1 is 8x1o+8x0e, which is not what the layer before gives"),
        ("layers.0.radial_mlp.layers", 0, "'layers' of layers.0.radial_mlp is 0, expected a whole number from 1 to 100"),
        ("layers.0.radial_mlp.layers", 2**32 + 2, "'layers' of layers.0.radial_mlp is 4294967298"),
        ("layers.0.radial_mlp.layer_norm", True, "tensor 'layers.0.radial_mlp.0.norm_weight' is missing"),
        ("layers.0.radial_mlp.activation", "gelu", "'activation' of layers.0.radial_mlp is \"gelu\""),
        ("layers.1.readout.layers", 0, "'layers' of layers.1.readout is 0"),
        ("layers.0.update", {"type": "contraction", "correlation": 2.9}, "'correlation' of layers.0.update is 2.9, expected a whole number from 1 to 3"),
        ("layers.0.update.gate_irrep", "1o", "'gate_irrep' of layers.0.update is \"1o\", expected 0e or 0o"),
        ("layers.0.update.gate_factor", 1e300, "'gate_factor' of layers.0.update is 1e+300"),
        ("layers.0.update.scalar_factor", {}, "layers.0.update.scalar_factor lacks '0e'"),
        ("layers.0.update.colour", 1, "'colour' of layers.0.update is not used"),
        ("layers.0.update.type", None, "layers.0.update lacks 'type'"),
    ],
)
def test_architecture(tmp_path, path, value, message):
    assert all(part in refusal(tmp_path, *changed(path, value)) for part in message.split(".*"))


def test_contraction_is_checked_before_it_is_computed(tmp_path):
    """A message of many irreps would take minutes; the tensor's shape is looked at first."""
    update = {"type": "contraction", "correlation": 3}
    tensors, document = changed("layers.0.update", update)
    document["architecture"]["layers"][0] |= {"irreps_message": "8x0e+8x1o+8x2e+8x3o+8x0o+8x1e+8x2o+8x3e"}
    tensors |= {"layers.0.contraction.0e.1": np.ones((1, 1, 8)), "layers.0.contraction.0e.2": np.ones((1, 7, 8))}
    tensors |= {"layers.0.linear.0e": np.ones((8, 8))}
    assert "tensor 'layers.0.contraction.0e.2' has shape [1, 7, 8], expected [3, 8, 8] or [1, 8, 8]" in refusal(tmp_path, tensors, document)
    tensors |= {"layers.0.contraction.0e.2": np.ones((1, 8, 8)), "layers.0.contraction.0e.3": np.ones((1, 1, 8))}
    assert "tensor 'layers.0.contraction.0e.3' has shape [1, 1, 8], expected [3, " in refusal(tmp_path, tensors, document)
    document["architecture"]["layers"][0] |= {"irreps_message": "8x0e+8x1o+8x0e"}
    tensors |= {"layers.0.linear.0e": np.ones((8, 16))}
    assert "has an irrep twice, which a contraction cannot take" in refusal(tmp_path, tensors, document)


@pytest.mark.parametrize(
    "name, tensor, message",
    [
        ("radial_basis.frequencies", np.ones(0), "tensor 'radial_basis.frequencies' has shape [0], expected [n] with n from 1"),
        ("embedding", np.ones((3, 0)), "tensor 'embedding' has shape [3, 0]"),
        ("layers.0.radial_mlp.0", np.ones((6, 0)), "tensor 'layers.0.radial_mlp.0' has shape [6, 0]"),
        ("covalent_radii", np.array([0.7, 0.0, 1.3]), "tensor 'covalent_radii' has the value 0.0 at index 1, expected 0.01 to 100 angstrom"),
        ("layers.0.up.0e", np.full((8, 8), 1e39), "tensor 'layers.0.up.0e' has the value 1e+39 at index 0, expected numbers up to 3.403e+38 in single precision"),
        ("layers.0.radial_mlp.1", np.full((16, 16), 1e200), "tensor 'layers.0.radial_mlp.1' has the value 1e+200"),
    ],
)
def test_tensors(tmp_path, name, tensor, message):
    tensors, document = small_model()
    assert message in refusal(tmp_path, {**tensors, name: tensor}, document)


def test_weights_that_only_double_precision_holds(tmp_path):
    tensors, document = small_model()
    tensors["layers.1.linear.0e"] = np.full((16, 8), 1e39)
    assert "or it needs precision float64" in refusal(tmp_path, tensors, document)
    p = Potential.load(tmp_path / "m.safetensors", dtype="float64")
    assert math.isfinite(p.evaluate(ATOMS[:1]).energy)
    # Products of weights that each fit. An element that the first evaluation brings is checked then
    tensors, document = small_model()
    for name in ("layers.0.up.0e", "layers.0.linear.0e"):
        tensors[name] = tensors[name] * 1e25
    assert "the products of embedding, up, radial_mlp, linear and skip of layers.0 reach" in refusal(tmp_path, tensors, document)
    tensors, document = small_model()
    tensors["embedding"] = tensors["embedding"] * np.array([1.0, 1e30, 1.0])[:, None]
    tensors["layers.0.up.0e"] = tensors["layers.0.up.0e"] * 1e15
    write_model(tmp_path / "m.safetensors", tensors, document)
    p = Potential.load(tmp_path / "m.safetensors")
    alone = p.evaluate(Atoms("C")).energy
    for _ in range(2):
        with pytest.raises(RuntimeError, match="m.safetensors': model: the products of embedding"):
            p.evaluate(ATOMS)
    assert p.evaluate(Atoms("C")).energy == alone  # what worked works


def test_results_that_are_not_finite(tmp_path):
    """Weights that fit, whose sums do not; the error names the atom, and ends a relaxation."""
    from adatom.cli import common
    from adatom.cli.relax import relax

    tensors, document = small_model()
    for name in ("layers.0.linear.0e", "layers.1.linear.0e", "layers.1.up.0e"):
        tensors[name] = tensors[name] * 1e20
    file = tmp_path / "m.safetensors"
    write_model(file, tensors, document)
    p = Potential.load(file, threads=1)
    message = r"of atom 0 \(counted from 0\) is not finite: no two atoms are closer than 1.2\d angstrom, so the model's weights are too large"
    with pytest.raises(RuntimeError, match=message):
        p.evaluate(ATOMS)
    with pytest.raises(RuntimeError, match="of atom 0 of structure 1 of the batch"):
        p.evaluate([Atoms("C"), ATOMS])
    with pytest.raises(RuntimeError, match="is not finite"):
        ATOMS.copy().__class__(ATOMS, calculator=AdatomCalculator(p)).get_forces()
    ATOMS.write(tmp_path / "a.xyz")
    with pytest.raises(RuntimeError, match="is not finite"):
        relax(file, tmp_path / "a.xyz", tmp_path / "r.xyz", dtype=common.DType.float32)
    assert not (tmp_path / "r.xyz").exists()


@pytest.mark.parametrize("splines", [True, False])
def test_radial_functions_of_zeros(tmp_path, splines):
    """A model that has not learned anything of distances is a legitimate one: the energy is the same wherever the atoms are."""
    for t in (0, 1):
        tensors, document = small_model()
        document["architecture"]["pair_repulsion"] = None
        del tensors["covalent_radii"]
        tensors[f"layers.{t}.radial_mlp.1"] *= 0.0
        write_model(tmp_path / "m.safetensors", tensors, document)
        p = Potential.load(tmp_path / "m.safetensors", splines=splines, threads=1)
        r = p.evaluate(ATOMS)
        assert np.isfinite(r.forces).all()
        if t == 1:
            apart = ATOMS.copy()
            apart.positions *= 1.1
            assert r.energy == pytest.approx(p.evaluate(apart).energy, abs=1e-4) and np.abs(r.forces).max() < 1e-6


def test_detectors(tmp_path):
    file = write_small_model(tmp_path / "small.safetensors")
    p, rng = Potential.load(file), np.random.default_rng(1)
    z, f = len(p.elements), p.features
    shapes = {"mean": (z, f), "whitening": (z, f, f), "members": (f, 4), "force": (z, 3)}
    good = {f"uncertainty.{name}": 0.1 * rng.normal(size=shape) for name, shape in shapes.items()}
    good |= {"uncertainty.bands": np.array([float(f)]), "uncertainty.distance_scale": np.array([1.0, 0.0, 2.0])}
    description = {"network": _core.network_hash(file), "head": p.head, "energy_noise": 0.01}

    def write(**changes) -> None:
        _core.write_detectors(file, tmp_path / "m.safetensors", json.dumps(description), {**good, **{f"uncertainty.{k}": v for k, v in changes.items()}})

    def refused(message: str, **changes) -> None:
        write(**changes)
        with pytest.raises(ModelError, match=message):
            Potential.load(tmp_path / "m.safetensors", dtype="float64")

    write()
    assert read_model(tmp_path / "m.safetensors")[1]["uncertainty"] == description
    p = Potential.load(tmp_path / "m.safetensors")
    r = p.evaluate(ATOMS, uncertainty=True)
    assert np.isinf(r.force_std[1:3]).all() and np.isfinite(r.force_std[[0, 3, 4]]).all()  # no oxygen in the training set
    refused("m.safetensors': .*bands of components must be whole numbers that increase up to", bands=np.array([1e300]))
    refused("bands of components must end with the last", bands=np.array([1.0]))
    refused("tensor 'uncertainty.extra' is not known", extra=np.ones(3))
    refused("tensor 'uncertainty.members' has the wrong shape", members=np.ones((f, 0)))
    refused("tensor 'uncertainty.whitening' has the wrong shape", whitening=np.ones((z, f, 0)))
    write(force=np.full((z, 3), 1e300))
    with pytest.raises(ModelError, match="tensor 'uncertainty.force' has the value 1e.300"):
        Potential.load(tmp_path / "m.safetensors")
    write(force=np.array([[1e4, 0, 0]] * z))  # of which the standard deviation is the exponential
    p = Potential.load(tmp_path / "m.safetensors")
    with pytest.raises(RuntimeError, match="the standard deviation of the force of atom 0 .*is not finite"):
        p.evaluate(ATOMS[[0, 3, 4]], uncertainty=True)
    assert math.isfinite(p.evaluate(ATOMS).energy)


def test_versions(tmp_path):
    """Older files stay readable; of a new one the hash covers the header."""
    file = write_small_model(tmp_path / "m.safetensors")
    raw = file.read_bytes()
    assert b'"format_version":"3"' in raw[: int.from_bytes(raw[:8], "little")]
    energy = Potential.load(file).evaluate(ATOMS).energy
    tensors, document = read_model(file)
    assert document["sha256"] in raw.decode("latin-1")
    for old, new in ((rb"\"cutoff\": 4.0", rb"\"cutoff\": 4.5"), (rb"\"licence\": \"MIT\"", rb"\"licence\": \"GPL\""), (rb"[6, 8, 29]", rb"[6, 8, 47]")):
        assert raw.count(old) == 1
        file.write_bytes(raw.replace(old, new))
        with pytest.raises(ModelError, match="SHA-256 of its contents is .*the file is damaged"):
            Potential.load(file)
        with pytest.raises(ValueError, match="is damaged"):
            read_model(file)
    older = tmp_path / "older.safetensors"
    older.write_bytes(_version_1(tensors, document))
    assert Potential.load(older).evaluate(ATOMS).energy == energy
    again, of_older = read_model(older)
    assert of_older["elements"] == document["elements"] and set(again) == set(tensors)


def _version_1(tensors: dict, document: dict) -> bytes:
    """As files were written before."""
    import hashlib

    data, header = b"", {}
    for name, t in tensors.items():
        header[name] = {"dtype": "F64", "shape": list(t.shape), "data_offsets": [len(data), len(data) + t.nbytes]}
        data += np.ascontiguousarray(t).tobytes()
    document = {**document, "sha256": hashlib.sha256(data).hexdigest()}
    raw = json.dumps({"__metadata__": {"format": "adatom", "format_version": "1", "adatom": json.dumps(document)}, **header}).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def test_the_fuzzer(tmp_path):
    """A short run of tests/fuzz/fuzz_files.py; a long one is by hand."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
    from fuzz_files import fuzz

    for kind, count in (("models", 200), ("data", 300), ("configs", 200), ("checkpoints", 100)):
        found = fuzz(kind, count, seed=7, keep=tmp_path)
        assert found["failures"] == [] and found["ok"] > 0 and found["refused"] > count / 20
