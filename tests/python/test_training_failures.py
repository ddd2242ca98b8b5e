# SPDX-License-Identifier: MIT
"""What goes wrong in a run of training: each has its message, before any training time is spent where that is possible."""

import copy
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from training_runs import DATA, command, tensors

pytest.importorskip("torch", reason="training needs torch")
from adatom import datasets  # noqa: E402
from adatom.training import train  # noqa: E402


@pytest.fixture
def frames():
    return ase.io.read(DATA / "3bpa_sample.extxyz", ":12")


def refused(config, error=(ValueError, RuntimeError), **options):
    """The message with which a run refuses to begin, or stops."""
    with pytest.raises(error) as caught:
        train(config, **options)
    return str(caught.value)


def with_frames(config, folder, frames, **data):
    ase.io.write(folder / "data.extxyz", frames)
    return {**config, "data": {**config["data"], "train": [str(folder / "data.extxyz")], **data}}


# ---------------------------------------------------------------------------------------------- device
@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_without_a_device(config):
    assert "device cuda cannot be used: " in refused({**config, "device": "cuda"})
    assert "'device' is \"gpu\", expected one of cpu, cuda" in refused({**config, "device": "gpu"})


# ------------------------------------------------------------------------------------------------ data
@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("energy", "frame 4 (line 117): its energy is nan"),
        ("forces", "frame 4 (line 117): the force on atom 3 is (nan,"),
        ("stress", "frame 4 (line 117): its stress has the component nan"),
        ("positions", "frame 4 (line 117): the position of atom 3 is (nan,"),
    ],
)
def test_labels_that_are_not_numbers(config, tmp_path, frames, label, message):
    if label == "positions":
        frames[4].positions[3, 0] = np.nan
    elif label == "forces":
        frames[4].calc.results["forces"][3, 0] = np.nan
    elif label == "energy":
        frames[4].calc.results["energy"] = np.nan
    else:
        frames[4].pbc, frames[4].cell = True, 20 * np.eye(3)
        frames[4].calc.results["stress"] = np.array([0.1, np.nan, 0, 0, 0, 0])
    assert message in refused(with_frames(config, tmp_path, frames))


def test_missing_labels_are_told_with_those_that_are_there(config, tmp_path, frames):
    for atoms in frames:
        atoms.arrays["my_forces"] = atoms.calc.results.pop("forces")
    text = refused(with_frames(config, tmp_path, frames))
    assert "data.extxyz: frame 0" in text and "it has no forces; give the key it has in the file as data.keys.forces, or set loss.forces = 0" in text
    assert "its columns are my_forces, pos, species" in text
    text = refused(with_frames(config, tmp_path, frames, keys={"forces": "DFT_forces"}))
    assert "the forces key 'DFT_forces' is in none of its 12 frames; columns that are: my_forces, pos, species" in text
    config["training"]["epochs"] = 1
    assert train(with_frames(config, tmp_path, frames, keys={"forces": "my_forces"})).epochs

    for atoms in frames[5:]:
        atoms.calc.results.pop("energy")
    text = refused(with_frames(config, tmp_path, frames, keys={"forces": "my_forces"}))
    assert "frame 5" in text and "it has no energy" in text


def test_missing_labels_in_a_cache(config, tmp_path, frames):
    frames[2].calc.results.pop("forces")
    ase.io.write(tmp_path / "data.extxyz", frames)
    datasets.convert([tmp_path / "data.extxyz"], tmp_path / "data.cache")
    config["data"]["train"] = [str(tmp_path / "data.cache")]
    assert "data.cache: frame 2: it has no forces" in refused(config)


def test_stress_fits_need_periodic_cells_and_stresses(config, tmp_path, frames):
    config["loss"]["stress"] = 10.0
    assert "loss.stress is 10.000000, but no configuration of data.train has a stress" in refused(with_frames(config, tmp_path, frames))
    frames[7].cell, frames[7].pbc = 20 * np.eye(3), (True, True, False)
    frames[7].calc.results["stress"] = np.full(6, 0.01)
    assert "no configuration of data.train has a stress" in refused(with_frames(config, tmp_path, frames))
    config["training"]["epochs"] = 1
    for i in (1, 2, 3, 4):
        frames[i].cell, frames[i].pbc = 20 * np.eye(3), True
        frames[i].calc.results["stress"] = np.full(6, 0.01)
    warning = "frame 7 (line 204): the first of 1 configurations of the file with a stress whose cell is not periodic in all directions"
    assert any(warning in text for text in train(with_frames(config, tmp_path, frames)).warnings)
    frames[7].info["config_stress_weight"] = 0  # then it is no label
    assert not any(warning in text for text in train(with_frames(config, tmp_path, frames)).warnings)
    config["loss"]["stress"] = 0.0  # then nothing asks for it
    assert "stress_rmse" not in train(with_frames(config, tmp_path, frames)).epochs[0]["valid"]


