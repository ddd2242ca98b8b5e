# SPDX-License-Identifier: MIT
"""Runs of many steps: atoms move between ranks, lists are rebuilt, the box changes, runs are continued."""
import numpy as np
import pytest
import lammps_structures as structures

START = "velocity all create 600 4711 loop geom\nfix move all nve\ntimestep 0.001\n"


@pytest.mark.parametrize("name", ["crystal", "triclinic"])
def test_same_trajectory_on_any_number_of_ranks(lmp, name):
    """A short skin, so that the list is rebuilt and atoms change ranks."""
    atoms = structures.ALL[name]()
    commands = "neighbor 0.2 bin\nneigh_modify delay 0 every 1 check yes\n" + START.replace("600", "3000") + "run 40"
    runs = [lmp.run(atoms, commands, ranks=ranks) for ranks in (1, 2, 4)]
    builds = int(next(line for line in runs[0].log.splitlines() if line.startswith("Neighbor list builds")).split()[-1])
    assert builds > 2
    for run in runs[1:]:
        difference = run.frames[-1].positions - runs[0].frames[-1].positions
        difference -= np.round(np.linalg.solve(atoms.cell.T, difference.T).T) @ atoms.cell  # an atom at the boundary may be wrapped or not
        np.testing.assert_allclose(difference, 0.0, atol=1e-8)
        np.testing.assert_allclose(run.frames[-1].forces, runs[0].frames[-1].forces, rtol=0, atol=1e-6)
        assert run.thermo[-1]["PotEng"] == pytest.approx(runs[0].thermo[-1]["PotEng"], abs=1e-7)


def test_energy_is_conserved(lmp):
    """Halving the step divides the error of velocity Verlet by about four: what remains is the integrator's, not the potential's."""
    errors = []
    for step, n in ((0.002, 50), (0.001, 100)):
        run = lmp.run(structures.crystal(), START.replace("0.001", str(step)) + f"run {n}")
        energies = np.array([row["TotEng"] for row in run.thermo])
        errors.append(np.abs(energies - energies[0]).max())
    assert errors[0] / errors[1] > 3.0
    kinetic = np.ptp([row["PotEng"] for row in run.thermo])
    assert errors[1] < 0.01 * kinetic


