# SPDX-License-Identifier: MIT
"""One set of rules for keys, energies, heads and charges, whatever the format and whoever reads: adatom.datasets, `adatom data`, `adatom eval`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import warnings
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from dataset_files import crystals, same, shared_file, write_crystals

from adatom import datasets
from adatom.cli.labelled import structure

PACKERS = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


def packed(file: Path, suffix: str = "gz") -> Path:
    target = file.with_name(f"{file.name}.{suffix}")
    with file.open("rb") as source, PACKERS[suffix](target, "wb") as stream:
        shutil.copyfileobj(source, stream)
    return target


def two_theories(n: int = 4) -> list[Atoms]:
    """Crystals with a second set of labels, a head, a configuration type, a group and weights."""
    structures = crystals(n)
    for i, atoms in enumerate(structures):
        atoms.info.update(REF_energy=-7.0 - i, head="pbe" if i % 2 else "scan", group=f"run {i}", config_energy_weight=0.5, REF_stress=np.diag([0.1, 0.2, 0.3]))
        atoms.arrays["REF_forces"] = np.full((4, 3), 0.25 * i)
    return structures


def assert_alike(frames, others) -> None:
    for frame, other in zip(frames, others, strict=True):
        same(frame, datasets.frame_to_atoms(other))
        assert (frame.config_type, frame.group, frame.head, frame.weights) == (other.config_type, other.group, other.head, other.weights)


def written(tmp_path: Path, structures: list[Atoms], suffix: str) -> Path:
    file = tmp_path / f"t.{suffix}"
    if suffix == "db":
        with ase.db.connect(file) as database:
            for atoms in structures:
                pairs = {name: value for name, value in atoms.info.items() if np.ndim(value) == 0}
                data = {"REF_stress": atoms.info["REF_stress"], "REF_forces": atoms.arrays["REF_forces"]}
                database.write(atoms, key_value_pairs=pairs, data=data)
        return file
    ase.io.write(tmp_path / "t.extxyz" if suffix in PACKERS else file, structures)
    return packed(tmp_path / "t.extxyz", suffix) if suffix in PACKERS else file


@pytest.mark.parametrize("suffix", [*PACKERS, "traj", "db"])
@pytest.mark.parametrize("keys", [{}, {"energy": "REF_energy", "forces": "REF_forces", "stress": "REF_stress"}, {"energy": "", "group": "traj"}])
def test_keys_mean_the_same_in_every_format(tmp_path, suffix, keys):
    structures = two_theories()
    ase.io.write(tmp_path / "plain.extxyz", structures)
    if suffix == "traj":  # in which ASE keeps `info`, but no arrays of other names
        keys = {label: key for label, key in keys.items() if label != "forces"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = list(datasets.read(tmp_path / "plain.extxyz", **keys))
        file = written(tmp_path, structures, suffix)
        frames = list(datasets.read(file, **keys))
    assert expected[2].energy == (-9.0 if "stress" in keys else None if keys else structures[2].calc.results["energy"])
    assert [frame.head for frame in expected] == ["scan", "pbe"] * 2 and expected[0].weights == [1, 0.5, 1, 1]
    if suffix == "db":  # whose rows have the cell to the last bit, and text files 8 digits of positions
        for frame, other in zip(frames, expected, strict=True):
            assert frame.energy == pytest.approx(other.energy) and (frame.head, frame.group) == (other.head, other.group)
            np.testing.assert_allclose(frame.forces, other.forces, atol=1e-7)
            np.testing.assert_allclose(frame.stress, other.stress, atol=1e-7)
    elif suffix == "traj":
        for frame, atoms in zip(frames, structures, strict=True):
            np.testing.assert_array_equal(frame.positions, atoms.positions)
            np.testing.assert_array_equal(frame.forces, atoms.calc.results["forces"])
            np.testing.assert_array_equal(frame.stress, [0.1, 0.2, 0.3, 0, 0, 0] if "stress" in keys else atoms.calc.results["stress"])
            assert (frame.head, frame.group) == (atoms.info["head"], atoms.info["traj" if "group" in keys else "group"])
    else:
        assert_alike(frames, expected)
    with pytest.raises(datasets.DataError, match=r"the energy key 'E' is in none of its 4 frames; entries that are: .*REF_energy"):
        list(datasets.read(file, energy="E"))


def test_keys_that_no_file_uses(tmp_path):
    text, cache = write_crystals(tmp_path / "t.extxyz", 5), tmp_path / "t.cache"
    datasets.convert([text], cache)
    uses = (
        lambda **keys: list(datasets.read(cache, **keys)),
        lambda **keys: datasets.examine([cache], **keys),
        lambda **keys: datasets.convert([cache], tmp_path / "u.extxyz", **keys),
        lambda **keys: datasets.split([cache], tmp_path / "parts", {"train": 0.8, "valid": 0.2}, **keys),
    )
    for use in uses:
        with pytest.raises(ValueError, match=r"t\.cache: the group key 'traj' means nothing to a training cache, .* give it to `adatom data convert`"):
            use(group="traj")
    assert not (tmp_path / "u.extxyz").exists() and not (tmp_path / "parts").exists()
    assert len(list(datasets.read(cache))) == 5
    assert datasets.examine([cache, text], group="traj").data["groups"]["count"] == 2  # of the other file


def test_compressed_files_that_are_damaged(tmp_path):
    file = packed(write_crystals(tmp_path / "t.extxyz", 40))
    assert datasets.detect_format(file) == "extxyz"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(datasets.DataError, match=r"t\.extxyz\.gz: it cannot be unpacked"):
        list(datasets.read(file))
    datasets.write(tmp_path / "t.cache", datasets.read(tmp_path / "t.extxyz"))
    with pytest.raises(datasets.DataError, match=r"t\.cache\.gz: it is a compressed training cache: unpack it"):
        datasets.detect_format(packed(tmp_path / "t.cache"))
    lines = (tmp_path / "t.extxyz").read_text().splitlines()
    (tmp_path / "bad.extxyz").write_text("\n".join([*lines[:14], "Qq 0 0 0", *lines[15:]]))
    with pytest.raises(datasets.DataError, match=r"bad\.extxyz\.gz: frame 2 \(counted from 0\), line 15: "):
        list(datasets.read(packed(tmp_path / "bad.extxyz")))


def test_splits_of_compressed_files(tmp_path):
    file = write_crystals(tmp_path / "t.extxyz", 20)
    plain = datasets.split([file], tmp_path / "a", {"train": 0.8, "valid": 0.2})
    assert datasets.split([packed(file)], tmp_path / "b", {"train": 0.8, "valid": 0.2})["parts"] == plain["parts"]
    for name in ("train", "valid"):
        assert (tmp_path / "a" / f"{name}.extxyz").read_bytes() == (tmp_path / "b" / f"{name}.extxyz").read_bytes()


def test_compressed_outputs_that_did_not_converge(tmp_path):
    text = shared_file("dft_outputs/qe_h2o.out").read_text()
    file = tmp_path / "pw.out"
    file.write_text(text.replace("convergence has been achieved in  17 iterations", "convergence NOT achieved after  17 iterations"))
    assert datasets.detect_format(packed(file)) == "espresso"
    with pytest.warns(UserWarning, match=r"pw\.out\.gz: 1 of 1 frames are left out"), pytest.raises(datasets.DataError, match="nothing"):
        datasets.convert([packed(file)], tmp_path / "a.extxyz")
    (frame,), (plain,) = datasets.read(packed(file), keep_unconverged=True), datasets.read(file, keep_unconverged=True)
    assert frame.energy == plain.energy


def test_one_energy_of_a_calculation_with_smearing(tmp_path):
    """As ASE writes it in both formats."""
    (atoms,) = crystals(1)
    atoms.calc.results["free_energy"] = atoms.calc.results["energy"] - 1.0
    for suffix in ("traj", "extxyz"):
        ase.io.write(tmp_path / f"t.{suffix}", atoms)
        with pytest.warns(UserWarning, match=rf"t\.{suffix}: 'free_energy' is read, and 'energy' beside it differs in 1 frame, by up to 0.25 eV/atom"):
            (frame,) = datasets.read(tmp_path / f"t.{suffix}")
        assert frame.energy == pytest.approx(atoms.calc.results["free_energy"], abs=1e-12)
        for options in ({"force_consistent": False}, {"energy": "energy"}):
            (frame,) = datasets.read(tmp_path / f"t.{suffix}", **options)
            assert frame.energy == pytest.approx(atoms.calc.results["energy"], abs=1e-12)


def test_what_is_read_and_what_is_not_is_said(tmp_path):
    structures = crystals(3)
    for atoms in structures:
        atoms.arrays["dft_forces"] = -atoms.calc.results["forces"]
    ase.io.write(tmp_path / "t.extxyz", structures)
    findings = {finding.code: finding for finding in datasets.examine([tmp_path / "t.extxyz"]).findings}
    assert findings["labels-differ"].severity == "warning" and "'dft_forces' beside it differs in 3 frames" in findings["labels-differ"].message
    assert findings["labels-not-read"].severity == "note" and findings["labels-not-read"].message.startswith(str(tmp_path / "t.extxyz"))
    with pytest.warns(UserWarning, match="'dft_forces' beside it differs"):
        datasets.convert([tmp_path / "t.extxyz"], tmp_path / "a.extxyz")
    for atoms in structures:
        atoms.info["E_tot"] = atoms.calc.results.pop("energy")
        atoms.calc.results.pop("forces")
    ase.io.write(tmp_path / "t.extxyz", structures)
    findings = {finding.code: finding for finding in datasets.examine([tmp_path / "t.extxyz"]).findings}
    assert findings["label-names-mixed"].severity == "warning" and "forces from 'dft_forces'" in findings["label-names-mixed"].message
    assert "Its comment lines have the entries E_tot, Lattice" in findings["missing-energy"].advice


def test_ions_give_no_atomic_energies(tmp_path):
    file = tmp_path / "t.extxyz"
    ion = Atoms("Cu", info={"energy": 11.0, "charge": 1, "config_type": "IsolatedAtom"})
    atom = Atoms("Cu", info={"energy": -1.0, "charge": 0, "spin": 2, "config_type": "IsolatedAtom"})
    ase.io.write(file, [ion, atom, *crystals(3)])
    with pytest.warns(UserWarning, match="1 of 5 frames is not neutral .* 1 of them is an isolated ion"):
        datasets.convert([file], tmp_path / "t.cache")
    for source in (file, tmp_path / "t.cache"):
        frames = datasets.examine([source]).data["heads"][""]["atomic_energies"]["elements"]
        assert frames["Cu"] == {"energy": -1.0, "origin": "isolated atom"}


def test_stresses_of_weight_zero_are_no_labels(tmp_path):
    (atoms,) = crystals(1)
    atoms.pbc = [True, True, False]
    atoms.info["config_stress_weight"] = 0
    ase.io.write(tmp_path / "t.extxyz", atoms)
    (frame,) = datasets.read(tmp_path / "t.extxyz")
    assert frame.stress is not None and frame.weights[3] == 0 and "stress" not in structure(frame).calc.results
    assert not {finding.code for finding in datasets.examine([tmp_path / "t.extxyz"]).findings} & {"stress-not-periodic"}


def test_coordinates_out_of_this_world(adatom_command, tmp_path):
    (atoms,) = crystals(1)
    atoms.positions[2, 1] = 1e308
    ase.io.write(tmp_path / "t.traj", atoms)
    (tmp_path / "far.extxyz").write_text('2\nLattice="4 0 0 0 4 0 0 0 4" energy=-1 pbc="T T T"\nH 0 0 0\nH 0 1e308 0.8\n')
    for name in ("t.traj", "far.extxyz"):
        text = adatom_command("data", "stats", tmp_path / name).stdout
        assert "defects" in text and "1e+308" in text


def test_isolated_atoms_without_their_energy_are_named(tmp_path):
    structures = two_theories(3)
    ase.io.write(tmp_path / "t.extxyz", [Atoms("Cu", info={"energy": -1.0, "config_type": "IsolatedAtom"}), *structures])
    report = datasets.examine([tmp_path / "t.extxyz"], energy="REF_energy", forces="REF_forces")
    (finding,) = (finding for finding in report.findings if finding.code == "missing-energy")
    assert "1 of them is an isolated atom" in finding.message and "entries Lattice" in finding.advice and "energy" in finding.advice


@pytest.mark.filterwarnings("ignore")
def test_eval_reads_what_the_others_read(adatom_command, model_file, tmp_path):
    """Columns and entries under other names, virials, caches, folders, compressed files, trajectories."""
    structures = crystals(4)
    for atoms in structures:
        results, volume = atoms.calc.results, atoms.get_volume()
        atoms.calc = None
        atoms.info.update(REF_energy=results["energy"], virial=-volume * np.array(results["stress"])[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3))
        atoms.arrays["force"] = results["forces"]
    ase.io.write(tmp_path / "t.extxyz", structures)
    datasets.convert([tmp_path / "t.extxyz"], tmp_path / "t.cache")
    for atoms in structures:  # in a trajectory ASE keeps `info`, but no arrays of other names
        atoms.calc = SinglePointCalculator(atoms, forces=atoms.arrays.pop("force"))
    ase.io.write(tmp_path / "t.traj", structures)
    process = adatom_command("eval", model_file, tmp_path / "t.extxyz")
    assert "labels are read under names of different kinds: energy from 'REF_energy'" in " ".join(process.stderr.split())
    errors = [row for row in adatom_command("eval", model_file, tmp_path / "t.extxyz", as_json=True)["errors"]]
    assert {row["quantity"]: row["values"] for row in errors if row["element"] is None} == {"energy": 4, "forces": 48, "stress": 24}
    for name in ("t.cache", "t.traj", packed(tmp_path / "t.extxyz").name):
        for row, other in zip(adatom_command("eval", model_file, tmp_path / name, as_json=True)["errors"], errors, strict=True):
            assert row["quantity"] == other["quantity"] and row["rmse"] == pytest.approx(other["rmse"], rel=1e-6)
    process = adatom_command("eval", model_file, tmp_path / "t.extxyz", "--energy-key", "E", check=False)
    assert process.returncode == 1 and "the energy key 'E' is in none of its 4 frames" in " ".join(process.stderr.split())
    process = adatom_command("eval", model_file, tmp_path / "t.extxyz", "--index", "7", check=False)
    assert process.returncode == 1 and "--index 7: expected a number below 4" in " ".join(process.stderr.split())
    assert adatom_command("eval", model_file, tmp_path / "t.extxyz", "--index", "1:3", as_json=True)["structures"] == 2


def test_texts_that_are_no_utf8(adatom_command, tmp_path):
    text = '1\nenergy=-1 config_type=Gr\xfc\xdfe\nH 0 0 0\n'
    file = tmp_path / "t.extxyz"
    file.write_bytes(text.encode("latin1"))
    (frame,) = datasets.read(file)
    assert frame.config_type == "Gr\xfc\xdfe"
    adatom_command("data", "convert", file, "-o", tmp_path / "t.cache")
    assert datasets.Cache(tmp_path / "t.cache")[0].config_type == "Gr\xfc\xdfe"
    file.write_bytes(text.replace("H 0", "H\xfc 0").encode("latin1"))
    process = adatom_command("data", "check", file, check=False)
    assert process.returncode == 1 and "'H\xfc' is no chemical symbol" in process.stderr and "Traceback" not in process.stderr


def test_unknown_files_name_what_is_known(tmp_path):
    (tmp_path / "notes.abc").write_text("Dear diary\n")
    with pytest.raises(datasets.DataError, match=r"notes\.abc: ASE cannot read it as ase .* expected one of extxyz, .*`adatom data convert --format`"):
        list(datasets.read(tmp_path / "notes.abc"))