def test_atomic_energies_that_are_missing(config, tmp_path, frames):
    given = {"H": -13.59, "C": -1029.49, "O": -2041.98}
    text = refused(with_frames(config, tmp_path, frames, atomic_energies="given", atomic_energy_of=given))
    assert "there is no atomic energy of N" in text and "give data.atomic_energy_of.N" in text
    text = refused(with_frames(config, tmp_path, frames, atomic_energies="given"))
    assert "'data.atomic_energies' is \"given\", but 'data.atomic_energy_of' is empty" in text
    frames[1].numbers[0] = 9
    assert "there is no atomic energy of F" in refused(with_frames(config, tmp_path, frames))


def test_empty_sets(config, tmp_path, frames):
    assert "there is no configuration for validation: data.valid_fraction is 0.0" in refused(with_frames(config, tmp_path, frames, valid_fraction=0.0))
    assert "there is no configuration for validation" in refused(with_frames(config, tmp_path, frames, valid_fraction=0.01))
    isolated = str(DATA / "3bpa_isolated_atoms.extxyz")
    for key in ("train", "valid", "test"):
        text = refused(with_frames(config, tmp_path, frames, **{key: [isolated], **({"valid_fraction": 0.0} if key == "valid" else {})}))
        assert f"there is no configuration in data.{key} ({isolated}), isolated atoms left out" in text
    assert "there is no data file" in refused(with_frames(config, tmp_path, frames, test=["/nowhere/x.extxyz"]))
    (tmp_path / "empty.extxyz").write_text("")
    assert "empty.extxyz" in refused(with_frames(config, tmp_path, frames, train=[str(tmp_path / "empty.extxyz")]))


def test_tests_are_read_before_training(config, tmp_path, frames):
    ase.io.write(tmp_path / "test.extxyz", frames)
    frames[3].numbers[0] = 9
    ase.io.write(tmp_path / "fluorine.extxyz", frames)
    ase.io.write(tmp_path / "train.extxyz", frames[:3])
    config["data"]["test"] = [str(tmp_path / "fluorine.extxyz")]
    assert "fluorine.extxyz: it has F, which no configuration of data.train or data.valid has" in refused(config)
    assert not (Path(config["output"]) / "model.safetensors").exists()


def test_atoms_on_one_spot_are_told_with_their_file(config, tmp_path, frames):
    frames[6].positions[4] = frames[6].positions[9]
    text = refused(with_frames(config, tmp_path, frames))
    assert "frame 6" in text and "atoms 4 and 9" in text


@pytest.mark.parametrize(
    ("scale", "quantity"),
    [(1 / 27.211386, "energy"), (1000.0, "energy")],
)
def test_energies_in_other_units_are_a_warning(config, tmp_path, scale, quantity):
    frames = ase.io.read(DATA / "3bpa_sample.extxyz", ":") + ase.io.read(DATA / "3bpa_isolated_atoms.extxyz", ":")
    for atoms in frames:
        atoms.calc.results["energy"] *= scale
    run = with_frames(config, tmp_path, frames)
    run["data"].pop("isolated_atoms")
    run["training"]["epochs"] = 1
    with pytest.warns(UserWarning, match=f"the {quantity}.* of data.train may be in") as caught:
        result = train(run)
    assert any("Adatom expects eV and angstrom" in str(w.message) for w in caught)
    events = [json.loads(line) for line in (Path(config["output"]) / "log.jsonl").read_text().splitlines()]
    assert [e["message"] for e in events if e["event"] == "warning"] == result.warnings


def test_no_warning_where_units_are_right(config):
    config["training"]["epochs"] = 1
    assert train(config).warnings == []


# ------------------------------------------------------------------------------------------------ the output folder
def test_an_output_folder_that_cannot_be_written_is_told_first(config, tmp_path):
    (tmp_path / "file").write_text("")
    config["data"]["train"] = ["/nowhere/x.extxyz"]  # is not even looked for
    config["output"] = str(tmp_path / "file" / "run")
    assert f"cannot make the output folder '{tmp_path}/file/run': Not a directory" in refused(config)
    config["output"] = str(tmp_path / "file")
    assert "cannot make the output folder" in refused(config)
    config["output"] = "/proc/self/adatom"
    assert "cannot make the output folder '/proc/self/adatom'" in refused(config)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(config, tmp_path):
    Path(config["output"]).mkdir(mode=0o555)
    assert "Permission denied" in refused(config)


