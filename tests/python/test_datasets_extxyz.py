# SPDX-License-Identifier: MIT
"""extxyz and training caches, with ASE as the oracle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import ase.io
import numpy as np
import pytest
from ase import Atoms
from dataset_files import SHARED, crystals, same, shared_file, tricky_frames, write_crystals

from adatom import datasets


def test_reads_what_ase_writes(tmp_path):
    file = tmp_path / "t.extxyz"
    ase.io.write(file, tricky_frames())
    expected = ase.io.read(file, ":")
    frames = list(datasets.read(file))
    assert len(frames) == len(expected) == 6
    for frame, atoms in zip(frames, expected):
        same(frame, atoms)


@pytest.mark.parametrize("suffix", ["extxyz", "cache"])
def test_ase_reads_what_we_write(tmp_path, suffix):
    ase.io.write(tmp_path / "t.extxyz", tricky_frames())
    frames = list(datasets.read(tmp_path / "t.extxyz"))
    output = tmp_path / f"again.{suffix}"
    assert datasets.write(output, frames) == 6
    if suffix == "extxyz":
        for frame, atoms in zip(frames, ase.io.read(output, ":"), strict=True):
            same(frame, atoms)
    for frame, again in zip(frames, datasets.read(output), strict=True):
        same(again, datasets.frame_to_atoms(frame))


def test_frames_from_and_to_atoms():
    for atoms in tricky_frames():
        frame = datasets.frame_from_atoms(atoms, config_type="a b", group="g", head="pbe")
        same(frame, atoms)
        back = datasets.frame_to_atoms(frame)
        same(frame, back)
        assert back.info == {"config_type": "a b", "group": "g", "head": "pbe"}


def test_free_energy_goes_with_the_forces():
    (atoms,) = crystals(1)
    atoms.calc.results["free_energy"] = -99.0
    assert datasets.frame_from_atoms(atoms).energy == -99.0
    assert datasets.frame_from_atoms(atoms, force_consistent=False).energy == atoms.calc.results["energy"]


def test_other_writers_of_ase(tmp_path):
    """Plain xyz, vec_cell, constraints."""
    atoms = crystals(1)[0]
    ase.io.write(tmp_path / "plain.xyz", atoms, format="xyz")
    ase.io.write(tmp_path / "vec.xyz", atoms, format="extxyz", vec_cell=True)
    for name in ("plain.xyz", "vec.xyz"):
        (frame,) = datasets.read(tmp_path / name)
        same(frame, ase.io.read(tmp_path / name, format="extxyz"))
    np.testing.assert_allclose(next(iter(datasets.read(tmp_path / "vec.xyz"))).cell, np.asarray(atoms.cell), atol=1e-7)


def test_names_of_labels(tmp_path):
    (atoms,) = crystals(1)
    atoms.info["REF_energy"], atoms.info["REF_virial"] = -7.0, -0.5 * atoms.get_volume() * np.eye(3).ravel()
    atoms.arrays["REF_forces"] = np.full((4, 3), 0.25)
    ase.io.write(tmp_path / "t.extxyz", atoms)
    (frame,) = datasets.read(tmp_path / "t.extxyz", energy="REF_energy", forces="REF_forces", virial="REF_virial", stress="", group="traj")
    assert frame.energy == -7.0 and frame.group == "run 0" and (frame.forces == 0.25).all()
    np.testing.assert_allclose(frame.stress, [0.5, 0.5, 0.5, 0, 0, 0], rtol=1e-12)
    with pytest.raises(datasets.DataError, match=r"'DFT_energy' is in none of its 1 frames; entries that are: .*REF_energy"):
        list(datasets.read(tmp_path / "t.extxyz", energy="DFT_energy"))
    with pytest.raises(TypeError, match="no such label: enrgy"):
        datasets.label_keys(enrgy="x")


def test_errors_name_file_frame_and_line(tmp_path):
    file = write_crystals(tmp_path / "t.extxyz", 3)
    lines = file.read_text().splitlines()
    lines[14] = lines[14].replace("Cu", "Qq").replace("O ", "Qq ")
    file.write_text("\n".join(lines))
    with pytest.raises(datasets.DataError, match=r"t\.extxyz: frame 2 \(counted from 0\), line 15: 'Qq' is no chemical symbol"):
        list(datasets.read(file))
    with pytest.raises(FileNotFoundError, match="no data file at .*missing"):
        list(datasets.read(tmp_path / "missing"))
    with pytest.raises(ValueError, match="format = 'xml', expected one of extxyz"):
        list(datasets.read(file, "xml"))


def test_cache_is_a_sequence(tmp_path):
    frames = list(datasets.read(write_crystals(tmp_path / "t.extxyz", 10), group="traj"))
    datasets.write(tmp_path / "t.cache", frames, provenance={"why": "a test"})
    cache = datasets.Cache(tmp_path / "t.cache")
    assert len(cache) == 10 and cache.elements == [8, 29] and cache.config_types == ["strained", "bulk"] and cache.provenance == {"why": "a test"}
    same(cache[-1], datasets.frame_to_atoms(frames[-1]))
    assert cache[7].group == "run 1" and cache.atoms(3) == 4 and len(cache[2:5]) == 3 and len(list(cache)) == 10
    for index in (10, -11):
        with pytest.raises(IndexError):
            cache[index]
    (tmp_path / "cut.cache").write_bytes((tmp_path / "t.cache").read_bytes()[:-100])
    with pytest.raises(datasets.DataError, match="cut.cache.*damaged or was cut"):
        datasets.Cache(tmp_path / "cut.cache")
    with pytest.raises(datasets.DataError, match="it is no training cache"):
        datasets.Cache(tmp_path / "t.extxyz")


def test_defects_do_not_get_into_a_cache(tmp_path):
    frame = datasets.Frame(np.array([1]), np.array([[0.0, 0, np.nan]]), np.zeros((3, 3)), [False] * 3)
    assert frame.defects() == ["the position of atom 0 is (0, 0, nan)"]
    with pytest.raises(datasets.DataError, match="frame 0 .* cannot be trained on: the position of atom 0"):
        datasets.write(tmp_path / "t.cache", [frame])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"forces has 6 values, expected the shape \(1, 3\)"):
        datasets.Frame(np.array([1]), np.zeros((1, 3)), np.zeros((3, 3)), [False] * 3, forces=np.zeros((2, 3)))


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_a_killed_process_leaves_no_temporary_file(tmp_path):
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError:
        pytest.skip("this file system has no files without a name")
    text = """
