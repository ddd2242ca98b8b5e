# SPDX-License-Identifier: MIT
"""Ways of training: stages, heads, stresses, fine-tuning, batches, losses; each on tiny models and sets."""

import copy
import json
import socket
import subprocess
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors import safe_open
from safetensors.numpy import load_file
from training_runs import DATA, command, tensors

pytest.importorskip("torch", reason="training needs torch")
from adatom import Potential  # noqa: E402
from adatom.training import train  # noqa: E402

REFERENCE = Path(__file__).parents[1] / "reference" / "data" / "models"


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def crystals(n, seed=0, oxygen=False):
    """Strained, rattled copper crystals of four atoms with energies, forces and stresses of a simple potential (EMT)."""
    frames = []
    random = np.random.default_rng(seed)
    for k in range(n):
        atoms = bulk("Cu", cubic=True)
        if oxygen:
            atoms.numbers[k % 4] = 8
        atoms.set_cell(atoms.cell @ (np.eye(3) + random.normal(scale=0.03, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, seed=seed + k)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def relabelled(frames, head, energy=0.0, forces=1.0):
    """Copies with another head, and labels as of another level of theory."""
    copies = []
    for atoms in frames:
        other = atoms.copy()
        other.info["head"] = head
        other.calc = SinglePointCalculator(other, energy=atoms.get_potential_energy() + energy, forces=forces * atoms.get_forces())
        copies.append(other)
    return copies


def stop_after(steps):
    """A progress callback that ends the run after so many steps."""
    count = iter(range(1, 10**6))
    return lambda *_: next(count) < steps


# ------------------------------------------------------------------------------------------------ stages, stopping
def test_stage_two_changes_weights_and_rate(config):
    config["training"].update(epochs=6, ema_decay=0.0)
    config["schedule"] = {"type": "exponential", "factor": 0.9}
    config["stage_two"] = {"start": 3, "learning_rate": 2e-4, "energy": 500.0, "forces": 20.0}
    epochs = train(config).epochs
    assert [e["learning_rate"] for e in epochs] == pytest.approx([0.01, 0.009, 0.0081, 2e-4, 2e-4, 2e-4])
    for e in epochs:  # the sums of l2 terms follow from the errors
        energy, forces = (15.0, 1000.0) if e["epoch"] <= 3 else (500.0, 20.0)
        v = e["valid"]
        assert v["loss"] == pytest.approx(energy * v["energy_per_atom_rmse"] ** 2 + forces * v["force_rmse"] ** 2, rel=1e-6)
    assert epochs[3]["best"]  # losses of other weights are not compared with


@pytest.mark.parametrize("interrupted_at", [2 * 7 + 3, 3 * 7, 3 * 7 + 2])  # steps: before the second stage, at its start, in its first epoch
def test_stage_two_resumes_with_the_same_bits(config, tmp_path, interrupted_at):
    config["training"].update(epochs=5)
    config["stage_two"] = {"start": 3, "learning_rate": 5e-4, "energy": 500.0, "forces": 20.0}
    whole = copy.deepcopy(config)
    whole["output"] = str(tmp_path / "whole")
    expected = train(whole)
    train(config, progress=stop_after(interrupted_at))
    result = train(config, resume=True)
    assert [e["valid"] for e in result.epochs] == [e["valid"] for e in expected.epochs[(interrupted_at - 1) // 7 :]]
    assert same(tensors(whole["output"]), tensors(config["output"]))


def test_early_stopping(config):
    config["training"].update(epochs=20, stop_patience=3, ema_decay=0.0)
    config["optimizer"] = {"learning_rate": 1e-30}
    config["schedule"] = {"type": "constant"}
    assert [e["best"] for e in train(config).epochs] == [True, False, False, False]
    # Where there is a second stage it begins then, and has its own patience
    config["stage_two"] = {"start": 15, "learning_rate": 1e-30}
    epochs = train(config).epochs
    assert [e["best"] for e in epochs] == 2 * [True, False, False, False]
    assert epochs[4]["valid"]["loss"] != epochs[3]["valid"]["loss"]


def test_last_weights_are_kept(config, tmp_path):
    """Where asked for, though the validation set, whose forces are the wrong way round, likes the first best."""
    ase.io.write(tmp_path / "train.extxyz", crystals(8))
    ase.io.write(tmp_path / "valid.extxyz", relabelled(crystals(4, seed=8), "Default", forces=-1.0))
    config["data"] = {"train": [str(tmp_path / "train.extxyz")], "valid": [str(tmp_path / "valid.extxyz")], "atomic_energies": "least_squares"}
    config["loss"] = {"energy": 0.0, "forces": 100.0}
    config["training"].update(epochs=4, ema_decay=0.0)
    best = train(config)
    weights = tensors(config["output"])
    config["training"]["keep"] = "last"
    last = train(config)
    losses = [e["valid"]["loss"] for e in last.epochs]
    assert losses == [e["valid"]["loss"] for e in best.epochs] and min(losses) < losses[-1]
    assert best.valid["loss"] == min(losses) and last.valid["loss"] == losses[-1]
    assert not same(weights, tensors(config["output"]))


# ------------------------------------------------------------------------------------------------ heads
def test_several_heads_on_one_backbone(config, tmp_path):
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    ase.io.write(tmp_path / "a.extxyz", relabelled(frames[:21], "a"))
    ase.io.write(tmp_path / "b.extxyz", relabelled(frames[21:], "b", energy=40.0, forces=0.5))
    config["data"] = {"train": [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz")], "test": [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz")],
                      "atomic_energies": "least_squares", "valid_fraction": 0.2}
    config["training"]["epochs"] = 15
    result = train(config)
    for head in ("a", "b"):
        first, last = result.epochs[0]["valid"]["heads"][head], result.valid["heads"][head]
        assert last["force_rmse"] < 0.7 * first["force_rmse"], head
        potential = Potential.load(result.model, head=head)
        labelled = ase.io.read(tmp_path / f"{head}.extxyz", ":")
        evaluated = potential.evaluate(labelled)
        energy = np.sqrt(np.mean([((r.energy - f.get_potential_energy()) / 27) ** 2 for r, f in zip(evaluated, labelled)]))
        force = np.sqrt(np.mean([np.mean((r.forces - f.get_forces()) ** 2) for r, f in zip(evaluated, labelled)]))
        assert result.tests[head]["heads"][head]["force_rmse"] == pytest.approx(force, rel=1e-4)
        assert result.tests[head]["heads"][head]["energy_per_atom_rmse"] == pytest.approx(energy, abs=1e-5)
    a, b = (Potential.load(result.model, head=h).evaluate(frames[0]).energy for h in ("a", "b"))
    assert b - a == pytest.approx(40.0, abs=8.0)  # each head has its own atomic energies


def test_heads_that_the_model_does_not_have(config, tmp_path):
    first = train(config)
    ase.io.write(tmp_path / "b.extxyz", relabelled(ase.io.read(DATA / "3bpa_sample.extxyz", ":"), "b"))
    config["data"]["train"], config["model"] = [str(tmp_path / "b.extxyz")], {"file": str(first.model)}
    config["output"] = str(tmp_path / "tuned")
    with pytest.raises(ValueError, match="configurations of head 'b', which the model does not have; it has 'Default'. model.heads adds"):
        train(config)
    config["model"]["heads"] = {"b": "a"}
    with pytest.raises(ValueError, match="'b' begin as 'a', which is no head of the model; it has 'Default'"):
        train(config)
    config["model"]["heads"] = {"Default": "Default"}
    with pytest.raises(ValueError, match="adds 'Default', but the model has this head"):
        train(config)


# ------------------------------------------------------------------------------------------------ stresses
def test_stress_training(config, tmp_path):
    ase.io.write(tmp_path / "train.extxyz", crystals(24))
    ase.io.write(tmp_path / "test.extxyz", crystals(6, seed=100))
    config["data"] = {"train": [str(tmp_path / "train.extxyz")], "test": [str(tmp_path / "test.extxyz")], "valid_fraction": 0.2}
    config["model"].update(channels=8, l_max=1)
    config["loss"] = {"energy": 1.0, "forces": 10.0, "stress": 100.0}
    config["training"].update(epochs=30, batch_size=4)
    result = train(config)
    assert result.valid["stress_rmse"] < 0.4 * result.epochs[0]["valid"]["stress_rmse"]

    frames = ase.io.read(tmp_path / "test.extxyz", ":")
    stresses = np.array([f.get_stress(voigt=False) for f in frames])
    voigt = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    potential = Potential.load(result.model, dtype="float64", splines=False)
    predicted = np.zeros_like(stresses)
    for full, r in zip(predicted, potential.evaluate(frames)):
        for (a, b), value in zip(voigt, r.stress):
            full[a, b] = full[b, a] = value
    assert result.tests["test"]["stress_rmse"] == pytest.approx(np.sqrt(np.mean((predicted - stresses) ** 2)), rel=1e-3)
    # and they are derivatives of the energies: sigma = dE/d(strain) / V
    h = 1e-4
    for k, (a, b) in enumerate(voigt):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            strained = frames[0].copy()
            strained.set_cell(frames[0].cell @ strain, scale_atoms=True)
            energies.append(potential.evaluate(strained).energy)
        slope = (energies[0] - energies[1]) / (2 * h) / frames[0].get_volume()
        assert slope == pytest.approx(predicted[0][a, b], abs=1e-6), k


# ------------------------------------------------------------------------------------------------ fine-tuning
@pytest.mark.parametrize("optimizer", ["adam", "schedule_free", "soap"])
def test_fine_tuning_with_frozen_parts_leaves_them_as_they_are(config, tmp_path, optimizer):
    """A model of six elements that was imported from mace-torch, on data with two of them."""
    reference = REFERENCE / "mace_small.safetensors"
    ase.io.write(tmp_path / "train.extxyz", crystals(20, oxygen=True))
    config["data"] = {"train": [str(tmp_path / "train.extxyz")], "atomic_energies": "least_squares", "valid_fraction": 0.2}
    config["model"] = {"file": str(reference)}
    config["frozen"] = ["embedding", "layers.0.", "layers.1.radial_mlp"]
    config["optimizer"] = {"name": optimizer, "weight_decay": 1e-3, "learning_rate": 0.003}
    config["training"].update(epochs=8, batch_size=4, ema_decay=0.9)
    if optimizer == "schedule_free":
        config["training"]["ema_decay"] = 0.0
        config["schedule"] = {"type": "constant"}
    result = train(config)
    assert result.valid["loss"] < 0.8 * result.epochs[0]["valid"]["loss"]
    before, after = load_file(reference), load_file(result.model)
    elements = Potential.load(result.model).elements
    moved = 0
    for name in before:
        if name.startswith(tuple(config["frozen"])) or name in ("scale", "shift"):
            assert np.array_equal(before[name], after[name]), name
        elif name == "atomic_energies":
            kept = [k for k, z in enumerate(elements) if z not in (8, 29)]
            assert np.array_equal(before[name][:, kept], after[name][:, kept])
            assert not np.array_equal(before[name], after[name])
        else:
            moved += not np.array_equal(before[name], after[name])
            if ".contraction." in name or ".skip." in name:  # what the data have nothing of
                for k, z in enumerate(elements):
                    if z not in (8, 29):
                        assert np.array_equal(before[name][k], after[name][k]), (name, z)
    assert moved > 3
    assert Potential.load(result.model).provenance["training"]["data"]["model"][0]["file"] == "mace_small.safetensors"


@pytest.mark.parametrize("reference", ["mace_small", "mace_no_gate", "mace_density", "sevennet_bias", "sevennet_modal", "sevennet_modal_bias"])
def test_an_added_head_begins_as_a_copy(config, tmp_path, reference):
    file = REFERENCE / f"{reference}.safetensors"
    with safe_open(file, "numpy") as tensors_of_file:
        heads = json.loads(tensors_of_file.metadata()["adatom"])["heads"]
    frames = crystals(6, oxygen=True)
    ase.io.write(tmp_path / "train.extxyz", relabelled(frames, "new"))
    config["data"] = {"train": [str(tmp_path / "train.extxyz")], "valid_fraction": 0.5, "atomic_energies": "model"}
    config["model"] = {"file": str(file), "heads": {"new": heads[-1]}}
    config.update(optimizer={"learning_rate": 1e-30, "weight_decay": 0.0}, schedule={"type": "constant"}, training={"epochs": 1, "ema_decay": 0.0})
    model = train(config).model

    def energy(path, head):
        return Potential.load(path, dtype="float64", splines=False, head=head).evaluate(frames[0]).energy

    before = energy(file, heads[-1])
    assert energy(model, "new") == pytest.approx(before, abs=1e-9)
    for head in heads:
        assert energy(model, head) == pytest.approx(energy(file, head), abs=1e-9)


def test_fine_tuning_with_replay_keeps_what_was_known(config, tmp_path):
    """Data of another level of theory: alone it drives out the old one; on a head of its own, beside the old data, it does not."""
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    ase.io.write(tmp_path / "old.extxyz", relabelled(frames[:30], "Default"))
    ase.io.write(tmp_path / "new.extxyz", relabelled(frames[:20], "new", energy=10.0, forces=0.6))
    ase.io.write(tmp_path / "naive.extxyz", relabelled(frames[:20], "Default", energy=10.0, forces=0.6))
    ase.io.write(tmp_path / "old_test.extxyz", relabelled(frames[30:], "Default"))
    config["data"] = {"train": [str(tmp_path / "old.extxyz")], "valid_fraction": 0.2, "test": [str(tmp_path / "old_test.extxyz")]}
    config["training"]["epochs"] = 25
    base = train(config)
    known = base.tests["old_test"]["force_rmse"]

    tune = copy.deepcopy(config)
    tune["training"]["epochs"] = 15
    tune["model"] = {"file": str(base.model), "heads": {"new": "Default"}}
    tune["output"] = str(tmp_path / "replay")
    tune["data"]["train"] = [str(tmp_path / "old.extxyz"), str(tmp_path / "new.extxyz")]
    replay = train(tune)
    tune["model"].pop("heads")
    tune["output"] = str(tmp_path / "naive")
    tune["data"]["train"] = [str(tmp_path / "naive.extxyz")]
    naive = train(tune)
    assert replay.tests["old_test"]["force_rmse"] < 1.1 * known
    assert naive.tests["old_test"]["force_rmse"] > 1.3 * known
    heads = [e["valid"]["heads"]["new"]["force_rmse"] for e in replay.epochs]
    assert min(heads) < 0.8 * heads[0]
    assert Potential.load(replay.model, head="new").heads == ("Default", "new")


def test_a_fine_tuned_model_remembers_what_it_came_from(config, tmp_path):
    first = train(config)
    config.update(model={"file": str(first.model)}, output=str(tmp_path / "tuned"), seed=4)
    training = Potential.load(train(config).model).provenance["training"]
    assert (training["seed"], training["from"]["seed"]) == (4, 3)
    assert training["data"]["model"][0]["hash"].startswith("xxh64:")


# ------------------------------------------------------------------------------------------------ batches
def mixed(folder):
    """Configurations of 4 to 27 atoms."""
    frames = []
    for k, atoms in enumerate(ase.io.read(DATA / "3bpa_sample.extxyz", ":16")):
        for n in (27, 4 + k):
            part = atoms[:n]
            part.calc = SinglePointCalculator(part, energy=-20.0 * part.numbers.sum() + 0.1 * k, forces=atoms.get_forces()[:n])
            frames.append(part)
    ase.io.write(folder / "mixed.extxyz", frames)
    return frames


@pytest.mark.parametrize(("limits", "steps"), [({"batch_size": 4}, 9), ({"batch_atoms": 54}, 17), ({"batch_atoms": 1}, 34), ({"batch_edges": 10**6}, 1),
                                               ({"batch_atoms": 10**6, "batch_size": 5}, 7)])
def test_limits_of_batches(config, limits, steps):
    config["training"] = {"epochs": 1, **limits}
    seen = []
    train(config, progress=lambda epoch, step, all_steps: seen.append((epoch, step, all_steps)) or True)
    assert seen == [(1, k + 1, steps) for k in range(steps)]


def test_a_limit_on_atoms_fills_batches(config, tmp_path):
    """Batches are greedy: no two neighbours could have been one."""
    frames = mixed(tmp_path)
    config["data"].update(train=[str(tmp_path / "mixed.extxyz")], valid=[str(DATA / "3bpa_sample.extxyz")], valid_fraction=0.0, atomic_energies="least_squares")
    steps = {}
    for limit in (30, 60, 120):
        config["training"] = {"epochs": 1, "batch_atoms": limit}
        train(config, progress=lambda epoch, step, all_steps: steps.update({limit: all_steps}) or True)  # noqa: B023
    atoms = sum(len(f) for f in frames)
    for limit, n in steps.items():
        assert atoms / limit <= n <= 2 * atoms / limit + 1, (limit, n)
    assert steps[30] > steps[60] > steps[120]


@pytest.mark.parametrize("limits", [{"batch_atoms": 90}, {"batch_edges": 700}])
def test_batches_by_size_resume_with_the_same_bits_on_any_number_of_processes(config, tmp_path, limits):
    mixed(tmp_path)
    config["precision"] = "double"
    config["data"].update(train=[str(tmp_path / "mixed.extxyz")], atomic_energies="least_squares")
    config["training"] = {"epochs": 4, **limits}
    expected = train({**config, "output": str(tmp_path / "whole")})
    assert len({e["train_loss"] for e in expected.epochs}) == 4
    train(config, progress=stop_after(11))
    train(config, resume=True)
    whole = tensors(tmp_path / "whole")
    assert same(whole, tensors(config["output"]))

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    workers = []
    for rank in (0, 1):
        arguments, environment = command(tmp_path / "two", {**config, "output": str(tmp_path / "two")}, RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                                         MASTER_PORT=str(port), OMP_WAIT_POLICY="passive")
        workers.append(subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for w in workers:
        _, errors = w.communicate(timeout=300)
        assert w.returncode == 0, errors
    for name, value in tensors(tmp_path / "two").items():
        assert np.abs(whole[name] - value).max() <= 1e-10 * max(np.abs(value).max(), 1e-3), name


def test_no_limit_is_refused(config):
    config["training"]["batch_size"] = 0
    with pytest.raises(ValueError, match="'training.batch_size' is 0, expected 1 or more where there is neither 'training.batch_atoms' nor"):
        train(config)


# ------------------------------------------------------------------------------------------------ schedules
def test_a_cosine_follows_the_clock_where_it_ends_first(config):
    """Of 100,000 epochs two seconds are done, in which the rate falls as over all of them; epochs that end first have the rates of a run without a clock."""
    config["model"].update(channels=4, layers=1)
    config["schedule"] = {"type": "cosine"}
    config["training"].update(epochs=100_000, seconds=2.0)
    rates = [e["learning_rate"] for e in train(config).epochs]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-3
    assert any(2e-3 < rate < 8e-3 for rate in rates)
    config["training"].update(epochs=4, seconds=1000.0)
    assert [e["learning_rate"] for e in train(config).epochs] == pytest.approx([0.01 * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)], rel=1e-3)


# ------------------------------------------------------------------------------------------------ losses
@pytest.mark.parametrize("shape", ["l1", "huber", "universal"])
def test_losses_are_those_of_the_predictions(config, tmp_path, shape):
    """Forces on both sides of the bounds at which the universal loss (arXiv 2401.00096) turns linear earlier: 100, 200, 300 eV/angstrom."""
    from adatom import _training

    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    for atoms, size in zip(frames[:4], (90.0, 150.0, 250.0, 350.0)):
        atoms.calc.results["forces"][0] = [0.6 * size, 0.0, 0.8 * size]
    ase.io.write(tmp_path / "data.extxyz", frames)
    config["data"].update(train=[str(tmp_path / "data.extxyz")], valid=[str(tmp_path / "data.extxyz")], valid_fraction=0.0)
    config["loss"] = {"shape": shape, "energy": 2.0, "forces": 3.0, **({"delta": 0.5} if shape in ("huber", "universal") else {})}
    config["training"].update(epochs=3)
    trainer = _training.Trainer(json.dumps(config))
    trainer.run()
    errors, rows = json.loads(trainer.kept_errors), trainer.parity(-1, 10**6)
    x, forces = rows["energies"][:, 1] - rows["energies"][:, 0], rows["forces"].reshape(-1, 3, 2)
    y = forces[..., 1] - forces[..., 0]

    def huber(x, delta):
        return np.where(np.abs(x) < delta, 0.5 * x**2, delta * (np.abs(x) - 0.5 * delta))

    if shape == "l1":
        expected = 2.0 * np.abs(x).mean() + 3.0 * np.abs(y).mean()
    else:
        size = np.linalg.norm(forces[..., 0], axis=1)
        factor = np.select([size < 100, size < 200, size < 300], [1.0, 0.7, 0.4], 0.1) if shape == "universal" else np.ones(len(size))
        assert shape == "huber" or set(factor) == {1.0, 0.7, 0.4, 0.1}
        expected = 2.0 * huber(x, 0.5).mean() + 3.0 * huber(y, 0.5 * factor[:, None]).mean()
    assert errors["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", ["l1", "huber", "universal"])
def test_losses_learn(config, shape):
    config["loss"] = {"shape": shape, "energy": 1.0, "forces": 100.0}
    config["training"]["epochs"] = 8
    epochs = train(config).epochs
    assert epochs[-1]["valid"]["force_mae"] < 0.8 * epochs[0]["valid"]["force_mae"]
