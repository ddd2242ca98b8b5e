# SPDX-License-Identifier: MIT
"""Atoms that are excluded from all others are not there. Monte Carlo fixes of LAMMPS take an atom out by such an exclusion, which they make themselves."""
import gas
import lammps_structures as structures
import numpy as np
import pytest
from ase import Atoms
from lammps_simulation import NKTV2P
from test_lammps_reference import VOIGT

RANKS = pytest.mark.parametrize("ranks", [1, 2])


@RANKS
@pytest.mark.parametrize("exclusion", ["out all", "all out"])
def test_an_excluded_atom_is_not_there(lmp, reference, exclusion, ranks):
    """Energy, forces and virial are those of the other atoms, on the first and on the second run, and when the atoms are back."""
    atoms = structures.crystal()
    out = np.isin(np.arange(len(atoms)), [4, 5, 20])
    commands = f"group out id 5 6 21\nneigh_modify exclude group {exclusion}\nrun 1\nrun 1\nneigh_modify exclude none\nrun 1"
    run = lmp.run(atoms, commands, ranks=ranks)
    assert [frame.step for frame in run.frames] == [0, 1, 2, 3] and [row["Step"] for row in run.thermo] == [0, 1, 1, 2, 2, 3]
    rest = atoms[~out]
    expected, everything, volume = reference(rest), reference(atoms), atoms.get_volume()
    for row in range(4):
        assert run.thermo[row]["PotEng"] == pytest.approx(expected.energy, abs=1e-9)
        np.testing.assert_allclose(run.pressure(row) / NKTV2P * volume, -expected.stress[VOIGT] * volume, rtol=0, atol=1e-7)
    for frame in run.frames[:3]:
        np.testing.assert_allclose(frame.forces[~out], expected.forces, rtol=0, atol=1e-8)
        np.testing.assert_allclose(frame.energies[~out], expected.energies, rtol=0, atol=1e-9)
        np.testing.assert_allclose(frame.stress[~out] / NKTV2P, expected.stresses[:, VOIGT] * volume, rtol=0, atol=1e-8)
        for values in (frame.forces, frame.energies, frame.stress, frame.centroid):
            np.testing.assert_array_equal(values[out], 0.0)
    assert run.thermo[-1]["PotEng"] == pytest.approx(everything.energy, abs=1e-9)
    np.testing.assert_allclose(run.frames[3].forces, everything.forces, rtol=0, atol=1e-8)
    assert run.log.count("adatom: 3 atoms are left out: 'neigh_modify exclude' excludes them from group all") == 2


