# SPDX-License-Identifier: MIT
"""adatom data stats, check, split and convert, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from dataset_files import crystals, shared_file, write_crystals

from adatom import datasets


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write_crystals(tmp_path_factory.mktemp("data") / "t.extxyz", 40)


def test_stats(adatom_command, file, tmp_path):
    document = adatom_command("data", "stats", file, "-o", tmp_path / "t.png", as_json=True)
    structures = ase.io.read(file, ":")
    head = document["heads"][""]
    assert document["frames"] == 40 and document["atoms"] == 160 and document["config_types"] == {"bulk": 20, "strained": 20}
    assert head["elements"]["O"]["atoms"] == 40 and head["elements"]["Cu"]["atoms"] == 120
    forces = np.concatenate([atoms.get_forces() for atoms in structures])
    assert head["force"]["rms"] == pytest.approx(np.sqrt((forces**2).mean()))
    assert head["largest_force"]["max"] == pytest.approx(np.linalg.norm(forces, axis=1).max())
    assert head["energy_per_atom"]["mean"] == pytest.approx(np.mean([atoms.get_potential_energy() / 4 for atoms in structures]))
    assert head["stress"]["min"] == pytest.approx(min(atoms.get_stress().min() for atoms in structures))
    assert document["space_groups"]["frames"] == {"P1 (1)": 40} and document["duplicates"]["count"] == 0
    assert document["sources"][0]["entries"]["traj"] == 40 and "forces" in document["sources"][0]["columns"]
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    text = adatom_command("data", "stats", file).stdout
    assert "40 frames, 160 atoms" in text and "crystals" in text and "least squares" in text


def test_check_of_good_data(adatom_command, file):
    process = adatom_command("data", "check", file)
    assert "fit for training" in process.stdout and "not fit" not in process.stdout
    document = adatom_command("data", "check", file, as_json=True)
    assert document["ok"] is True and {finding["severity"] for finding in document["findings"]} == {"note"}


def bad(file: Path, change) -> Path:
    structures = crystals(20)
    change(structures)
    ase.io.write(file, structures)
    return file


def spoil_energy(structures):
    structures[3].calc.results["energy"] = float("nan")


def lose_forces(structures):
    del structures[3].calc.results["forces"]


def lose_energy(structures):
    del structures[3].calc.results["energy"]


@pytest.mark.parametrize(
    "change, code, words",
    [
        (spoil_energy, "defect", "frame 3: its energy is nan"),
        (lose_forces, "missing-forces", "frame 3"),
        (lose_energy, "missing-energy", "frame 3"),
    ],
)
def test_check_fails_and_says_what_to_do(adatom_command, tmp_path, change, code, words):
    process = adatom_command("data", "check", bad(tmp_path / "t.extxyz", change), check=False)
    assert process.returncode == 1 and code in process.stdout and words in process.stdout and "not fit for training" in process.stdout
    document = json.loads(adatom_command("data", "check", tmp_path / "t.extxyz", "--json", check=False).stdout)
    (finding,) = (finding for finding in document["findings"] if finding["severity"] == "error")
    assert document["ok"] is False and finding["code"] == code and finding["advice"] and finding["frames"]["first"][0]["frame"] == 3


def test_check_without_labels(adatom_command, tmp_path):
    ase.io.write(tmp_path / "t.extxyz", [Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])])
    process = adatom_command("data", "check", tmp_path / "t.extxyz", check=False)
    assert process.returncode == 1 and "no-labels" in process.stdout and "--energy-key" in process.stdout


def test_check_strict(adatom_command, tmp_path):
    """Copies are a warning: only --strict fails for them. The test file's are named."""
    train, test = write_crystals(tmp_path / "train.extxyz", 30), tmp_path / "test.extxyz"
    ase.io.write(test, crystals(2) + crystals(5, seed=100))
    process = adatom_command("data", "check", train, test)
    assert "duplicates-across" in process.stdout and "2 structures stand in several files" in process.stdout
    assert adatom_command("data", "check", train, test, "--strict", check=False).returncode == 1


def test_check_of_files_that_cannot_be_read(adatom_command, tmp_path):
    for name, text, words in (("t.extxyz", "3\n\nH 0 0 0\n", "truncated"), ("t.cache", "AdatomDS", "damaged")):
        (tmp_path / name).write_text(text)
        process = adatom_command("data", "check", tmp_path / name, check=False)
        assert process.returncode == 1 and words in process.stderr and name in process.stderr and "Traceback" not in process.stderr
    process = adatom_command("data", "check", tmp_path / "missing.xyz", check=False)
    assert process.returncode == 1 and "missing.xyz" in process.stderr


