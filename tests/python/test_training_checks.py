# SPDX-License-Identifier: MIT
"""Runs that would go through and be useless: an error or a warning before the first epoch."""

import json
import subprocess

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from training_runs import DATA, command, tensors

pytest.importorskip("torch", reason="training needs torch")
from adatom import Potential  # noqa: E402
from adatom.datasets import convert  # noqa: E402
from adatom.training import resolved_config, train  # noqa: E402

TINY = {"family": "mace", "channels": 4, "max_L": 0, "l_max": 1, "correlation": 1, "layers": 1, "r_max": 3.5, "radial_mlp": [8]}
LEVEL = {"Cu": -50.0, "Ni": 120.0}  # eV, of another code beyond the first one
ATOMS = {symbol: energy + 3.5 for symbol, energy in LEVEL.items()}  # there, of isolated atoms; EMT's energies count from the crystal


def alloys(n, seed=0, head=None, shift=None):
    """Rattled cells of copper and nickel by EMT; `shift`: energies of a level of theory with other atoms."""
    frames = []
    for k in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols[: k % 4] = "Ni"
        atoms.rattle(0.1, seed=seed + k)
        atoms.calc = EMT()
        energy = atoms.get_potential_energy() + sum((shift or {}).get(s, 0.0) for s in atoms.symbols)
        labelled = atoms.copy()
        labelled.calc = SinglePointCalculator(labelled, energy=energy, forces=atoms.get_forces())
        if head:
            labelled.info["head"] = head
        frames.append(labelled)
    return frames


def isolated(energies, head=None):
    frames = []
    for symbol, energy in energies.items():
        atoms = ase.Atoms(symbol, cell=[20, 20, 20], pbc=False, info={"config_type": "IsolatedAtom"})
        if head:
            atoms.info["head"] = head
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
        frames.append(atoms)
    return frames


@pytest.fixture
def tiny(config, tmp_path):
    """A run on files that a test writes by tiny(train=frames, valid=frames, ...)."""

    def make(output="run", **files):
        run = {**config, "model": dict(TINY), "output": str(tmp_path / output), "data": {}, "training": {"epochs": 1, "batch_size": 5}}
        for key, frames in files.items():
            file = tmp_path / f"{output}_{key}.extxyz"
            ase.io.write(file, frames)
            run["data"][key] = str(file) if key == "isolated_atoms" else [str(file)]
        if "valid" not in files:
            run["data"]["valid_fraction"] = 0.2
        return run

    return make


def told(run):
    """Warnings of a run that goes through."""
    texts = []
    result = train(run, warn=texts.append)
    assert texts == result.warnings
    return texts