@RANKS
def test_others_move_without_it(lmp, reference, ranks):
    """Atoms change ranks, and lists are made anew; those that are left out move on straight lines."""
    atoms = structures.crystal()
    out = np.arange(len(atoms)) < 3
    commands = "group out id 1:3\nneigh_modify exclude group out all every 1 delay 0 check yes\nneighbor 0.2 bin\nvelocity all create 3000 4711 loop geom\n" \
               "fix move all nve\ntimestep 0.001\nrun 20"
    run = lmp.run(atoms, commands, ranks=ranks)
    for frame, thermo in zip(run.frames[::10], run.thermo[::10]):
        rest = Atoms(numbers=atoms.numbers[~out], positions=frame.positions[~out], cell=atoms.cell, pbc=True)
        assert thermo["PotEng"] == pytest.approx(reference(rest).energy, abs=1e-7)
        np.testing.assert_allclose(frame.forces[~out], reference(rest).forces, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(frame.forces[out], 0.0)


@pytest.mark.parametrize("ranks, steps, runs", [(1, 240, 1), (2, 30, 2)])
def test_gas_of_a_given_chemical_potential(lmp, reference, ranks, steps, runs):
    """Too many or too few atoms tell of a trial that leaves an energy behind. `python tests/lammps/gas.py` is the long form."""
    energy = lambda atoms: reference(Atoms(atoms, cell=[20, 20, 20], pbc=True)).energy  # noqa: E731
    virial = gas.second_virial(energy, "Cu", 4.0)
    run = lmp.run_script(gas.commands(lmp.model, "Cu", energy(Atoms("Cu")), 24.0, 20.0, steps, runs), ranks)
    numbers = [row["Atoms"] for row in run.thermo]
    error = np.sqrt(20.0 * 3.0 / len(numbers))  # of Poisson's distribution; a step remembers the one before, so that three count as one
    assert abs(np.mean(numbers) - gas.expected(20.0, virial, 24.0**3)) < 3 * error
    assert run.thermo[-1]["PotEng"] == pytest.approx(-2.9 * run.thermo[-1]["Atoms"], abs=2.0)


@RANKS
@pytest.mark.parametrize("style", ["gcmc", "widom", "charge/regulation"])
def test_an_exclusion_that_was_removed(lmp, style, ranks):
    """The fix does not make it again, and its trials would change nothing."""
    fix = {"gcmc": "1 20 0 1 {} 3000 -3 0.5 full_energy", "widom": "1 20 1 {} 3000 full_energy",
           "charge/regulation": "2 1 nevery 1 nmc 5 lunit_nm 0.1 temp 3000 seed {}"}[style]  # another seed each time: another place of insertion
    commands = f"units metal\natom_style charge\nregion box block 0 20 0 20 0 20\ncreate_box 2 box\ncreate_atoms 1 single 3 3 3\ncreate_atoms 2 single 8 8 8\n" \
               f"mass * 16\nset type 1 charge -1\nset type 2 charge 1\npair_style adatom\npair_coeff * * {lmp.model} O C\nfix mc all {style} {fix.format(1)}\nrun 1\n"
    assert f"by which fix mc ({style}) takes atoms out for its trials" in lmp.fails(commands + "neigh_modify exclude none\nrun 1", ranks)
    again = f"unfix mc\nneigh_modify exclude none\nrun 1\nfix mc all {style} {fix.format(2)}\nrun 1\nwrite_restart state.restart\nunfix mc\nrun 1\n"
    lmp.run_script(commands + again, ranks)
    lmp.run_script("read_restart state.restart\nrun 1\n" + f"fix mc all {style} {fix.format(3)}\nrun 1", ranks)


@RANKS
def test_a_gas_may_vanish(lmp, ranks):
    script = gas.commands(lmp.model, "Cu", -2.9 - 10.0, 24.0, 6.0, 10)
    run = lmp.run_script(script, ranks)
    assert run.thermo[-1]["Atoms"] == 0 and run.thermo[-1]["PotEng"] == 0.0


@RANKS
def test_widom_insertion(lmp, ranks):
    """An atom more costs an isolated atom's energy and little else in a dilute gas, in a second run, too."""
    script = gas.commands(lmp.model, "Cu", -2.9, 24.0, 3.0, 3, runs=2)
    script = script.replace("fix gas all gcmc 1 20 0 1 12345 3000.0", "fix gas all widom 1 20 1 12345 3000.0 full_energy #")
    script = script.replace("thermo_style custom step atoms pe", "thermo_style custom step atoms pe f_gas[1]")
    run = lmp.run_script(script, ranks)
    assert len(run.thermo) == 8
    for row in run.thermo[1:4] + run.thermo[5:]:
        assert row["f_gas[1]"] == pytest.approx(-2.9, abs=0.1)


@RANKS
def test_pairs_of_ions(lmp, reference, ranks):
    """fix charge/regulation inserts and takes out pairs; what is left has the energy of what is left, on both runs."""
    atoms = structures.cluster()
    atoms.pbc = True
    pair = f"pair_style adatom precision double\npair_coeff * * {lmp.model} Cu O C"
    ions = "set type 2 charge -1\nset type 3 charge 1\nfix ions all charge/regulation 3 2 nevery 1 nmc 20 lunit_nm 0.1 temp 3000 pIp 0 pIm 0 seed 4711\n" \
           "thermo_style custom step atoms pe f_ions[1] f_ions[2] f_ions[7] f_ions[8]\nthermo_modify format float %.17g norm no\nrun 3\nrun 3\n" \
           "write_dump all custom last.lmp id type x y z modify format float %.17g"
    script = lmp.script(atoms, ions, pair=pair).replace("atom_modify map array", "atom_style charge\natom_modify map array")
    data = (lmp.folder / "data.lmp").read_text().replace("Atoms # atomic", "Atoms # charge").splitlines()
    first = data.index("Atoms # charge") + 2
    data[first:] = [" ".join([*words[:2], "0", *words[2:]]) for words in map(str.split, data[first:])]
    (lmp.folder / "data.lmp").write_text("\n".join(data) + "\n")
    run = lmp.run_script(script, ranks)
    from lammps_simulation import read_dump

    frame = read_dump(lmp.folder / "last.lmp")[0]
    rest = Atoms(numbers=np.array([0, 29, 8, 6])[frame.columns["type"].astype(int)], positions=frame.positions, cell=atoms.cell, pbc=True)
    assert run.thermo[-1]["PotEng"] == pytest.approx(reference(rest).energy, abs=1e-7)
    assert len({row["Atoms"] for row in run.thermo}) > 1