LIMITED = """
import json, resource, sys
from adatom.training import train
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))  # Python ignores the signal, so that write() fails
train(json.loads(sys.argv[1]), resume=True)
"""


def limited(config, limit):
    done = subprocess.run([sys.executable, "-c", LIMITED, json.dumps(config), str(limit)], capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr


def test_a_full_disk_leaves_the_last_checkpoint_whole(config, tmp_path):
    whole = copy.deepcopy(config)
    whole["training"]["epochs"], whole["output"] = 6, str(tmp_path / "whole")
    train(whole)
    config["training"]["epochs"] = 3
    train(config)
    checkpoint = Path(config["output"]) / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    config["training"]["epochs"] = 6
    text = limited(config, len(before) // 2)
    assert f"cannot write '{checkpoint}': File too large after" in text
    assert "nothing was changed: free some space or write to another disk" in text
    assert checkpoint.read_bytes() == before
    assert not list(Path(config["output"]).glob("*.tmp*"))
    train(config, resume=True)
    a, b = tensors(whole["output"]), tensors(config["output"])
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_full_disk_when_the_model_is_written(config):
    """The checkpoint is larger than the model, so a model that finds no place is one on another disk: a link to a folder that is not there."""
    train(config)
    model = Path(config["output"]) / "model.safetensors"
    before = model.read_bytes()
    config["training"]["epochs"] = 5
    (Path(config["output"]) / "checkpoint.safetensors").unlink()
    model.unlink()
    model.mkdir()  # rename() onto a folder fails as late as a full disk does
    assert f"cannot write '{model}'" in refused(config)
    model.rmdir()
    train(config, resume=True)  # nothing was lost
    assert model.stat().st_size > 0.9 * len(before)
    assert len([e for e in map(json.loads, (model.parent / "log.jsonl").read_text().splitlines()) if e["event"] == "epoch"]) == 5


def test_a_full_disk_under_the_log(config, tmp_path):
    whole = copy.deepcopy(config)
    whole["output"] = str(tmp_path / "whole")
    train(whole)
    folder = Path(config["output"])
    stop = lambda epoch: epoch["epoch"] < 2  # noqa: E731
    run = copy.deepcopy(config)
    train(run, report=stop)
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to("/dev/full")
    text = refused(config, resume=True)
    assert f"cannot write '{folder}/log.jsonl': No space left on device; free some space" in text
    (folder / "log.jsonl").unlink()
    train(config, resume=True)
    a, b = tensors(whole["output"]), tensors(config["output"])
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_full_disk_leaves_no_half_of_a_picture(tmp_path):
    import matplotlib.pyplot as plt

    from adatom import _pictures

    file = tmp_path / "training.png"
    _pictures.save(plt.figure(), file, 50)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))  # Python ignores the signal, so that write() fails
    try:
        with pytest.raises(OSError, match=rf"cannot write the picture {file}: File too large; free some space"):
            _pictures.save(plt.figure(), file, 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    with pytest.raises(OSError, match="cannot write the picture .*training.png"):
        _pictures.save(plt.figure(), tmp_path / "nowhere" / "training.png", 50)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_run_with_its_checkpoint_and_nobody_else_works_in_its_folder(config, tmp_path, kind):
    config["training"].update(epochs=10_000, checkpoint_every=10_000)
    arguments, environment = command(tmp_path / "killed", config)
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log, end = Path(config["output"]) / "log.jsonl", time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and '"epoch"' in log.read_text()):
        time.sleep(0.005)
    assert f"another training (process {process.pid}) works in {config['output']}: wait for it, or set 'output' to another folder" in refused(config)
    process.send_signal(kind)
    assert "--resume` goes on" in process.communicate(timeout=60)[1]
    assert process.returncode == 128 + kind
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert events[-1]["event"] == "interrupted" and events[-1]["epoch"] == sum(e["event"] == "epoch" for e in events) + 1
    config["training"].update(epochs=events[-1]["epoch"] + 1)
    whole = copy.deepcopy(config)
    whole["output"] = str(tmp_path / "whole")
    train(whole)
    train(config, resume=True)
    a, b = tensors(whole["output"]), tensors(config["output"])
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not (Path(config["output"]) / "running").exists()