@pytest.mark.parametrize("ensemble", ["nvt temp 300 300 0.1", "npt temp 300 300 0.1 aniso 0 0 1.0", "npt temp 300 300 0.1 tri 0 0 1.0"])
def test_ensembles(lmp, reference, ensemble):
    """The last frame of a thermostatted or barostatted run is still what the potential says for it."""
    run = lmp.run(structures.triclinic(), START.replace("nve", ensemble) + "run 20\nwrite_data last.data", ranks=2)
    assert len(run.thermo) == 21 and all(np.isfinite(list(row.values())).all() for row in run.thermo)
    from ase.io.lammpsdata import read_lammps_data

    atoms = read_lammps_data(lmp.folder / "last.data", atom_style="atomic", sort_by_id=True, units="metal")
    np.testing.assert_allclose(run.frames[-1].forces, reference(atoms).forces, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_minimisation(lmp, ranks):
    run = lmp.run(structures.small_cell(), "min_style cg\nminimize 0 1e-4 2000 10000", ranks=ranks)
    assert "Stopping criterion = force tolerance" in run.log
    assert run.thermo[-1]["PotEng"] < run.thermo[0]["PotEng"] - 0.01
    assert np.abs(run.frames[-1].forces).max() <= 1e-4


def test_box_relaxation(lmp):
    """To a given pressure; restarted, since LAMMPS takes strains relative to the box at the start of a minimisation."""
    relax = "fix box all box/relax aniso 1000.0 vmax 0.005\nmin_style cg\n" + "minimize 0 1e-5 150 600\n" * 4
    run = lmp.run(structures.small_cell(), relax, ranks=2)
    assert np.abs(run.pressure(0)[:3] - 1000.0).max() > 1000.0
    np.testing.assert_allclose(run.pressure()[:3], 1000.0, atol=20.0)
    assert run.thermo[-1]["Lx"] != run.thermo[0]["Lx"]


def test_rerun(lmp):
    atoms = structures.crystal()
    first = lmp.run(atoms, START + "run 5")
    (lmp.folder / "dump.lmp").rename(lmp.folder / "first.dump")
    again = lmp.run(atoms, "rerun first.dump dump x y z", ranks=2)
    assert [frame.step for frame in again.frames] == [frame.step for frame in first.frames]
    for one, two in zip(first.frames, again.frames):
        np.testing.assert_allclose(two.forces, one.forces, rtol=0, atol=1e-9)


@pytest.mark.parametrize("again", ["", "pair_style adatom precision double\npair_coeff * * {model} Cu O C\n", "pair_style adatom precision double\n"])
def test_restart_continues(lmp, again):
    """The restart file brings settings, model and elements; repeating the commands is allowed and does not change anything."""
    atoms = structures.crystal()
    whole = lmp.run(atoms, START + "run 5\nwrite_restart half.restart\nrun 5")
    script = f"read_restart half.restart\n{again.format(model=lmp.model)}fix move all nve\ntimestep 0.001\n" \
             "thermo_style custom step atoms pe\nthermo_modify format float %.17g norm no\nthermo 1\n" \
             "dump out all custom 1 dump.lmp id x y z fx fy fz\ndump_modify out sort id format float %.17g\nrun 5"
    (lmp.folder / "dump.lmp").unlink()
    rest = lmp.run_script(script)
    assert rest.frames[-1].step == whole.frames[-1].step == 10
    np.testing.assert_allclose(rest.frames[-1].forces, whole.frames[-1].forces, rtol=0, atol=1e-9)
    assert rest.thermo[-1]["PotEng"] == pytest.approx(whole.thermo[-1]["PotEng"], rel=1e-12)
    assert ", double precision" in rest.log


def test_restart_where_the_model_is_not(lmp):
    (lmp.folder / "here.safetensors").write_bytes(lmp.model.read_bytes())
    coefficients = "pair_coeff * * here.safetensors Cu O C"
    whole = lmp.run(structures.crystal(), "run 0\nwrite_restart state.restart", pair="pair_style adatom precision double\n" + coefficients)
    (lmp.folder / "here.safetensors").rename(lmp.folder / "there.safetensors")
    output = lmp.fails("read_restart state.restart\nrun 0", 2)
    assert "'here.safetensors' not found" in output and "Give 'pair_coeff' again" in output and "pair coeffs are not set" in output
    again = lmp.run_script("read_restart state.restart\n" + coefficients.replace("here", "there")
                           + "\nthermo_style custom step atoms pe\nthermo_modify format float %.17g norm no\nrun 0")
    assert again.thermo[-1]["PotEng"] == pytest.approx(whole.thermo[-1]["PotEng"], rel=1e-12)


def test_changed_settings_are_used(lmp):
    """A second pair_style keeps the coefficients, so the model is loaded again with the new precision."""
    atoms = structures.crystal()
    changed = lmp.run(atoms, "pair_style adatom precision float\nrun 0")
    single = lmp.run(atoms, style="precision float")
    double = lmp.run(atoms)
    assert changed.thermo[-1]["PotEng"] == single.thermo[-1]["PotEng"] != double.thermo[-1]["PotEng"]


def test_types_that_change_during_a_run(lmp, reference):
    """fix atom/swap changes types, and with them the species, between steps."""
    atoms = structures.crystal()
    swap = "fix swap all atom/swap 1 5 29494 1000000.0 ke no types 1 2"
    run = lmp.run(atoms, "undump out\n" + swap + "\nrun 3\nwrite_dump all custom dump.lmp id type x y z fx fy fz modify sort id format float %.17g")
    frame = run.frames[-1]
    atoms.numbers = np.array([0, 29, 8, 6])[frame.columns["type"].astype(int)]
    assert np.any(atoms.numbers != structures.crystal().numbers)
    np.testing.assert_allclose(frame.forces, reference(atoms).forces, rtol=0, atol=1e-8)


def test_partitions(lmp):
    """Two worlds in one job, each with its own ranks and its own structure."""
    atoms = structures.crystal()
    script = lmp.script(atoms, "variable shift world 0.0 0.1\ndisplace_atoms all ramp x 0 ${shift} x 0 7.2\nrun 0\n"
                        'print "$(pe:%20.15f)" file energy.${shift}.txt')
    process = lmp.start(script, 4, ("-partition", "2x2"))
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    energies = [float((lmp.folder / f"energy.{shift}.txt").read_text()) for shift in ("0.0", "0.1")]
    assert energies[0] == pytest.approx(lmp.run(atoms).thermo[0]["PotEng"], abs=1e-9)
    assert abs(energies[0] - energies[1]) > 1e-4
