# SPDX-License-Identifier: MIT
"""The ASE calculator: what ASE expects of one."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import PropertyNotImplementedError
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
