# SPDX-License-Identifier: MIT
"""Energies, forces and virials in LAMMPS against the same model without LAMMPS, on 1, 2 and 4 ranks."""
import numpy as np
import pytest
import lammps_structures as structures
from lammps_simulation import NKTV2P

VOIGT = [0, 1, 2, 5, 4, 3]  # from ASE's xx yy zz yz xz xy to LAMMPS's xx yy zz xy xz yz


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", structures.ALL)
def test_same_as_without_lammps(lmp, reference, name, ranks):
    atoms = structures.ALL[name]()
    expected = reference(atoms)
    run = lmp.run(atoms, ranks=ranks)
    frame = run.frames[0]
    assert run.thermo[0]["PotEng"] == pytest.approx(expected.energy, abs=1e-9 * len(atoms))
    np.testing.assert_allclose(frame.energies, expected.energies, rtol=0, atol=1e-9)
    np.testing.assert_allclose(frame.forces, expected.forces, rtol=0, atol=1e-8)
    assert np.abs(frame.forces).max() > 1e-2
    volume = atoms.get_volume()
    np.testing.assert_allclose(run.pressure() / NKTV2P * volume, -expected.stress[VOIGT] * volume, rtol=0, atol=1e-7)
    np.testing.assert_allclose(frame.stress / NKTV2P, expected.stresses[:, VOIGT] * volume, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name, processors", [("slab", "1 1 4"), ("slab", "1 2 2"), ("cluster", "4 1 1"), ("cluster", "2 2 1")])
def test_empty_ranks(lmp, reference, name, processors):
    atoms = structures.ALL[name]()
    run = lmp.run(atoms, ranks=4, before=f"processors {processors}")
    (line,) = [line for line in run.log.splitlines() if line.startswith("Nlocal:")]
    assert float(line.split()[5]) == 0.0, f"every rank has atoms: {line}"
    np.testing.assert_allclose(run.frames[0].forces, reference(atoms).forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ranks", [1, 4])
def test_single_precision(lmp, reference, ranks):
    atoms = structures.crystal()
    run = lmp.run(atoms, ranks=ranks, style="precision float")
    expected = reference(atoms)
    error = np.abs(run.frames[0].forces - expected.forces).max()
    assert 0.0 < error < 1e-4 * np.abs(expected.forces).max()
    assert run.thermo[0]["PotEng"] == pytest.approx(expected.energy, abs=1e-5 * len(atoms))


@pytest.mark.parametrize("layout", ["comm_style tiled\nbalance 1.0 rcb", "comm_modify mode single cutoff 9.0", "comm_modify cutoff 1.0"])
def test_other_communication(lmp, reference, layout):
    """Tiled domains, ghosts from farther away than the neighbour list needs, and a cutoff that LAMMPS has to enlarge itself."""
    atoms = structures.crystal()
    run = lmp.run(atoms, layout + "\nrun 0", ranks=4)
    np.testing.assert_allclose(run.frames[0].forces, reference(atoms).forces, rtol=0, atol=1e-8)


def test_threads_do_not_change_bits(lmp):
    atoms = structures.crystal()
    one, two = (lmp.run(atoms, style=f"precision double threads {n}") for n in (1, 2))
    np.testing.assert_array_equal(one.frames[0].forces, two.frames[0].forces)
    assert one.thermo[0]["PotEng"] == two.thermo[0]["PotEng"]


@pytest.mark.parametrize("units, angstrom, electronvolt", [
    ("real", 1.0, 23.060549), ("si", 1e-10, 1.602176634e-19), ("electron", 1.88972612, 0.0367493221757), ("nano", 0.1, 160.2176634)])
def test_units(lmp, reference, units, angstrom, electronvolt):
    """Constants of CODATA 2018; LAMMPS has those of 1998 to 2006, with relative errors up to 1e-6."""
    atoms = structures.crystal()
    expected = reference(atoms)
    run = lmp.run(atoms, units=units, scale=angstrom, before=f"neighbor {2.0 * angstrom} bin")
    assert run.thermo[0]["PotEng"] == pytest.approx(expected.energy * electronvolt, rel=2e-6)
    np.testing.assert_allclose(run.frames[0].forces * angstrom / electronvolt, expected.forces, rtol=0, atol=2e-6 * np.abs(expected.forces).max())
    if units == "real":  # pressure in atmospheres
        np.testing.assert_allclose(run.pressure() * 1.01325 / NKTV2P, -expected.stress[VOIGT], rtol=1e-5, atol=1e-9)