def refused(run):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        train(run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def energies_of(run, head):
    model = Potential.load(f"{run['output']}/model.safetensors", head=head)
    row = tensors(run["output"])["atomic_energies"][list(model.heads).index(head)]
    return dict(zip((ase.data.chemical_symbols[z] for z in model.elements), row))


# ------------------------------------------------------------------------------------------------ atomic energies of heads
def test_isolated_atoms_are_those_of_their_head(tiny):
    of_default = {"Cu": 3.0, "Ni": 3.75}
    run = tiny(train=[*alloys(16), *alloys(16, 50, "B", LEVEL), *isolated(of_default)])
    assert told(run) == []
    assert energies_of(run, "Default") == pytest.approx(of_default)
    assert energies_of(run, "B") == pytest.approx(LEVEL, abs=1.0)  # least squares, over B alone

    run["data"]["atomic_energies"] = "isolated"
    assert "there is no atomic energy of Ni for the head 'B'" in refused(run)

    run = tiny("named", train=[*alloys(16), *alloys(16, 50, "B", LEVEL), *isolated(of_default), *isolated(ATOMS, "B")])
    assert told(run) == []
    assert energies_of(run, "B") == pytest.approx(ATOMS)


def test_isolated_atoms_without_a_head_are_those_of_the_only_one(tiny):
    run = tiny(train=alloys(16, 0, "B", LEVEL), isolated_atoms=isolated(ATOMS))
    assert told(run) == []
    assert energies_of(run, "B") == pytest.approx(ATOMS)
    run = tiny("two", train=[*alloys(16, 0, "A"), *alloys(16, 50, "B", LEVEL)], isolated_atoms=isolated(LEVEL))
    (text,) = told(run)
    assert "isolated atoms name no head, but all configurations do" in text
    assert energies_of(run, "A") == pytest.approx({"Cu": 0.0, "Ni": 0.0}, abs=1.0)
    run = tiny("other", train=[*alloys(16), *isolated(LEVEL, "B")])
    (text,) = told(run)
    assert "there are isolated atoms of the head 'B', but no configuration of it" in text


def test_an_added_head_gets_atomic_energies_of_its_own_data(tiny):
    base = tiny("base", train=alloys(16))
    base["training"]["epochs"] = 5
    train(base)
    before = energies_of(base, "Default")

    def tuned(output, added=(), **data):
        run = tiny(output, train=[*alloys(20, 50, "B", LEVEL), *added])
        run["model"] = {"file": f"{base['output']}/model.safetensors", "heads": {"B": "Default"}}
        run["data"].update(data)
        return run

    run = tuned("fitted")
    assert told(run) == []
    assert energies_of(run, "Default") == before
    after = energies_of(run, "B")
    assert {s: after[s] - before[s] for s in after} == pytest.approx(LEVEL, abs=0.3)
    result = train(run)
    assert result.begins["B"]["energy_per_atom_rmse"] < 0.1 and abs(result.begins["B"]["energy_per_atom_mean_error"]) < 1e-3
    events = [json.loads(line) for line in open(f"{run['output']}/log.jsonl")]
    assert [e["begins"] for e in events if e["event"] == "start"] == [result.begins]

    run = tuned("isolated", isolated(LEVEL, "B"))
    told(run)
    assert energies_of(run, "B") == pytest.approx(LEVEL)

    run = tuned("kept", atomic_energies="model")
    (text,) = told(run)
    assert "energies of model.safetensors are wrong by" in text and 'data.atomic_energies = "least_squares"' in text
    assert energies_of(run, "B") == before

    config = dict(base, data={**base["data"], "atomic_energies": "model"})
    assert "'data.atomic_energies' is \"model\", but there is no 'model.file'" in refused(config)


def test_data_of_another_level_than_the_model_are_told_of(tiny):
    base = tiny("base", train=alloys(16))
    base["training"]["epochs"] = 5
    train(base)
    notes = []
    run = tiny("naive", train=alloys(20, 50, shift={"Cu": 4.0, "Ni": 4.0}))
    run["model"] = {"file": f"{base['output']}/model.safetensors"}
    result = train(run, warn=lambda text: None, note=notes.append)
    assert len(result.warnings) == 1 and "(mean -39" in result.warnings[0] and "of another level of theory" in result.warnings[0]
    assert len(notes) == 1 and "meV/atom, mean -39" in notes[0]
    assert result.begins["Default"]["energy_per_atom_mean_error"] == pytest.approx(-4.0, abs=0.3)

    run["data"]["atomic_energies"] = "least_squares"  # of what the network leaves
    run["output"] += "_fitted"
    assert told(run) == []
    change = {s: energy - energies_of(base, "Default")[s] for s, energy in energies_of(run, "Default").items()}
    assert change == pytest.approx({"Cu": 4.0, "Ni": 4.0}, abs=0.3)
    same = tiny("same", train=alloys(20, 50))
    same["model"] = {"file": f"{base['output']}/model.safetensors"}
    assert told(same) == []


def test_eval_tells_of_structures_of_another_head(tiny, tmp_path, adatom_command):
    run = tiny(train=[*alloys(12, 0, "A"), *alloys(12, 50, "B", LEVEL)])
    model = train(run, warn=lambda text: None).model
    ase.io.write(tmp_path / "mixed.extxyz", [*alloys(3, 90, "A"), *alloys(2, 95, "B", LEVEL), *alloys(1, 97)])
    done = adatom_command("eval", model, tmp_path / "mixed.extxyz", "--head", "A")
    assert "2 of 6 structures are of the head 'B'" in done.stderr and "--head B compares with them" in done.stderr
    ase.io.write(tmp_path / "own.extxyz", alloys(3, 90, "A"))
    assert adatom_command("eval", model, tmp_path / "own.extxyz", "--head", "A").stderr.strip() == ""


# ------------------------------------------------------------------------------------------------ validation
def test_a_head_that_nothing_validates(tiny):
    (text,) = told(tiny(train=[*alloys(16, 0, "A"), *alloys(4, 50, "B")], valid=alloys(4, 100, "A")))
    assert "no configuration of the head 'B' validates" in text and "Add some to data.valid" in text
    run = tiny("held", train=[*alloys(30, 0, "A"), *alloys(1, 50, "B")])  # the only one of B stays in training
    (text,) = told(run)
    assert "no configuration of the head 'B' validates" in text and "data.valid_fraction" in text
    assert "has the head 'B', which no configuration of data.train has" in refused(tiny("new", train=alloys(8, 0, "A"), valid=alloys(4, 50, "B")))


def test_an_element_that_only_validation_has(tiny):
    frames = alloys(8, 50)
    frames[1].symbols[0] = "Au"
    run = tiny(train=alloys(8), valid=frames)
    for more in ({}, {"atomic_energies": "given", "atomic_energy_of": {"Cu": 0.0, "Ni": 0.0, "Au": 0.0}}):
        run["data"].update(more)
        assert "data.valid has Au, which no configuration of data.train has" in refused(run)
    mixed = [*alloys(12), frames[1]]
    for seed in range(4):  # wherever the lot falls
        run = {**tiny("drawn", train=mixed), "seed": seed}
        run["data"]["valid_fraction"] = 0.5
        assert told(run) == []


def test_labels_that_nothing_validates(tiny):
    frames = alloys(8)
    for atoms in frames:
        atoms.calc.results["stress"] = np.full(6, 0.01)
    run = tiny(train=frames, valid=alloys(4, 50))
    run["loss"] = {"energy": 1.0, "forces": 10.0, "stress": 10.0}
    (text,) = told(run)
    assert "loss.stress is not 0 and data.train has such labels, but none of data.valid has" in text


def test_copies_are_told_of(tiny):
    frames = alloys(12)
    run = tiny(train=frames, valid=[*frames[:3], *alloys(3, 50)], test=frames[5:8])
    texts = told(run)
    assert len(texts) == 2
    assert "3 of 6 configurations of data.valid are in data.train too" in texts[0]
    assert "3 of 3 configurations of data.test" in texts[1] and "are in data.train too" in texts[1]
    (text,) = told(tiny("twice", train=[*frames, *frames[:4]], valid=alloys(4, 50)))
    assert "4 of 16 configurations of data.train are copies of others" in text

    run = tiny("file", train=frames)
    run["data"]["train"] *= 2
    assert f"'data.train' has the same configurations twice: {run['data']['train'][0]} stands there twice" in refused(run)
    run["data"]["train"][1] = run["data"]["train"][0].replace("file_train", "other")
    ase.io.write(run["data"]["train"][1], frames)
    assert "have the same bytes" in refused(run)


# ------------------------------------------------------------------------------------------------ nothing to learn from
def test_nothing_to_learn_from(tiny):
    run = tiny(train=alloys(8))
    run["loss"] = {"energy": 0, "forces": 0}
    assert "'loss.energy', 'loss.forces' and 'loss.stress' are all 0" in refused(run)
    frames = alloys(8)
    for atoms in frames:
        atoms.info["config_weight"] = 0.0
    assert "all configurations of data.train have the weight 0" in refused(tiny(train=frames))
    run = tiny(train=alloys(8))
    run["model"]["r_max"] = 0.5  # nm
    assert "are nearer than the cutoff, r_max = 0.5 angstrom" in refused(run)
    assert "'frozen' has an empty text" in refused({**run, "frozen": [""]})
    run = tiny(train=alloys(8))
    assert "that data.train could change, so that nothing would be trained" in refused({**run, "frozen": ["embedding", "layers."]})


def test_detectors_that_are_lost(config, tmp_path):
    from adatom.uncertainty import fit

    config["training"]["epochs"] = 1
    model = train(config).model
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    fit(model, frames[:30], frames[30:], tmp_path / "calibrated.safetensors")
    config.update(model={"file": str(tmp_path / "calibrated.safetensors")}, output=str(tmp_path / "tuned"))
    (text,) = told(config)
    assert "calibrated.safetensors has detectors of uncertainty" in text and "adatom calibrate" in text


# ------------------------------------------------------------------------------------------------ configurations
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"epochs": 2**32 + 1}}, "'training.epochs' is 4294967297, expected a whole number of at most 2147483647"),
        ({"training": {"batch_atoms": 2**31}}, "'training.batch_atoms' is 2147483648"),
        ({"seed": -1}, "'seed' is -1, expected a whole number from 0"),
        ({"seed": 2**64}, "'seed' is 18446744073709551616, expected a number below 2^64"),
        ({"training": {"precision": "double"}}, "unknown key 'training.precision': 'precision' belongs to the top level"),
        ({"training": {"patience": 5}}, "unknown key 'training.patience': it is training.stop_patience, or schedule.patience"),
        ({"data": {"train": ["x"], "r_max": 5.0}}, "unknown key 'data.r_max': 'r_max' belongs to [model]"),
        ({"epochs": 5}, "unknown key 'epochs': 'epochs' belongs to [training]"),
        ({"model": {"family": "mace", "epochs": 5}}, "unknown key 'model.epochs': 'epochs' belongs to [training]"),
        ({"optimizer": {"learning_rate": float("nan")}}, "'optimizer.learning_rate' is nan, expected a finite number"),
        ({"loss": {"forces": float("inf")}}, "'loss.forces' is inf, expected a finite number"),
        ({"data": {"train": ["x"], "valid": ["y"], "valid_fraction": 0.1}}, "'data.valid_fraction' is given beside 'data.valid'"),
        ({"model": {"family": "mace", "channels": 10**7}}, "model: channels = 10000000: expected a whole number, 1 to 100000"),
        ({"model": {"family": "nequip", "layers": 10**6}}, "model: layers = 1000000: expected a whole number, 1 to 100"),
    ],
)
def test_configurations_that_are_refused(config, change, message):
    with pytest.raises(ValueError) as caught:
        resolved_config({**config, **change})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_that_no_machine_holds(config):
    config["model"] = {"family": "nequip", "channels": 100_000}
    assert "fewer channels" in refused(config)