import os, signal, sys
from adatom import datasets
frame = datasets.Frame([29], [[0, 0, 0]], [[0, 0, 0]] * 3, [False] * 3, energy=-1.0)
writers = [datasets.writing.open_writer(file) for file in sys.argv[1:]]
for writer in writers:
    for _ in range(30000):  # more than is kept in memory
        writer.add(frame)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", text, tmp_path / "t.cache", tmp_path / "t.extxyz"], stderr=subprocess.PIPE)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, b"")
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_file(tmp_path):
    """120 MB of text are read, examined and made into a cache within 60 MB more than importing takes."""
    atoms = Atoms("Cu200", np.random.default_rng(0).uniform(0, 30, (200, 3)), cell=[30] * 3, pbc=True)
    atoms.arrays["forces"] = np.random.default_rng(1).normal(size=(200, 3))
    atoms.info["energy"] = -700.0
    ase.io.write(tmp_path / "one.extxyz", atoms, format="extxyz")
    text = (tmp_path / "one.extxyz").read_bytes()
    with (tmp_path / "t.extxyz").open("wb") as file:
        for _ in range(120_000_000 // len(text)):
            file.write(text)
    program = """
        import resource
        from adatom import datasets
        import ase.io
        list(datasets.read("one.extxyz"))
        datasets.convert(["one.extxyz"], "one.cache")
        datasets.examine(["one.extxyz"])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        frames = datasets.convert(["t.extxyz"], "t.cache")["frames"]
        datasets.examine(["t.cache"], near_duplicates=False, symmetry_frames=1)
        print(frames, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    frames, grown = map(int, process.stdout.split())
    assert frames == 120_000_000 // len(text) and grown < 60


@pytest.mark.parametrize("name", ["3bpa/train", "mlearn_Si/train", "formate_cu/test", "pt_co/test", "water_pbe0ts/test"])
def test_real_files_as_ase_reads_them(name):
    file = shared_file(f"{name}.extxyz")
    count = 0
    for frame, atoms in zip(datasets.read(file), ase.io.iread(file, ":"), strict=True):
        same(frame, atoms)
        assert frame.defects() == []
        count += 1
    assert count > 20


def test_shared_folder_is_found_where_it_is():
    """A folder of data sets that is there but lacks what the tests name would skip them in silence."""
    if SHARED.is_dir():
        assert (SHARED / "3bpa" / "train.extxyz").is_file() and (SHARED / "dft_outputs" / "qe_h2o.out").is_file()
