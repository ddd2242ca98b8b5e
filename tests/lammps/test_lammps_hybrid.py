# SPDX-License-Identifier: MIT
"""The style beside others: pair_style hybrid and hybrid/overlay, with atom types that the model does not handle."""
import numpy as np
import pytest
import lammps_structures as structures
from ase import Atoms


@pytest.mark.parametrize("ranks", [1, 4])
def test_overlay_with_nothing(lmp, ranks):
    """A second style with a longer cutoff adds ghosts and neighbours, and no force."""
    atoms = structures.triclinic()
    alone = lmp.run(atoms, ranks=ranks)
    pair = f"pair_style hybrid/overlay adatom precision double zero 6.0\npair_coeff * * adatom {lmp.model} Cu O C\npair_coeff * * zero"
    both = lmp.run(atoms, ranks=ranks, pair=pair)
    np.testing.assert_allclose(both.frames[0].forces, alone.frames[0].forces, rtol=0, atol=1e-10)
    np.testing.assert_allclose(both.frames[0].energies, alone.frames[0].energies, rtol=0, atol=1e-10)
    np.testing.assert_allclose(both.frames[0].stress, alone.frames[0].stress, rtol=0, atol=1e-4)
    np.testing.assert_allclose(both.frames[0].centroid, alone.frames[0].centroid, rtol=0, atol=1e-4)
    np.testing.assert_allclose(both.pressure(), alone.pressure(), rtol=1e-10, atol=1e-6)
    assert both.thermo[0]["PotEng"] == pytest.approx(alone.thermo[0]["PotEng"], rel=1e-12)


