# SPDX-License-Identifier: MIT
"""The data of a training run: caches that are larger than memory, hashes, what is refused before training begins."""

import copy
import gzip
import json
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from training_runs import DATA, tensors

pytest.importorskip("torch", reason="training needs torch")
from adatom import datasets  # noqa: E402
from adatom.training import train  # noqa: E402


@pytest.fixture
def cache(tmp_path):
    file = tmp_path / "sample.cache"
    datasets.convert([DATA / "3bpa_sample.extxyz"], file)
    return file


def test_a_cache_gives_the_same_bits_as_the_file_that_it_was_made_of(config, cache, tmp_path):
    config["data"]["test"] = [str(DATA / "3bpa_sample.extxyz")]
    of_file = train(config)
    other = copy.deepcopy(config)
    other["output"] = str(tmp_path / "cached")
    other["data"].update(train=[str(cache)], test=[str(cache)])
    of_cache = train(other)
    a, b = tensors(config["output"]), tensors(other["output"])
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert [e["valid"] for e in of_cache.epochs] == [e["valid"] for e in of_file.epochs]
    assert of_cache.tests["sample"] == of_file.tests["3bpa_sample"]


def test_least_squares_and_scale_are_the_same_from_a_cache(config, tmp_path):
    """Molecules of several sizes, so that the statistics depend on every one of them; with isolated atoms among them."""
    from ase.build import molecule
    from ase.calculators.singlepoint import SinglePointCalculator

    random = np.random.default_rng(1)
    frames = []
    for k in range(30):
        atoms = molecule(["CH4", "H2O", "CO2", "C2H6"][k % 4])
        atoms.rattle(0.05, seed=k)
        atoms.calc = SinglePointCalculator(atoms, energy=-7.0 * len(atoms) + random.normal(), forces=random.normal(size=(len(atoms), 3)))
        frames.append(atoms)
    ase.io.write(tmp_path / "molecules.extxyz", frames)
    datasets.convert([tmp_path / "molecules.extxyz"], tmp_path / "molecules.cache")
    del config["data"]["isolated_atoms"]
    config["training"]["epochs"] = 1
    ends = []
    for name in ("molecules.extxyz", "molecules.cache"):
        config["data"]["train"], config["output"] = [str(tmp_path / name)], str(tmp_path / name) + ".run"
        train(config)
        ends.append(tensors(config["output"]))
    assert np.abs(ends[0]["atomic_energies"]).max() > 1
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


MEASURE = """
import json, resource, sys
from adatom.training import train
result = train(json.loads(sys.argv[1]))
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "loss": result.epochs[0]["valid"]["loss"]}))
"""


