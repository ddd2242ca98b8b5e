# SPDX-License-Identifier: MIT
"""Features between ranks: cells in which an atom has many images, on its own rank and on others, and results that do not depend on who was first."""
import lammps_structures as structures
import numpy as np
import pytest
from ase import Atoms
from lammps_simulation import NKTV2P
from test_lammps_reference import VOIGT

CELLS = {
    "orthogonal": [[2.9, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.1]],
    "triclinic": [[3.1, 0.0, 0.0], [1.1, 3.0, 0.0], [-0.9, 0.8, 2.9]],
}
SHORT = "neighbor 0.1 bin\nneigh_modify delay 0 every 1 check yes\n"
MOVE = "velocity all create 3000 4711 loop geom\nfix move all nve\ntimestep 0.001\n"


def two_atoms(cell: str) -> Atoms:
    """All edges of length below the skin are wider than the box: an atom sees itself and, many times, the other one."""
    return Atoms("CuO", scaled_positions=[[0.1, 0.2, 0.15], [0.55, 0.72, 0.6]], cell=CELLS[cell], pbc=True)


@pytest.mark.parametrize("processors", ["1 1 1", "2 1 1", "1 1 3", "2 1 2"])
@pytest.mark.parametrize("cell", CELLS)
def test_two_atoms_with_many_images(lmp, reference, cell, processors):
    atoms = two_atoms(cell)
    expected = reference(atoms)
    ranks = int(np.prod([int(n) for n in processors.split()]))
    run = lmp.run(atoms, ranks=ranks, before=f"processors {processors}")
    frame, volume = run.frames[0], atoms.get_volume()
    assert run.thermo[0]["PotEng"] == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(frame.energies, expected.energies, rtol=0, atol=1e-9)
    np.testing.assert_allclose(frame.forces, expected.forces, rtol=0, atol=1e-8)
    assert np.abs(frame.forces).max() > 1e-2
    np.testing.assert_allclose(run.pressure() / NKTV2P * volume, -expected.stress[VOIGT] * volume, rtol=0, atol=1e-7)
    np.testing.assert_allclose(frame.stress / NKTV2P, expected.stresses[:, VOIGT] * volume, rtol=0, atol=1e-8)
    np.testing.assert_allclose(frame.centroid[:, :6].sum(axis=0), -run.pressure() * volume, rtol=0, atol=1e-8 * np.abs(frame.stress).max())


@pytest.mark.parametrize("ensemble", ["npt temp 300 300 0.1 aniso 0 0 0.1", "npt temp 300 300 0.1 tri 0 0 0.1"])
def test_shifts_follow_the_box(lmp, reference, ensemble):
    """The box changes between two builds of the list; edges to images change with it."""
    from ase.io.lammpsdata import read_lammps_data

    commands = "neigh_modify every 1000 delay 1000 check no\n" + MOVE.replace("3000", "300").replace("nve", ensemble) + "run 10\nwrite_data last.data"
    run = lmp.run(two_atoms("triclinic"), commands, ranks=4)
    assert abs(run.thermo[-1]["Lx"] / run.thermo[0]["Lx"] - 1.0) > 1e-4
    atoms = read_lammps_data(lmp.folder / "last.data", atom_style="atomic", sort_by_id=True, units="metal")
    np.testing.assert_allclose(run.frames[-1].forces, reference(atoms).forces, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ranks, style", [(1, "precision double"), (4, "precision double"), (4, "precision float")])
def test_same_bits_each_time(lmp, ranks, style):
    """Contributions of several ranks to one atom are added in a fixed order, whichever message is first."""
    first, second = (lmp.run(structures.crystal(), SHORT + MOVE + "run 10", ranks=ranks, style=style) for _ in range(2))
    np.testing.assert_array_equal(second.frames[-1].positions, first.frames[-1].positions)
    np.testing.assert_array_equal(second.frames[-1].forces, first.frames[-1].forces)
    assert second.thermo == first.thermo


@pytest.mark.parametrize("layout", ["comm_style tiled\nbalance 1.0 rcb\nfix balance all balance 3 1.0 rcb", "fix balance all balance 3 1.0 shift xyz 5 1.0"])
def test_domains_that_move(lmp, reference, layout):
    """Atoms get other owners and other neighbours on other ranks."""
    atoms = structures.triclinic() if "tiled" not in layout else structures.crystal()
    run = lmp.run(atoms, layout + "\n" + SHORT + MOVE + "run 15", ranks=4)
    atoms.positions = run.frames[-1].positions
    np.testing.assert_allclose(run.frames[-1].forces, reference(atoms).forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("atom_modify", ["", "atom_modify map yes sort 1 2.0", "atom_modify map hash sort 0 0"])
def test_order_of_atoms_and_map(lmp, reference, ranks, atom_modify):
    """No atom map is needed, and the order of atoms may change with every list."""
    atoms = structures.crystal()
    script = lmp.script(atoms, "dump out all custom 1 dump.lmp id x y z fx fy fz\ndump_modify out sort id format float %.17g\n" + SHORT + MOVE + "run 10")
    script = script.replace("atom_modify map array", atom_modify)
    run = lmp.run_script(script, ranks)
    assert "Neighbor list builds = 0" not in run.log
    frame = run.frames[-1]
    atoms.positions = frame.positions
    np.testing.assert_allclose(frame.forces, reference(atoms).forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_images_of_atoms_that_the_model_does_not_see(lmp, reference, ranks):
    """The first atom, and on some rank all atoms, belong to another style: nodes and atoms are counted differently."""
    atoms = structures.small_cell()
    atoms.numbers[:2] = 6, 8
    pair = f"pair_style hybrid adatom precision double lj/cut 3.0\npair_coeff * * adatom {lmp.model} Cu O NULL\npair_coeff * 3 lj/cut 0.0 1.0"
    frame = lmp.run(atoms, ranks=ranks, pair=pair, before="processors * 1 1").frames[0]
    expected = reference(atoms[1:])
    np.testing.assert_allclose(frame.forces[1:], expected.forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(frame.energies[1:], expected.energies, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(frame.forces[0], 0.0)


def test_without_atom_ids(lmp):
    script = """units metal
atom_modify {modify}
lattice fcc 3.7
region box block 0 2 0 2 0 2
create_box 3 box
create_atoms 1 box
region corner block 0 0.7 0 1.2 0 1.7
set region corner type 2
mass * 1.0
pair_style adatom precision double
pair_coeff * * {model} Cu O C
thermo_style custom step atoms pe press
thermo_modify format float %.17g
run 0
"""
    with_ids = lmp.run_script(script.format(modify="id yes", model=lmp.model), 1).thermo[0]
    without = lmp.run_script(script.format(modify="id no", model=lmp.model), 4).thermo[0]
    assert without == pytest.approx(with_ids, rel=1e-10)
