# SPDX-License-Identifier: MIT
"""The Python class Potential: values against finite differences, shapes, batches, errors, threads."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_model import CUTOFF, ELEMENTS, write_small_model

from adatom import ModelError, Potential


def test_facts_about_the_model(potential):
    assert potential.cutoff == CUTOFF
    assert potential.elements == ELEMENTS
    assert potential.heads == ("default",) and potential.head == "default"
    assert potential.architecture["edge_harmonics"] == ["0e", "1o"]
    assert potential.provenance["licence"] == "MIT"
    assert "Potential" in repr(potential)


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_without_a_device_cuda_is_an_error_that_says_why(tmp_path):
    model = write_small_model(tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="device cuda cannot be used: .*(no CUDA backend|no NVIDIA driver|sees no device)"):
        Potential.load(model, device="cuda")


def test_rounded_linear_maps_are_for_a_device(tmp_path, potential, copper):
    model = write_small_model(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="matmul tf32 and bf16 are for device cuda and float32"):
        Potential.load(model, matmul="tf32")
    with pytest.raises(ValueError, match="matmul"):
        Potential.load(model, matmul="half")
    assert potential.matmul_error(copper) == (0.0, 0.0)


def test_forces_are_the_gradient(potential, copper):
    forces = potential.evaluate(copper).forces
    h, moved = 1e-4, copper.copy()
    for i, x in [(0, 0), (3, 1), (17, 2), (20, 0)]:
        energies = []
        for step in (h, -h):
            moved.positions = copper.positions
            moved.positions[i, x] += step
            energies.append(potential.evaluate(moved).energy)
        assert forces[i, x] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-6)
    assert np.abs(forces).max() > 0.1


def test_stress_is_the_derivative_along_strain(potential, copper):
    result = potential.evaluate(copper, stresses=True)
    h = 1e-5
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for step in (h, -h):
            strain = np.eye(3)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            strained = copper.copy()
            strained.set_cell(copper.cell @ strain, scale_atoms=True)
            energies.append(potential.evaluate(strained).energy)
        derivative = (energies[0] - energies[1]) / (2 * h) / copper.get_volume()
        assert result.stress[voigt] == pytest.approx(derivative, abs=1e-7)
    np.testing.assert_allclose(result.stresses.sum(axis=0), result.stress, atol=1e-12)
    np.testing.assert_allclose(result.virial, result.virial.T, atol=1e-10)
    assert np.abs(result.stress).max() > 1e-4


def test_hessian_vector_is_the_derivative_of_forces(potential, copper):
    v = np.random.default_rng(0).normal(size=(len(copper), 3))
    product = potential.hessian_vector(copper, v)
    h, forces = 1e-4, []
    for step in (h, -h):
        moved = copper.copy()
        moved.positions += step * v
        forces.append(potential.evaluate(moved).forces)
    np.testing.assert_allclose(product, -(forces[0] - forces[1]) / (2 * h), atol=1e-5)


def test_only_what_was_requested(potential, copper):
    n = len(copper)
    everything = potential.evaluate(copper, stresses=True)
    assert everything.energies.shape == (n,) and everything.forces.shape == (n, 3)
    assert everything.stress.shape == (6,) and everything.stresses.shape == (n, 6)
    assert everything.energies.sum() == pytest.approx(everything.energy)
    energy = potential.evaluate(copper, energies=False, forces=False, stress=False)
    assert energy.energy == pytest.approx(everything.energy, abs=1e-9)
    assert energy.energies is energy.forces is energy.stress is energy.stresses is None


def test_no_stress_without_volume(potential, molecule):
    result = potential.evaluate(molecule, stresses=True)
    assert result.stress is None and result.stresses is None
    assert result.forces.shape == (3, 3)


def test_batch_equals_single(potential, copper, molecule):
    moved = copper.copy()
    moved.rattle(0.05, seed=5)
    batch = [copper, molecule, moved]
    results = potential.evaluate(batch)
    assert len(results) == 3
    for atoms, result in zip(batch, results):
        single = potential.evaluate(atoms)
        assert result.energy == pytest.approx(single.energy, abs=1e-9)
        np.testing.assert_allclose(result.forces, single.forces, atol=1e-9)
        np.testing.assert_allclose(result.energies, single.energies, atol=1e-9)
    assert results[1].stress is None and results[2].stress.shape == (6,)
    assert potential.evaluate([]) == []


def test_float32_is_close_to_float64(model_file, potential, copper):
    single = Potential.load(model_file, dtype=np.float32).evaluate(copper)
    double = potential.evaluate(copper)
    assert single.energy == pytest.approx(double.energy, abs=1e-4)
    np.testing.assert_allclose(single.forces, double.forces, atol=1e-4)
    assert not np.array_equal(single.forces, double.forces)


def test_kept_elements(model_file, potential, copper):
    assert Potential.load(model_file, elements="O, Cu").elements == Potential.load(model_file, elements=["Cu", 8]).elements == (8, 29)
    kept = Potential.load(model_file, dtype="float64", splines=False, elements=["Cu", 8])
    assert set(kept.elements) == {29, 8}
    assert kept.evaluate(copper).energy == pytest.approx(potential.evaluate(copper).energy, abs=1e-9)
    with pytest.raises(ValueError, match="Xx"):
        Potential.load(model_file, elements=["Xx"])


def test_heads(tmp_path, copper):
    file = write_small_model(tmp_path / "two.safetensors", heads=("pbe", "r2scan"))
    energies = [Potential.load(file, head=head).evaluate(copper).energy for head in ("pbe", "r2scan")]
    assert abs(energies[0] - energies[1]) > 1
    with pytest.raises(ValueError, match="pbe"):
        Potential.load(file, head="b3lyp")
    with pytest.raises(ValueError, match="pbe"):
        Potential.load(file)


def test_anything_with_the_four_attributes_is_a_structure(potential, copper):
    lists = SimpleNamespace(
        numbers=copper.numbers.tolist(), positions=copper.positions.tolist(), cell=copper.cell.array.tolist(), pbc=[True] * 3
    )
    assert potential.evaluate(lists).energy == potential.evaluate(copper).energy


def test_results_own_their_arrays(potential, copper):
    first = potential.evaluate(copper)
    kept = first.forces.copy()
    moved = copper.copy()
    moved.rattle(0.05, seed=3)
    potential.evaluate(moved)
    assert np.array_equal(first.forces, kept)
    first.forces[:] = 0  # writable, and not the engine's memory
    assert np.array_equal(potential.evaluate(copper).forces, kept)


def test_wrong_input(potential, copper):
    with pytest.raises(TypeError, match="expected an ase.Atoms"):
        potential.evaluate([copper, "Cu"])
    wrong = copper.copy()
    wrong.numbers[5] = 79
    with pytest.raises(ValueError, match="79|Au"):
        potential.evaluate(wrong)
    wrong = copper.copy()
    wrong.positions[7, 1] = np.nan
    with pytest.raises(ValueError, match="7"):
        potential.evaluate(wrong)
    with pytest.raises(ValueError, match=r"\(5, 3\).*\(32, 3\)"):
        potential.hessian_vector(copper, np.zeros((5, 3)))
    crooked = SimpleNamespace(numbers=[29, 29], positions=np.zeros((3, 3)), cell=np.eye(3), pbc=[True] * 3)
    with pytest.raises(ValueError, match=r"positions.*\(3, 3\).*\(2, 3\)"):
        potential.evaluate(crooked)


def test_wrong_options(model_file):
    for options, name in [({"dtype": "float16"}, "dtype"), ({"device": "tpu"}, "device"), ({"threads": 0}, "threads")]:
        with pytest.raises(ValueError, match=name):
            Potential.load(model_file, **options)


def test_broken_files(tmp_path, model_file):
    with pytest.raises(FileNotFoundError, match="missing"):
        Potential.load(tmp_path / "missing.safetensors")
    raw = model_file.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for content in (b"", raw[:5], raw[: len(raw) // 2], raw[:-1] + bytes([raw[-1] ^ 1]), b"PK\x03\x04" + raw[4:]):
        damaged.write_bytes(content)
        with pytest.raises(ModelError, match="damaged.safetensors"):
            Potential.load(damaged)
    assert issubclass(ModelError, RuntimeError)


def test_threads_share_a_potential(potential, copper):
    """Calls of several threads give what single calls give, and the GIL is free meanwhile."""
    structures = [copper.copy() for _ in range(4)]
    for i, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=10 + i)
    expected = [potential.evaluate(atoms).energy for atoms in structures]
    found = [[] for _ in structures]

    def work(i):
        found[i] = [potential.evaluate(structures[i]).energy for _ in range(10)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(structures))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, energies in enumerate(found):
        np.testing.assert_allclose(energies, expected[i], atol=1e-9)


def test_gil_is_released(potential, copper):
    """While one thread evaluates a large structure, another runs Python."""
    large = copper.repeat(4)
    turns, done = 0, threading.Event()

    def work():
        try:
            potential.evaluate(large)
        finally:
            done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.wait(1e-4):
        turns += 1
    worker.join()
    assert turns > 2, "no Python ran during an evaluation of 2048 atoms"


def test_the_class_itself_loads(tmp_path, copper):
    file = write_small_model(tmp_path / "model.safetensors")
    assert Potential(file, dtype="float64").evaluate(copper).energy == Potential.load(str(file), dtype="float64").evaluate(copper).energy
    with pytest.raises(TypeError, match="path of a model file"):
        Potential(3.5)


def test_a_path_from_home(tmp_path, monkeypatch):
    write_small_model(tmp_path / "model.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Potential.load("~/model.safetensors").file == (tmp_path / "model.safetensors").resolve()


def test_a_pickle_is_of_one_model(tmp_path, copper):
    file = write_small_model(tmp_path / "model.safetensors")
    potential = Potential.load(file, dtype="float64", threads=2)
    potential.set_threads(1)
    pickled = pickle.dumps(potential)
    copied = pickle.loads(pickled)
    assert copied.evaluate(copper).energy == potential.evaluate(copper).energy
    assert copied.__reduce__() == potential.__reduce__() and copied.__reduce__()[1][3]["threads"] == 1
    write_small_model(file, seed=1)
    with pytest.raises(ModelError, match="model.safetensors is not the model file that the pickled Potential was made of"):
        pickle.loads(pickled)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        pickle.loads(pickled)


def test_mirror_images(tmp_path, copper):
    """A network without parity says so; one with parity has the same energy for a mirror image."""
    image = copper.copy()
    image.set_cell(-copper.cell.array)
    image.positions *= -1
    potential = Potential.load(write_small_model(tmp_path / "model.safetensors"), dtype="float64", splines=False)
    assert potential.mirror_symmetric and potential.evaluate(image).energy == pytest.approx(potential.evaluate(copper).energy, abs=1e-9)
    chiral = Potential.load(Path(__file__).parents[1] / "reference/data/models/sevennet_solid.safetensors", dtype="float64", splines=False)
    atoms = copper.copy()
    atoms.numbers[:] = chiral.elements[0]
    atoms.rattle(0.1, seed=1)
    image = atoms.copy()
    image.set_cell(-atoms.cell.array)
    image.positions *= -1
    assert not chiral.mirror_symmetric and abs(chiral.evaluate(image).energy - chiral.evaluate(atoms).energy) > 1e-4


@pytest.mark.parametrize("atoms", [None, "CO", 3])
def test_what_is_no_structure(potential, atoms):
    with pytest.raises(TypeError, match="expected an ase.Atoms"):
        potential.evaluate(atoms)


@pytest.mark.parametrize("x", [1e300, -1e12])
def test_huge_coordinates_make_short_messages(potential, copper, x):
    copper.positions[3, 1] = x
    with pytest.raises(ValueError, match="atom 3 .*wrap it into the cell") as error:
        potential.evaluate(copper)
    assert len(str(error.value)) < 200