def test_what_was_resolved_can_be_run(config):
    config["data"]["valid"] = config["data"]["train"]
    config["data"].pop("valid_fraction")
    assert resolved_config(resolved_config(config)) == resolved_config(config)


def test_the_command_names_the_file(config, tmp_path):
    config["training"]["learning_rate"] = 0.1
    arguments, environment = command(tmp_path / "run", config)
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{arguments[4]}: unknown key 'training.learning_rate': 'learning_rate' belongs to [optimizer] or [stage_two]" in done.stderr.replace("\n", " ")


def test_isotopes_are_told_of(config, tmp_path):
    text = (DATA / "3bpa_sample.extxyz").read_text()
    (tmp_path / "heavy.extxyz").write_text(text.replace("\nH ", "\nD ", 1))
    config["data"]["train"] = [str(tmp_path / "heavy.extxyz")]
    assert "'D' is an isotope of hydrogen: write H" in refused(config)


def test_a_checkpoint_is_no_model(config, tmp_path):
    config["training"]["epochs"] = 1
    checkpoint = train(config).model.parent / "checkpoint.safetensors"
    with pytest.raises(RuntimeError, match="checkpoint.safetensors.*: it is the checkpoint of a run of training"):
        Potential.load(checkpoint)
    config.update(model={"file": str(checkpoint)}, output=str(tmp_path / "tuned"))
    assert "checkpoint.safetensors is the checkpoint of a run of training, expected a model" in refused(config)


