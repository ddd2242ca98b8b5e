# SPDX-License-Identifier: MIT
"""Training from end to end, on a sample of 3BPA."""

import copy
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from safetensors.numpy import load_file
from training_runs import DATA, command, tensors

pytest.importorskip("torch", reason="training needs torch")
from adatom import AdatomCalculator, Potential  # noqa: E402
from adatom.training import load_config, train  # noqa: E402


@pytest.mark.parametrize("family", ["mace", "nequip"])
def test_errors_fall_and_the_file_gives_the_reported_ones(config, family):
    if family == "nequip":
        config["model"] = {"family": "nequip", "channels": 16, "l_max": 1, "layers": 2, "r_max": 4.0}
    config["training"]["epochs"] = 12
    result = train(config)
    first, last = result.epochs[0]["valid"], result.epochs[-1]["valid"]
    assert last["force_rmse"] < 0.6 * first["force_rmse"]
    best = [e for e in result.epochs if e["best"]][-1]["valid"]
    # The validation set again, through the calculator
    potential = Potential.load(result.model)
    result_of_file = train({**config, "model": {"file": str(result.model)}, "output": config["output"] + "_again",
                            "optimizer": {"learning_rate": 1e-30}, "training": {"epochs": 1, "batch_size": 5, "ema_decay": 0.0}})
    assert result_of_file.epochs[0]["valid"]["force_rmse"] == pytest.approx(best["force_rmse"], rel=1e-4)
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    assert potential.evaluate(frames[0]).forces.shape == (27, 3)
    calculated = frames[0].copy()
    calculated.calc = AdatomCalculator(result.model)
    assert np.abs(calculated.get_forces() - frames[0].get_forces()).max() < 3.0


def test_a_trained_file_has_the_energies_that_the_trainer_reported(config):
    config["data"].update(valid=config["data"]["train"], valid_fraction=0.0)
    result = train(config)
    best = [e for e in result.epochs if e["best"]][-1]["valid"]
    potential = Potential.load(result.model)
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    results = potential.evaluate(frames)
    energy = np.sqrt(np.mean([(r.energy - f.get_potential_energy()) ** 2 for r, f in zip(results, frames)]))
    force = np.sqrt(np.mean([np.mean((r.forces - f.get_forces()) ** 2) for r, f in zip(results, frames)]))
    assert energy == pytest.approx(best["energy_rmse"], abs=2e-4)
    assert force == pytest.approx(best["force_rmse"], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "schedule_free", "soap"])
def test_optimizers_learn(config, optimizer):
    config["optimizer"] = {"name": optimizer, "learning_rate": 0.01 if optimizer != "schedule_free" else 0.02}
    config["training"]["epochs"] = 6
    if optimizer == "schedule_free":
        config["training"]["ema_decay"] = 0.0
        config["schedule"] = {"type": "constant"}
    result = train(config)
    assert result.epochs[-1]["valid"]["loss"] < 0.5 * result.epochs[0]["valid"]["loss"]


def test_errors_by_element_are_those_of_the_file(config, tmp_path):
    config["data"]["test"] = [str(DATA / "3bpa_sample.extxyz")]
    result = train(config)
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    differences = np.concatenate([r.forces - f.get_forces() for r, f in zip(Potential.load(result.model).evaluate(frames), frames)])
    numbers = np.concatenate([f.numbers for f in frames])
    errors = result.tests["3bpa_sample"]
    assert list(errors["force_rmse_by_element"]) == ["C", "H", "N", "O"]
    for symbol, z in (("H", 1), ("C", 6), ("N", 7), ("O", 8)):
        of_element = differences[numbers == z]
        assert errors["force_rmse_by_element"][symbol] == pytest.approx(np.sqrt(np.mean(of_element**2)), rel=1e-4)
        assert errors["force_mae_by_element"][symbol] == pytest.approx(np.mean(np.abs(of_element)), rel=1e-4)
    assert "stress_rmse" not in errors and "heads" not in errors  # nothing is labelled with a stress
    logged = [json.loads(line) for line in (Path(config["output"]) / "log.jsonl").read_text().splitlines()]
    assert [e["valid"] for e in logged if e["event"] == "epoch"] == [e["valid"] for e in result.epochs]
    assert set(result.epochs[0]["valid"]["force_rmse_by_element"]) == {"C", "H", "N", "O"}


