# SPDX-License-Identifier: MIT
"""Global, per-atom and centroid virials are consistent with each other and with the energy."""
import numpy as np
import pytest
import lammps_structures as structures
from lammps_simulation import NKTV2P


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("name", ["crystal", "small_cell", "triclinic", "slab"])
def test_sums(lmp, name, ranks):
    atoms = structures.ALL[name]()
    run = lmp.run(atoms, ranks=ranks)
    frame, total = run.frames[0], -run.pressure() * atoms.get_volume()
    scale = np.abs(frame.stress).max()
    np.testing.assert_allclose(frame.stress.sum(axis=0), total, rtol=0, atol=1e-10 * scale * len(atoms))
    np.testing.assert_allclose(frame.centroid[:, :6].sum(axis=0), total, rtol=0, atol=1e-10 * scale * len(atoms))
    assert frame.energies.sum() == pytest.approx(run.thermo[0]["PotEng"], rel=1e-12)
    np.testing.assert_allclose(frame.forces.sum(axis=0), 0.0, atol=1e-10)


def test_centroid_is_not_symmetric_but_its_mean_is_the_stress(lmp):
    frame = lmp.run(structures.triclinic()).frames[0]
    upper, lower = frame.centroid[:, 3:6], frame.centroid[:, 6:9]
    scale = np.abs(frame.stress).max()
    np.testing.assert_allclose(0.5 * (upper + lower), frame.stress[:, 3:6], rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(frame.centroid[:, :3], frame.stress[:, :3], rtol=0, atol=1e-12 * scale)
    assert np.abs(upper - lower).max() > 1e-4 * scale
    np.testing.assert_allclose((upper - lower).sum(axis=0), 0.0, atol=1e-10 * scale * len(upper))


@pytest.mark.parametrize("name, ranks", [("crystal", 1), ("triclinic", 2)])
def test_pressure_is_the_derivative_of_the_energy(lmp, name, ranks):
    """p_ab = -(1/V) dE/d(strain ab), by central differences."""
    atoms = structures.ALL[name]()
    pressure = lmp.run(atoms, ranks=ranks).pressure()
    step = 1e-5
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1)]):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step  # r -> r strain: lower triangular, so the cell stays what LAMMPS wants
            strained = atoms.copy()
            strained.set_cell(atoms.cell @ strain, scale_atoms=True)
            energies.append(lmp.run(strained, ranks=ranks).thermo[0]["PotEng"])
        numerical = -(energies[0] - energies[1]) / (2 * step) / atoms.get_volume() * NKTV2P
        assert pressure[k] == pytest.approx(numerical, abs=1e-6 * np.abs(pressure).max())


@pytest.mark.parametrize("ranks", [1, 2])
def test_forces_are_the_derivative_of_the_energy(lmp, ranks):
    """By LAMMPS's own finite differences, which call the pair style for displaced atoms between two builds of the list."""
    commands = "fix numerical all numdiff 1 1e-4\nundump out\ndump out all custom 1 dump.lmp id fx fy fz f_numerical[*]\n" \
               "dump_modify out sort id format float %.17g\nrun 0"
    frame = lmp.run(structures.triclinic(), commands, ranks=ranks).frames[0]
    np.testing.assert_allclose(frame.vectors("f_numerical", 3), frame.forces, rtol=0, atol=1e-6 * np.abs(frame.forces).max())
