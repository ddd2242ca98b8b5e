# SPDX-License-Identifier: MIT
"""The ASE calculator: what ASE expects of one."""

from __future__ import annotations

import copy
import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet

from adatom import AdatomCalculator, Potential


@pytest.fixture
def calculator(model_file):
    return AdatomCalculator(model_file, dtype="float64")


def test_properties(calculator, potential, copper):
    copper.calc = calculator
    n = len(copper)
    reference = Potential.evaluate(calculator.potential, copper, stresses=True)
    assert copper.get_potential_energy() == reference.energy
    assert copper.get_potential_energy(force_consistent=True) == reference.energy
    np.testing.assert_array_equal(copper.get_forces(), reference.forces)
    np.testing.assert_array_equal(copper.get_potential_energies(), reference.energies)
    np.testing.assert_array_equal(copper.get_stress(), reference.stress)
    assert copper.get_stresses().shape == (n, 6)
    np.testing.assert_allclose(copper.get_stresses().sum(axis=0), copper.get_stress(), atol=1e-10)


def test_results_follow_the_atoms(calculator, copper):
    copper.calc = calculator
    energies = [copper.get_potential_energy()]
    copper.positions[0] += 0.1
    energies.append(copper.get_potential_energy())
    copper.numbers[1] = 6
    energies.append(copper.get_potential_energy())
    copper.set_cell(copper.cell * 1.01, scale_atoms=True)
    energies.append(copper.get_potential_energy())
    copper.pbc = [True, True, False]
    energies.append(copper.get_potential_energy())
    del copper[0]
    energies.append(copper.get_potential_energy())
    assert len(set(energies)) == len(energies)
    fresh = AdatomCalculator(calculator.potential)
    copper.calc = fresh
    assert copper.get_potential_energy() == pytest.approx(energies[-1], abs=1e-9)


def test_unchanged_atoms_are_not_evaluated_again(calculator, copper, monkeypatch):
    calls = []
    evaluate = calculator.potential.evaluate
    monkeypatch.setattr(calculator.potential, "evaluate", lambda *a, **k: calls.append(1) or evaluate(*a, **k))
    copper.calc = calculator
    copper.get_forces()
    copper.get_potential_energy()
    copper.get_stress()
    copper.set_initial_magnetic_moments(np.ones(len(copper)))  # the model does not know of moments
    copper.get_forces()
    assert len(calls) == 1


def test_stress_of_a_molecule(calculator, molecule):
    molecule.calc = calculator
    molecule.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="volume"):
        molecule.get_stress()


def test_energy_is_conserved(calculator, copper):
    copper.calc = calculator
    temperature = 300 * units.kB
    thermal = np.random.default_rng(0).normal(size=(len(copper), 3))
    copper.set_momenta(thermal * np.sqrt(copper.get_masses() * temperature)[:, None])
    dynamics = VelocityVerlet(copper, 1.0 * units.fs)
    total, kinetic = [], []
    dynamics.attach(lambda: (total.append(copper.get_total_energy()), kinetic.append(copper.get_kinetic_energy())))
    dynamics.run(100)
    assert np.ptp(kinetic) > 0.1
    assert np.ptp(total) < 0.01 * np.ptp(kinetic)


def test_a_loaded_potential_serves(potential, copper):
    copper.calc = AdatomCalculator(potential)
    assert copper.calc.potential is potential
    assert np.isfinite(copper.get_potential_energy())


def test_options_reach_the_model(model_file):
    with pytest.raises(ValueError, match="dtype"):
        AdatomCalculator(model_file, dtype="float8")
    with pytest.raises(ValueError, match="head"):
        AdatomCalculator(model_file, head="b3lyp")
    with pytest.raises(TypeError):
        AdatomCalculator(model_file, cutoff=5.0)  # an option that does not exist is not swallowed


def test_copies(model_file, copper):
    """Scripts copy atoms with their calculator, and send them to other processes."""
    atoms = copper.copy()
    atoms.calc = AdatomCalculator(model_file, dtype="float64")
    energy = atoms.get_potential_energy()
    for other in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        other.positions += 0.01
        other.positions -= 0.01
        other.calc.reset()
        assert other.get_potential_energy() == pytest.approx(energy, abs=1e-12)


@pytest.fixture(scope="module")
def metals():
    """A model that has detectors of uncertainty."""
    return Path(__file__).parents[2] / "models" / "metals" / "model.safetensors"