@pytest.mark.parametrize(
    "table, options, key, because",
    [
        ("loss", {"shape": "l2", "delta": 0.5}, "loss.delta", "loss.shape is l2"),
        ("loss", {"shape": "l1", "delta": 0.01}, "loss.delta", "loss.shape is l1"),
        ("optimizer", {"name": "soap", "amsgrad": True}, "optimizer.amsgrad", "optimizer.name is soap"),
        ("optimizer", {"precondition_every": 3}, "optimizer.precondition_every", "optimizer.name is adam"),
        ("schedule", {"type": "cosine", "patience": 5}, "schedule.patience", "schedule.type is cosine"),
        ("schedule", {"type": "constant", "factor": 0.5}, "schedule.factor", "schedule.type is constant"),
        ("stage_two", {"forces": 10.0}, "stage_two.forces", "stage_two.start is 0, which means no second stage"),
    ],
)
def test_options_that_change_nothing(config, table, options, key, because):
    with pytest.raises(ValueError, match=f"'{key}' has no effect, since {because}"):
        resolved_config({**config, table: options})
    used = {"loss": {"shape": "huber", "delta": 0.5}, "optimizer": {"name": "soap", "precondition_every": 3}, "stage_two": {"start": 2, "forces": 10.0}}
    resolved = resolved_config({**config, **used})
    assert all(resolved[table][key] == value for table in used for key, value in used[table].items())
    assert resolved_config(resolved) == resolved


def test_keys_of_caches(tiny, tmp_path):
    """A cache keeps labels under their meaning; a key beside another file is for that file."""
    run = tiny(train=alloys(12), valid=alloys(4, seed=50))
    convert(run["data"]["train"], tmp_path / "train.cache")
    run["data"].update(train=[str(tmp_path / "train.cache")], keys={"energy": "energy"})
    told(run)
    convert(run["data"]["valid"], tmp_path / "valid.cache")
    run["data"].update(valid=[str(tmp_path / "valid.cache")])
    with pytest.raises(ValueError, match="data.keys.energy means nothing to training caches.*adatom data convert"):
        train(run)