# ------------------------------------------------------------------------------------------------ meeting of processes
def test_the_first_machine_of_a_slurm_job(tmp_path, monkeypatch):
    from adatom.training import _distributed

    monkeypatch.setenv("SLURM_STEP_NODELIST", "r[1-2]n[08-10],m7")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$1 $2 $3" = "show hostnames r[1-2]n[08-10],m7" ] && printf "r1n08\\nr1n09\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert _distributed._first_host() == "r1n08"
    scontrol.write_text("#!/bin/sh\necho Invalid hostlist >&2; exit 1\n")
    with pytest.raises(RuntimeError, match=r"`scontrol show hostnames r\[1-2\].*ended with 1: Invalid hostlist\): set MASTER_ADDR"):
        _distributed._first_host()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))  # as in a container: what is plain is read without it
    for nodes, first in (("n7", "n7"), ("a[03-05,9],b", "a03"), ("a[3,5]-ib", "a3-ib"), ("a,b[1-2]", "a")):
        monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
        assert _distributed._first_host() == first
    monkeypatch.setenv("SLURM_STEP_NODELIST", "r[1-2]n[08-10]")
    with pytest.raises(RuntimeError, match="set MASTER_ADDR"):
        _distributed._first_host()


def test_a_machine_that_is_not_there(config, tmp_path):
    arguments, environment = command(tmp_path / "run", config, RANK="1", WORLD_SIZE="2", MASTER_ADDR="no-such-machine.invalid", MASTER_PORT="23456")
    start = time.monotonic()
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert time.monotonic() - start < 60
    assert done.returncode == 1 and "the machine 'no-such-machine.invalid', where the processes are to meet, cannot be found" in done.stderr.replace("\n", " ")


# ------------------------------------------------------------------------------------------------ checkpoints
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 32}, r"is of another architecture than the configuration: its layers/0/\w+ was .*16x0e.*, now it is .*32x0e"),
        ({"r_max": 4.5}, r"is of another architecture than the configuration: its r_max was 4.0, now it is 4.5"),
        ({"layers": 1}, r"is of another architecture"),
    ],
)
def test_a_checkpoint_of_another_architecture(config, change, message):
    train(config)
    config["model"].update(change)
    with pytest.raises(RuntimeError, match=message):
        train(config, resume=True)


def test_files_that_are_no_checkpoint(config):
    model = train(config).model
    checkpoint = model.parent / "checkpoint.safetensors"
    content = checkpoint.read_bytes()
    shutil.copy(model, checkpoint)
    assert f"{checkpoint} is a model, not a checkpoint of a run" in refused(config, resume=True)
    checkpoint.write_bytes(content[: len(content) // 2])
    assert "checkpoint.safetensors" in refused(config, resume=True)


def test_a_new_run_in_an_old_folder_begins_a_new_log(config):
    train(config)
    train(config)
    events = [json.loads(line)["event"] for line in (Path(config["output"]) / "log.jsonl").read_text().splitlines()]
    assert events == ["start"] + 4 * ["epoch"] + ["end"]


# ------------------------------------------------------------------------------------------------ in the middle of a run
def test_a_gradient_that_is_not_finite_stops_the_run_after_a_checkpoint(config):
    config["optimizer"] = {"name": "adam", "learning_rate": 1e30}
    config["training"]["clip_gradient"] = 0.0
    text = refused(config)
    assert "not finite" in text and f"is in {config['output']}" in text
    assert (Path(config["output"]) / "checkpoint.safetensors").exists()


def test_one_process_that_fails_stops_all_with_its_reason(config, tmp_path):
    """Two processes; the second reads another file under the same name."""
    outputs = []
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    for rank in (0, 1):
        folder = tmp_path / f"machine{rank}"
        folder.mkdir()
        text = (DATA / "3bpa_sample.extxyz").read_text()
        (folder / "data.extxyz").write_text(text if rank == 0 else text.replace("0.3265699", "0.3265698"))
        run = copy.deepcopy(config)
        run["data"]["train"] = [str(folder / "data.extxyz")]
        arguments, environment = command(folder, run, RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_WAIT_POLICY="passive")
        outputs.append(subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    errors = [w.communicate(timeout=120)[1] for w in outputs]
    assert all(w.returncode == 1 for w in outputs), errors
    assert "this process reads other data than process 0" in errors[1]
    assert "process 1 of 2: this process reads other data than process 0" in errors[0].replace("\n", " ")