def test_split_keeps_everything_and_trajectories(adatom_command, file, tmp_path):
    command = ("data", "split", file, "--train", 0.6, "--valid", 0.2, "--group-by", "group", "--group-key", "traj", "--seed", 3)
    summary = adatom_command(*command, "-o", tmp_path / "a", as_json=True)
    parts = {name: ase.io.read(tmp_path / "a" / f"{name}.extxyz", ":") for name in ("train", "valid", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 25, "valid": 10, "test": 5}
    assert summary["parts"]["train"] == {"asked": 0.6, "frames": 25} and summary["units"] == 8
    runs = [{atoms.info["traj"] for atoms in part} for part in parts.values()]
    assert not (runs[0] & runs[1] or runs[0] & runs[2] or runs[1] & runs[2])
    pieces = [text for name in parts for text in frames_of(tmp_path / "a" / f"{name}.extxyz")]
    assert sorted(pieces) == sorted(frames_of(file))  # byte for byte, all of them
    adatom_command(*command, "-o", tmp_path / "b")
    for name in ("train.extxyz", "valid.extxyz", "test.extxyz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "split.json").read_text())["seed"] == 3


def frames_of(file: Path) -> list[str]:
    lines = file.read_text().splitlines(keepends=True)
    return ["".join(lines[i : i + 6]) for i in range(0, len(lines), 6)]


def test_split_by_blocks_and_config_types_into_caches(adatom_command, file, tmp_path):
    adatom_command("data", "split", file, "-o", tmp_path / "a", "--train", 0.5, "--valid", 0.5, "--group-by", "block", "--block", 10, "--cache")
    cache = datasets.Cache(tmp_path / "a" / "train.cache")
    assert len(cache) == 20 and not (tmp_path / "a" / "test.cache").exists()
    original = [frame.positions.tolist() for frame in datasets.read(file)]
    assert len({original.index(frame.positions.tolist()) // 10 for frame in cache}) == 2
    adatom_command("data", "split", file, "-o", tmp_path / "b", "--train", 0.5, "--valid", 0.5, "--group-by", "config-type")
    assert {frame.config_type for frame in datasets.read(tmp_path / "b" / "train.extxyz")} in ({"bulk"}, {"strained"})


def test_split_of_counts(adatom_command, file, tmp_path):
    summary = adatom_command("data", "split", file, "-o", tmp_path, "--train", 0, "--valid", 7, as_json=True)
    assert {name: part["frames"] for name, part in summary["parts"].items()} == {"train": 33, "valid": 7}


@pytest.mark.parametrize(
    "options, words",
    [
        (("--train", 0.999, "--valid", 0.001), "part 1 of the split is empty"),
        (("--train", 0.5, "--valid", 0.9), "expected shares that add up to 1"),
        (("--group-by", "group"), "no frame has a group to group by"),
        (("--group-by", "group", "--group-key", "run"), "the group key 'run' is in none of its 40 frames"),
    ],
)
def test_split_errors(adatom_command, file, tmp_path, options, words):
    process = adatom_command("data", "split", file, "-o", tmp_path / "out", *options, check=False)
    assert process.returncode == 1 and words in process.stderr and not (tmp_path / "out").exists()


def test_split_keeps_copies_together(adatom_command, tmp_path):
    ase.io.write(tmp_path / "t.extxyz", crystals(20) + crystals(20))
    adatom_command("data", "split", tmp_path / "t.extxyz", "-o", tmp_path / "s", "--train", 0.5, "--valid", 0.5)
    train, valid = ({frame.positions.tobytes() for frame in datasets.read(tmp_path / "s" / f"{name}.extxyz")} for name in ("train", "valid"))
    assert len(train) == len(valid) == 10 and not train & valid


def test_convert(adatom_command, file, tmp_path):
    assert "40 frames" in adatom_command("data", "convert", file, "-o", tmp_path / "t.cache", "--head", "pbe", "--group-key", "traj").stdout
    cache = datasets.Cache(tmp_path / "t.cache")
    assert len(cache) == 40 and cache.heads == ["pbe"] and cache[39].group == "run 7"
    assert cache.provenance["sources"][0]["name"] == str(file) and cache.provenance["keys"] == {"group": "traj"}
    document = adatom_command("data", "stats", tmp_path / "t.cache", as_json=True)
    assert document["heads"]["pbe"]["frames"] == 40 and document["groups"]["count"] == 8


def test_convert_drops_defects_aloud(adatom_command, tmp_path):
    bad(tmp_path / "t.extxyz", spoil_energy)
    process = adatom_command("data", "convert", tmp_path / "t.extxyz", "-o", tmp_path / "t.cache", check=False)
    assert process.returncode == 1 and "frame 3 cannot be used: its energy is nan" in process.stderr and not (tmp_path / "t.cache").exists()
    process = adatom_command("data", "convert", tmp_path / "t.extxyz", "-o", tmp_path / "t.cache", "--drop-defective")
    assert "19 frames" in process.stdout and "left out" in process.stderr and "frame 3: its energy is nan" in process.stderr


def test_a_full_disk_leaves_nothing(adatom_command, file, tmp_path):
    """As far as a test can: a folder that is not there."""
    process = adatom_command("data", "convert", file, "-o", tmp_path / "none" / "t.cache", check=False)
    assert process.returncode == 1 and "check that the folder exists" in process.stderr


def test_real_data(adatom_command):
    """The test files of mlearn hold crystals that symmetry makes the same as training crystals; formate_cu has forces that do not add up to zero."""
    train, test = shared_file("mlearn_Cu/train.extxyz"), shared_file("mlearn_Cu/test.extxyz")
    document = adatom_command("data", "check", train, test, as_json=True)
    (across,) = (finding for finding in document["findings"] if finding["code"] == "near-duplicates-across")
    copies = {frame["frame"] for frame in across["frames"]["first"] if frame["file"] == str(test)}
    assert copies == set(range(18, 31))  # the strained crystals of the group Elastic
    document = adatom_command("data", "check", shared_file("formate_cu/test.extxyz"), as_json=True)
    assert "net-force" in {finding["code"] for finding in document["findings"]}


def test_a_tolerance_of_symmetry_is_positive(adatom_command, tmp_path):
    """Told before anything is read: spglib tries for a quarter of a minute with zero, and ends the process with less."""
    write_crystals(tmp_path / "a.extxyz", 3)
    process = adatom_command("data", "stats", tmp_path / "a.extxyz", "--symmetry-tolerance", 0, check=False)
    assert process.returncode == 1 and "tolerance of space groups is 0 angstrom, expected a positive number" in process.stderr
    for tolerance in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="tolerance of space groups"):
            datasets.examine([tmp_path / "a.extxyz"], symmetry_tolerance=tolerance)