def test_memory_does_not_grow_with_a_cache(config, tmp_path):
    """A cache of 200 000 configurations, 230 MB, of which 56 bytes each may be held: peak memory against that of a hundredth of it."""
    random = np.random.default_rng(0)
    numbers = np.full(20, 29)
    corners = 2.6 * np.array([(i % 3, i // 3 % 3, i // 9) for i in range(20)], dtype=float)
    shapes = [(corners + 0.1 * random.normal(size=(20, 3)), random.normal(size=(20, 3))) for _ in range(50)]

    def write(file, n):
        def frames():
            for k in range(n):
                positions, forces = shapes[k % 50]
                yield datasets.Frame(numbers, positions + 1e-9 * k, np.zeros((3, 3)), [False] * 3, energy=-70.0 + 1e-6 * k, forces=forces)

        datasets.write(file, frames())

    write(tmp_path / "small.cache", 2000)
    write(tmp_path / "large.cache", 200_000)
    config["model"].update(channels=4, l_max=1, layers=1)
    config["data"] = {"train": [], "valid": [str(tmp_path / "small.cache")], "atomic_energies": "least_squares"}
    config["training"] = {"epochs": 1, "seconds": 1e-6, "batch_size": 8}  # ends after the first step
    peaks = {}
    for name in ("small", "large"):
        config["data"]["train"], config["output"] = [str(tmp_path / f"{name}.cache")], str(tmp_path / name)
        done = subprocess.run([sys.executable, "-c", MEASURE, json.dumps(config)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks[name] = json.loads(done.stdout.splitlines()[-1])["peak"]
    size = (tmp_path / "large.cache").stat().st_size
    assert size > 200e6
    assert peaks["large"] - peaks["small"] < 0.2 * size, peaks


def test_the_model_says_what_it_was_trained_with(config, adatom_command):
    from adatom import Potential, __version__

    train(config)
    model = Path(config["output"]) / "model.safetensors"
    training = Potential.load(model).provenance["training"]
    assert training["adatom"] == __version__
    assert training["seed"] == 3 and training["epochs"] == 4 and training["steps"] == 4 * 7
    assert training["config"]["model"]["MLP_irreps"] == "16x0e"  # defaults are there too
    assert training["config"]["optimizer"]["beta2"] == 0.999
    assert str(Path(config["output"]).parent) not in json.dumps(training)  # where things lie on this machine
    assert training["config"]["data"]["train"][0].endswith("/3bpa_sample.extxyz") and training["config"]["output"].endswith(f"/{Path(config['output']).name}")
    files = training["data"]
    assert [(f["file"], f["configurations"]) for f in files["train"] + files["valid"]] == [("3bpa_sample.extxyz", 34), ("3bpa_sample.extxyz", 8)]
    assert files["train"][0]["hash"] == files["valid"][0]["hash"] != files["isolated_atoms"][0]["hash"]
    assert training["validation"]["force_rmse"] > 0
    shown = " ".join(adatom_command("info", model).stdout.replace("│", " ").split())  # cells are wrapped
    trained = f"by adatom {__version__}, 4 epochs (28 steps"
    for text in (trained, "seed 3", "3bpa_sample.extxyz: 34 configurations", files["train"][0]["hash"], "validation RMSE", "at most 5 configurations"):
        assert text in shown, shown
    assert adatom_command("info", model, as_json=True)["provenance"]["training"] == training


def test_a_byte_of_a_data_file_changes_its_hash_and_the_run_does_not_go_on_with_it(config, tmp_path):
    from adatom import Potential

    file = tmp_path / "data.extxyz"
    text = (DATA / "3bpa_sample.extxyz").read_text()
    file.write_text(text)
    config["data"]["train"] = [str(file)]
    first = Potential.load(train(config).model).provenance["training"]["data"]["train"][0]["hash"]
    assert first.startswith("xxh64:") and len(first) == 22
    at = text.index("0.3265699")
    file.write_text(text[:at] + "0.3265698" + text[at + 9 :])
    config["training"]["epochs"] = 5
    with pytest.raises(RuntimeError, match=r"is of a run with other data: train was data.extxyz \(34 configurations, xxh64:.*\), now it is"):
        train(config, resume=True)
    other = {**config, "output": str(tmp_path / "other")}
    assert Potential.load(train(other).model).provenance["training"]["data"]["train"][0]["hash"] != first
    file.rename(tmp_path / "renamed.extxyz")  # the bytes count, not the name
    (tmp_path / "renamed.extxyz").write_text(text)
    config["data"]["train"] = [str(tmp_path / "renamed.extxyz")]
    assert len(train(config, resume=True).epochs) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "with other data|'seed' was 3, now it is 4"),
        ({"training": {"batch_size": 6, "epochs": 4}}, "'training.batch_size' was 5, now it is 6"),
        ({"optimizer": {"name": "adamw"}}, "'optimizer.name' was \"adam\", now it is \"adamw\""),
        ({"optimizer": {"learning_rate": 0.02}}, "'optimizer.learning_rate' was 0.01, now it is 0.02"),
        ({"loss": {"energy": 1.0}}, "'loss.energy' was 15.0, now it is 1.0"),
        ({"data": {"valid_fraction": 0.3}}, "is of a run with other data"),
    ],
)
def test_a_run_goes_on_as_it_began(config, change, message):
    train(config)
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    with pytest.raises(RuntimeError, match=message):
        train(config, resume=True)


def test_files_of_other_formats_give_the_same_bits(config, tmp_path):
    """A compressed file, a trajectory and a folder of DeePMD-kit, without a conversion by hand."""
    config["training"]["epochs"] = 1
    train(config)
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    with gzip.open(tmp_path / "sample.extxyz.gz", "wb") as stream:
        stream.write((DATA / "3bpa_sample.extxyz").read_bytes())
    ase.io.write(tmp_path / "sample.traj", frames)
    system = tmp_path / "deepmd" / "set.000"
    system.mkdir(parents=True)
    symbols = sorted(set(frames[0].symbols))
    np.savetxt(system.parent / "type.raw", [symbols.index(s) for s in frames[0].symbols], fmt="%d")
    (system.parent / "type_map.raw").write_text("\n".join(symbols))
    (system.parent / "nopbc").write_text("")
    for name, values in {
        "coord": [atoms.positions.ravel() for atoms in frames],
        "energy": [atoms.calc.results["energy"] for atoms in frames],
        "force": [atoms.calc.results["forces"].ravel() for atoms in frames],
    }.items():
        np.save(system / f"{name}.npy", np.array(values))
    for name in ("sample.extxyz.gz", "sample.traj", "deepmd"):
        other = copy.deepcopy(config)
        other["output"] = str(tmp_path / f"of {name}")
        other["data"]["train"] = [str(tmp_path / name)]
        train(other)
        a, b = tensors(config["output"]), tensors(other["output"])
        assert all(np.array_equal(a[name], b[name]) for name in a)
        assert train(other, resume=True).finished
    (tmp_path / "notes.abc").write_text("Dear diary\n")
    config["data"]["train"] = [str(tmp_path / "notes.abc")]
    with pytest.raises((ValueError, RuntimeError), match="notes.abc: ASE cannot read it .*`adatom data convert --format`"):
        train(config)


def test_isolated_atoms_under_another_key(config, tmp_path):
    """Those of the file have `energy`, the other configurations names of MACE."""
    config["training"]["epochs"] = 1
    del config["data"]["isolated_atoms"]
    atoms = ase.io.read(DATA / "3bpa_isolated_atoms.extxyz", ":")
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":12")
    for a in frames:
        a.info["REF_energy"], a.arrays["REF_forces"] = a.calc.results["energy"], a.calc.results["forces"]
        a.calc = None
    ase.io.write(tmp_path / "t.extxyz", atoms + frames)
    config["data"]["train"] = [str(tmp_path / "t.extxyz")]
    warnings = train(config).warnings
    assert any("the energy stands under several names: 'REF_energy' in 12 frames, first frame 4, 'energy' in 4 frames, first frame 0" in w for w in warnings)
    config["data"]["keys"] = {"energy": "REF_energy", "forces": "REF_forces"}
    warnings = train(config).warnings
    (warning,) = (w for w in warnings if "isolated atoms of the file without an energy" in w)
    assert "t.extxyz: frame 0 (line 1): the first of 4" in warning and "entries Lattice, Properties, REF_energy, config_type, energy, pbc" in warning
    config["data"]["atomic_energies"] = "least_squares"
    assert not any("isolated atoms" in w for w in train(config).warnings)


def test_ions_are_no_isolated_atoms(config, tmp_path):
    config["training"]["epochs"] = 1
    del config["data"]["isolated_atoms"]
    atoms = ase.io.read(DATA / "3bpa_isolated_atoms.extxyz", ":")
    ion = next(a for a in atoms if a.symbols[0] == "C").copy()
    ion.info.update(energy=-1018.2, charge=1, config_type="IsolatedAtom")
    ase.io.write(tmp_path / "t.extxyz", [ion, *atoms, *ase.io.read(DATA / "3bpa_sample.extxyz", ":12")])
    config["data"]["train"] = [str(tmp_path / "t.extxyz")]
    assert any("1 of 17 frames is not neutral (charges up to 1)" in w for w in train(config).warnings)
    model = tensors(config["output"])
    ase.io.write(tmp_path / "t.extxyz", [ion, *[a for a in atoms if a.symbols[0] != "C"], *ase.io.read(DATA / "3bpa_sample.extxyz", ":12")])
    with pytest.raises(ValueError, match=r"no atomic energy of C, since the isolated atom of .*t.extxyz: frame 0 \(line 1\) is an ion"):
        train({**config, "output": config["output"] + "2"})
    assert np.isclose(model["atomic_energies"].ravel(), -1029.489).any() and not np.isclose(model["atomic_energies"].ravel(), -1018.2).any()