def test_two_runs_are_the_same_bit_for_bit(config, tmp_path):
    train(config)
    other = copy.deepcopy(config)
    other["output"], other["threads"] = str(tmp_path / "other"), 2
    train(other)
    a, b = tensors(config["output"]), tensors(other["output"])
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(config, tmp_path):
    config["training"]["epochs"] = 30
    whole = copy.deepcopy(config)
    whole["output"] = str(tmp_path / "whole")
    train(whole)
    arguments, environment = command(tmp_path / "killed", config)
    chance = random.Random(os.getpid())
    kills = 0
    for _ in range(3):
        process = subprocess.Popen([*arguments, "--resume"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        checkpoint, before = Path(config["output"]) / "checkpoint.safetensors", time.monotonic()
        started = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and time.monotonic() - before < 120:  # let it get somewhere
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns > started:
                break
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills > 0
    subprocess.run([*arguments, "--resume"], env=environment, check=True, stdout=subprocess.DEVNULL)
    a, b = tensors(whole["output"]), tensors(config["output"])
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_weights_do_not_depend_on_the_number_of_processes(config, tmp_path, optimizer):
    config["precision"] = "double"
    config["optimizer"] = {"name": optimizer, "learning_rate": 0.01}
    config["training"].update(epochs=8, batch_size=6)  # 34 configurations: neither batches nor processes divide them
    ends = {}
    for processes in (1, 2, 4):
        run = copy.deepcopy(config)
        run["output"] = str(tmp_path / f"run{processes}")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        workers = []
        for rank in range(processes):
            arguments, environment = command(tmp_path / f"run{processes}", run, RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1",
                                             MASTER_PORT=str(port), OMP_WAIT_POLICY="passive")
            workers.append(subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        for w in workers:
            _, errors = w.communicate(timeout=300)
            assert w.returncode == 0, errors
        assert (Path(run["output"]) / "parity_validation.png").exists()
        events = [e for e in map(json.loads, (Path(run["output"]) / "log.jsonl").read_text().splitlines()) if e["event"] == "epoch"]
        losses = [e["train_loss"] for e in events]
        by_element = [list(e["valid"]["force_rmse_by_element"].values()) for e in events]
        ends[processes] = tensors(run["output"]), np.array(losses), np.array(by_element)
    for processes in (2, 4):
        for name, value in ends[1][0].items():
            assert np.abs(ends[processes][0][name] - value).max() <= 1e-10 * max(np.abs(value).max(), 1e-3), (processes, name)
        for k in (1, 2):
            assert ends[processes][k] == pytest.approx(ends[1][k], rel=1e-10)


def test_frozen_tensors_stay(config, tmp_path):
    first = train(config)
    config["frozen"] = ["layers.0.", "embedding"]
    config["model"] = {"file": str(first.model)}
    config["output"] = str(tmp_path / "tuned")
    tuned = train(config)
    a, b = load_file(first.model), load_file(tuned.model)
    for name in a:
        same = np.array_equal(a[name], b[name])
        if name.startswith(("layers.0.", "embedding")):
            assert np.allclose(a[name], b[name], rtol=1e-14, atol=0), name
        elif name.startswith("layers.1."):
            assert not same, name


def test_parity_samples_are_labels_and_predictions_of_the_file(config):
    from adatom import _training

    config["data"].update(test=[str(DATA / "3bpa_sample.extxyz")])
    trainer = _training.Trainer(json.dumps(config))
    trainer.run()
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":")
    potential = Potential.load(trainer.model_path)
    results = potential.evaluate(frames)
    rows = trainer.parity(0, 10**6)
    assert (rows["configurations"], rows["of"]) == (42, 42)
    assert np.array_equal(rows["numbers"], np.repeat(np.concatenate([f.numbers for f in frames]), 3))
    assert rows["forces"][:, 0] == pytest.approx(np.concatenate([f.get_forces().ravel() for f in frames]), abs=1e-12)
    assert rows["forces"][:, 1] == pytest.approx(np.concatenate([r.forces.ravel() for r in results]), abs=1e-4)
    of_atoms = sum(load_file(trainer.model_path)["atomic_energies"][0][[potential.elements.index(z) for z in frames[0].numbers]])
    assert rows["energies"][:, 0] == pytest.approx([(f.get_potential_energy() - of_atoms) / 27 for f in frames], abs=1e-9)
    assert rows["energies"][:, 1] == pytest.approx([(r.energy - of_atoms) / 27 for r in results], abs=1e-5)
    assert len(rows["stresses"]) == 0
    few = trainer.parity(-1, 60)  # of the 8 for validation only two molecules
    assert (few["configurations"], few["of"], len(few["forces"])) == (2, 8, 2 * 81)


def test_time_left():
    from types import SimpleNamespace

    from adatom.cli.train import time_left

    def task(completed, now, first=(100.0, 2.0)):
        return SimpleNamespace(total=10, completed=completed, fields={"first": first}, get_time=lambda: now)

    assert time_left(0).render(task(4.0, 400.0)).plain == "0:15:00 left"  # 2 epochs in 300 s, 6 more
    assert time_left(500).render(task(4.0, 400.0)).plain == "0:03:20 left"  # the limit ends it
    assert time_left(0).render(task(2.0, 101.0, None)).plain == "-:--:-- left"


def test_the_tables_of_the_command(config, tmp_path):
    config["data"]["test"] = [str(DATA / "3bpa_sample.extxyz")]
    arguments, environment = command(tmp_path / "run", config)
    done = subprocess.run(arguments[:-1], env={**environment, "COLUMNS": "150"}, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    header = next(line for line in lines if line.startswith("epoch"))
    assert re.findall(r"E meV/atom|F meV/A|F [CHNO]\b|S meV/A\^3", header) == ["E meV/atom", "F meV/A", "F C", "F H", "F N", "F O"]
    epochs = [line for line in lines if re.match(r" +\d+ +\d\.\de", line)]
    assert len(epochs) == 4 and all(len(line.split()) - (line.endswith("*")) == 12 for line in epochs)
    assert all(name in done.stdout for name in ("3bpa_sample", "E meV/atom", "F meV/A", "F O"))

    again = subprocess.run([*arguments[:-1], "--resume"], env={**environment, "COLUMNS": "80"}, capture_output=True, text=True, check=True)
    assert "the run had ended before" in again.stdout
    done = subprocess.run(arguments[:-1], env={**environment, "COLUMNS": "80"}, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if re.match(r"epoch| +\d+ +\d\.\de", line)]
    assert len(lines) == 5 and "F O" not in lines[0] and max(map(len, lines)) <= 80


def test_the_command_writes_a_model_a_log_and_pictures(config, tmp_path):
    config["data"]["test"] = [str(DATA / "3bpa_sample.extxyz")]
    arguments, environment = command(tmp_path / "run", config)
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["tests"]["3bpa_sample"]["force_rmse"] > 0
    assert len(document["epochs"]) == 4
    pictures = [tmp_path / "run" / name for name in ("training.png", "parity_validation.png", "parity_3bpa_sample.png")]
    assert document["plots"] == [str(p) for p in pictures]
    assert all(p.stat().st_size > 10000 for p in pictures)
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert events == ["warning", "start"] + 4 * ["epoch"] + ["end"]  # the test file has configurations that are trained on


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimiser": {}}, "unknown key 'optimiser'; known are data, device, frozen, loss"),
        ({"loss": {"force": 1.0}}, "unknown key 'loss.force'"),
        ({"training": {"epochs": 0}}, "'training.epochs' is 0, expected 1 or more"),
        ({"training": {"epochs": 2.5}}, "'training.epochs' is 2.5, expected a whole number"),
        ({"loss": {"shape": "l3"}}, "'loss.shape' is \"l3\", expected one of l2, l1, huber, universal"),
        ({"model": {}}, "family"),
        ({"model": {"file": "x", "channels": 3}}, "'model' has 'file' and options of a new model"),
        ({"data": {"train": []}}, "'data.train' is empty"),
        ({"optimizer": {"name": "sgd"}}, "expected adam, adamw, schedule_free or soap"),
    ],
)
def test_wrong_configurations(config, change, message):
    with pytest.raises((ValueError, RuntimeError)) as error:
        train({**config, **change})
    assert message in str(error.value)


def test_data_that_cannot_be_trained_on(config, tmp_path):
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":6")

    def attempt(message, **changes):
        ase.io.write(tmp_path / "bad.extxyz", frames)
        run = {**config, "data": {**config["data"], "train": [str(tmp_path / "bad.extxyz")], **changes}}
        with pytest.raises((ValueError, RuntimeError)) as error:
            train(run)
        assert message in str(error.value)

    forces = frames[2].calc.results.pop("forces")
    attempt("frame 2")
    frames[2].calc.results["forces"] = forces
    frames[3].positions[0, 0] = np.nan
    attempt("frame 3")
    frames[3].positions[0, 0] = 0.0
    attempt("there is no configuration for validation", valid_fraction=0.0)
    frames[1].numbers[0] = 9
    attempt("there is no atomic energy of F")


def test_checkpoint_of_another_architecture(config):
    train(config)
    config["model"]["channels"] = 32
    with pytest.raises(RuntimeError, match="is of another architecture"):
        train(config, resume=True)


def test_toml_paths_count_from_the_file(tmp_path):
    (tmp_path / "c.toml").write_text('output = "out"\n[data]\ntrain = ["a.extxyz"]\n[model]\nfile = "m.safetensors"\n')
    document = load_config(tmp_path / "c.toml")
    assert document["data"]["train"] == [str(tmp_path / "a.extxyz")]
    assert document["output"] == str(tmp_path / "out")
    (tmp_path / "c.toml").write_text("a = [1, 2")
    with pytest.raises(ValueError, match="is not TOML"):
        load_config(tmp_path / "c.toml")