@pytest.mark.parametrize("ranks", [1, 4])
def test_overlay_adds_energies_and_pressures(lmp, ranks):
    atoms = structures.crystal()
    model = f"adatom {lmp.model} Cu O C"
    alone = lmp.run(atoms, ranks=ranks)
    pairs = lmp.run(atoms, ranks=ranks, pair="pair_style lj/cut 5.0\npair_coeff * * 0.05 2.2")
    both = lmp.run(atoms, ranks=ranks,
                   pair=f"pair_style hybrid/overlay lj/cut 5.0 adatom precision double\npair_coeff * * lj/cut 0.05 2.2\npair_coeff * * {model}")
    np.testing.assert_allclose(both.frames[0].forces, alone.frames[0].forces + pairs.frames[0].forces, rtol=0, atol=1e-9)
    np.testing.assert_allclose(both.pressure(), alone.pressure() + pairs.pressure(), rtol=1e-9, atol=1e-4)
    np.testing.assert_allclose(both.frames[0].stress, alone.frames[0].stress + pairs.frames[0].stress, rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize("ranks", [1, 2])
def test_dispersion(lmp, ranks):
    """Grimme's D3 of LAMMPS on top, as the README says."""
    atoms = structures.crystal()
    dispersion, elements = "dispersion/d3 bj pbe 9.0 6.0", "Cu O C"
    alone = lmp.run(atoms, ranks=ranks)
    pairs = lmp.run(atoms, ranks=ranks, pair=f"pair_style {dispersion}\npair_coeff * * {elements}")
    both = lmp.run(atoms, ranks=ranks, pair=f"pair_style hybrid/overlay adatom precision double {dispersion}\npair_coeff * * adatom {lmp.model} {elements}\n"
                                            f"pair_coeff * * dispersion/d3 {elements}")
    assert np.abs(pairs.frames[0].forces).max() > 1e-3
    np.testing.assert_allclose(both.frames[0].forces, alone.frames[0].forces + pairs.frames[0].forces, rtol=0, atol=1e-9)
    assert both.thermo[0]["PotEng"] == pytest.approx(alone.thermo[0]["PotEng"] + pairs.thermo[0]["PotEng"], rel=1e-10)
    np.testing.assert_allclose(both.pressure(), alone.pressure() + pairs.pressure(), rtol=1e-9, atol=1e-4)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("style", ["hybrid", "hybrid/overlay"])
def test_types_of_another_style(lmp, reference, ranks, style):
    """Carbon atoms belong to Lennard-Jones: the model sees the others only."""
    atoms = structures.crystal()
    atoms.numbers[::3] = 6
    pair = f"pair_style {style} adatom precision double lj/cut 5.0\npair_coeff * * adatom {lmp.model} Cu O NULL\n" \
           "pair_coeff 1 3 lj/cut 0.0 1.0\npair_coeff 2 3 lj/cut 0.0 1.0\npair_coeff 3 3 lj/cut 0.0 1.0"
    frame = lmp.run(atoms, ranks=ranks, pair=pair).frames[0]
    seen = atoms.numbers != 6
    expected = reference(Atoms(numbers=atoms.numbers[seen], positions=atoms.positions[seen], cell=atoms.cell, pbc=True))
    np.testing.assert_allclose(frame.forces[seen], expected.forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(frame.energies[seen], expected.energies, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(frame.forces[~seen], 0.0)
    np.testing.assert_array_equal(frame.energies[~seen], 0.0)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("style, coefficients, message", [
    ("lj/cut 5.0", "pair_coeff 1 2 lj/cut 0.0 1.0", "atom types 1 (Cu) and 2 (O) are both in the network, but a later 'pair_coeff' of hybrid gives their pair to lj/cut"),
    ("lj/cut 5.0 zero 5.0", "pair_coeff 1 1 lj/cut 0.0 1.0\npair_coeff 2 2 zero", "atom types 1 (Cu) and 1 (Cu) are both in the network, but a later 'pair_coeff' of hybrid"),
    ("lj/cut 5.0", "pair_coeff 1 2 none", "gives their pair to none"),
])
def test_pairs_that_another_style_takes_away(lmp, style, coefficients, message, ranks):
    pair = f"pair_style hybrid adatom precision double {style}\npair_coeff * * adatom {lmp.model} Cu O C\npair_coeff 3 3 lj/cut 0.0 1.0\n{coefficients}"
    pair = pair.replace("Cu O C\n", "Cu O NULL\npair_coeff 1 3 lj/cut 0.0 1.0\npair_coeff 2 3 lj/cut 0.0 1.0\n")
    assert message in lmp.fails(lmp.script(structures.crystal(), pair=pair), ranks)


def test_models_that_take_pairs_from_each_other(lmp):
    pair = f"pair_style hybrid adatom adatom\npair_coeff * * adatom 1 {lmp.model} Cu O C\npair_coeff * * adatom 2 {lmp.model} NULL O NULL"
    assert "atom types 2 (O) and 2 (O) are both in the network" in lmp.fails(lmp.script(structures.crystal(), pair=pair))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("exclusion, works", [("group carbon carbon", True), ("type 3 3", True), ("type 1 3", True), ("group carbon copper", True),
                                              ("group copper copper", False), ("group mixed copper", False)])
def test_exclusions_of_atoms_that_the_model_does_not_handle(lmp, reference, exclusion, works, ranks):
    """They take nothing from the network: rigid molecules of another style, as a rule."""
    atoms = structures.crystal()
    atoms.numbers[::3] = 6
    pair = f"pair_style hybrid/overlay adatom precision double lj/cut 5.0\npair_coeff * * adatom {lmp.model} Cu O NULL\npair_coeff * * lj/cut 0.0 1.0"
    commands = f"group carbon type 3\ngroup copper type 1\ngroup mixed type 2 3\nneigh_modify exclude {exclusion}\nrun 0"
    if not works:
        assert f"'neigh_modify exclude {exclusion}' takes pairs of atoms that pair style adatom handles" in lmp.fails(lmp.script(atoms, commands, pair=pair), ranks)
        return
    seen = atoms.numbers != 6
    expected = reference(Atoms(numbers=atoms.numbers[seen], positions=atoms.positions[seen], cell=atoms.cell, pbc=True))
    frame = lmp.run(atoms, commands, ranks=ranks, pair=pair).frames[0]
    np.testing.assert_allclose(frame.forces[seen], expected.forces, rtol=0, atol=1e-8)


def test_two_models(lmp, reference, tmp_path):
    """Twice the style, each with its own model and elements."""
    import tiny_model

    other = tiny_model.write(tmp_path / "other.safetensors", seed=2)
    atoms = structures.crystal()
    pair = "pair_style hybrid/overlay adatom precision double adatom precision double\n"
    both = lmp.run(atoms, ranks=2, pair=pair + f"pair_coeff * * adatom 1 {lmp.model} Cu O C\npair_coeff * * adatom 2 {other} Cu O C")
    first = lmp.run(atoms)
    second = lmp.run(atoms, pair=f"pair_style adatom precision double\npair_coeff * * {other} Cu O C")
    np.testing.assert_allclose(both.frames[0].forces, first.frames[0].forces + second.frames[0].forces, rtol=0, atol=1e-9)


def test_restart_of_hybrid_keeps_the_settings(lmp):
    atoms = structures.crystal()
    coefficients = f"pair_coeff * * adatom {lmp.model} Cu O C\npair_coeff * * zero"
    run = lmp.run(atoms, "run 0\nwrite_restart state.restart", pair="pair_style hybrid/overlay adatom precision double zero 3.0\n" + coefficients)
    again = lmp.run_script(f"read_restart state.restart\n{coefficients}\nthermo_style custom step atoms pe\n"
                           "thermo_modify format float %.17g norm no\nrun 0")
    assert again.thermo[-1]["PotEng"] == pytest.approx(run.thermo[0]["PotEng"], rel=1e-12)
    assert ", double precision" in again.log