@pytest.fixture
def detected(metals):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = AdatomCalculator(metals)
    return atoms


def test_ase_knows_what_detectors_add(detected):
    detected.get_potential_energy()
    result = detected.calc.potential.evaluate(detected, uncertainty=True)
    copy_of_results = SinglePointCalculator(detected, **detected.calc.results)
    for calculator in (detected.calc, copy_of_results):
        assert calculator.get_property("energy_std", detected) == result.energy_std > 0
        np.testing.assert_array_equal(calculator.get_property("force_std", detected), result.force_std)
        np.testing.assert_array_equal(calculator.get_property("feature_distances", detected), result.distances)
    properties = detected.get_properties(["energy", "member_energies"])
    np.testing.assert_array_equal(properties["member_energies"], result.member_energies)
    assert set(detected.calc.export_properties()) >= {"energy", "energy_std", "force_std", "feature_distances"}
    detected.calc = AdatomCalculator(detected.calc.potential, uncertainty=False)
    with pytest.raises(PropertyNotImplementedError):
        detected.calc.get_property("energy_std", detected)


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "json"])
def test_files_of_ase_hold_what_detectors_add(detected, tmp_path, suffix):
    detected.get_potential_energy()
    ase.io.write(tmp_path / f"a.{suffix}", detected)
    results = ase.io.read(tmp_path / f"a.{suffix}").calc.results
    for name in ("energy", "energy_std", "member_energies", "force_std", "feature_distances"):
        np.testing.assert_allclose(results[name], detected.calc.results[name], atol=2e-8)


def test_databases_tell_which_model_made_a_row(calculator, model_file, copper, tmp_path):
    copper.calc = calculator
    copper.get_potential_energy()
    database = ase.db.connect(tmp_path / "rows.db")
    database.write(copper)
    row = database.get(id=1)
    assert row.calculator == "adatom" and row.energy == copper.get_potential_energy()
    assert row.calculator_parameters["sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert row.calculator_parameters["dtype"] == "float64" and row.calculator_parameters["head"] == "default"
    assert row.calculator_parameters["file"] == str(model_file.resolve())
    for part in ("model.safetensors", "C O Cu", "float64", "cpu"):
        assert part in repr(calculator)


def test_options_that_would_do_nothing_are_errors(calculator, potential):
    for option in ({"dtype": "float64"}, {"head": "b3lyp"}, {"threads": 3}, {"splines": False}, {"elements": "Cu"}, {"device": "cpu"}, {"matmul": "exact"}):
        with pytest.raises(ValueError, match=next(iter(option)) + ".*loaded Potential"):
            AdatomCalculator(potential, **option)
    with pytest.raises(ValueError, match="dtype.*make another"):
        calculator.set(dtype="float32")


def test_options_by_default(model_file):
    assert AdatomCalculator(model_file).potential.dtype == AdatomCalculator(model_file, dtype=None).potential.dtype == "float32"
    assert AdatomCalculator(model_file, elements="Cu,O").potential.elements == (8, 29)


def test_without_atoms(calculator):
    with pytest.raises(ValueError, match="no atoms"):
        calculator.get_potential_energy()


def test_energies_alone(model_file, copper, monkeypatch):
    copper.calc = AdatomCalculator(model_file, forces_on_request=True)
    requests = []
    evaluate = copper.calc.potential.evaluate
    monkeypatch.setattr(copper.calc.potential, "evaluate", lambda *a, **k: requests.append(k["forces"]) or evaluate(*a, **k))
    energy = copper.get_potential_energy()
    assert requests == [False] and "forces" not in copper.calc.results
    forces = copper.get_forces()
    assert requests == [False, True] and copper.get_potential_energy() == energy
    copper.get_stress()
    assert len(requests) == 2
    np.testing.assert_array_equal(forces, AdatomCalculator(copper.calc.potential).get_property("forces", copper))


def test_threads_share_a_calculator(calculator, copper):
    frames = []
    for seed in range(60):
        frames.append(copper.copy())
        frames[-1].rattle(0.02, seed=seed)
        frames[-1].calc = calculator
    expected = [calculator.potential.evaluate(atoms) for atoms in frames]
    with ThreadPoolExecutor(4) as pool:
        energies = list(pool.map(lambda atoms: atoms.get_potential_energy(), frames))
        forces = list(pool.map(lambda atoms: atoms.get_forces(), frames))
    assert energies == [result.energy for result in expected]
    assert all(np.array_equal(f, result.forces) for f, result in zip(forces, expected))
