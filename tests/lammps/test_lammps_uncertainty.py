# SPDX-License-Identifier: MIT
"""compute adatom/uncertainty and fix adatom/guard."""
import io
import subprocess
import sys

import ase.io
import lammps_structures as structures
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from lammps_simulation import TYPES, Lammps
from test_lammps_dynamics import START

COMPUTE = """
compute u all adatom/uncertainty
thermo_style custom step atoms pe etotal temp c_u[1] c_u[2] c_u[3]
dump u all custom 5 u.lmp id type c_u[1] c_u[2]
dump_modify u sort id format float %.17g
"""


def labelled(potential, atoms, rng, amplitude):
    """Displaced copies of a structure with labels that differ from the model's by a little more where atoms are displaced more."""
    atoms = atoms.copy()
    atoms.positions += rng.normal(scale=amplitude, size=atoms.positions.shape)
    r = potential.evaluate(atoms)
    forces = r.forces + rng.normal(scale=amplitude, size=r.forces.shape)
    atoms.calc = SinglePointCalculator(atoms, energy=r.energy + rng.normal(scale=amplitude), forces=forces)
    return atoms


@pytest.fixture(scope="session")
def calibrated(model, plugin, tmp_path_factory):
    """The tiny model with detectors for displaced crystals."""
    from adatom import Potential
    from adatom.uncertainty import fit

    potential = Potential.load(model, dtype="float64", threads=1)
    rng = np.random.default_rng(3)
    frames = [labelled(potential, structures.crystal(), rng, rng.uniform(0.02, 0.1)) for _ in range(24)]
    file = tmp_path_factory.mktemp("calibrated") / "calibrated.safetensors"
    fit(model, frames[:16], frames[16:], file, members=8)
    return file


@pytest.fixture
def lmp(tmp_path, calibrated, plugin):
    return Lammps(tmp_path, calibrated, plugin)


@pytest.fixture
def uncertain(calibrated, plugin):
    from adatom import Potential

    potential = Potential.load(calibrated, dtype="float64", threads=1)
    return lambda atoms: potential.evaluate(atoms, uncertainty=True)


def table(log: str) -> list[dict[str, float]]:
    from lammps_simulation import read_thermo

    return read_thermo(log)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", ["crystal", "triclinic"])
def test_the_same_as_without_lammps_on_any_number_of_ranks(lmp, uncertain, name, ranks):
    from lammps_simulation import read_dump

    atoms = structures.ALL[name]()
    run = lmp.run(atoms, COMPUTE + "run 0", ranks=ranks)
    expected = uncertain(atoms)
    frame = read_dump(lmp.folder / "u.lmp")[0]
    np.testing.assert_allclose(frame.columns["c_u[1]"], expected.force_std, rtol=1e-8)
    np.testing.assert_allclose(frame.columns["c_u[2]"], expected.distances, rtol=1e-8)
    row = table(run.log)[0]
    assert row["c_u[1]"] == pytest.approx(expected.energy_std, rel=1e-7)
    assert row["c_u[2]"] == pytest.approx(expected.force_std.max(), rel=1e-7)
    assert row["c_u[3]"] == pytest.approx(expected.distances.max(), rel=1e-7)


def test_units_and_threads(lmp, uncertain):
    atoms = structures.crystal()
    expected = uncertain(atoms)
    run = lmp.run(atoms, COMPUTE + "run 0", style="precision double threads 2", units="real")
    row = table(run.log)[0]
    kcal = 23.060549
    assert row["c_u[1]"] == pytest.approx(expected.energy_std * kcal, rel=1e-5)
    assert row["c_u[2]"] == pytest.approx(expected.force_std.max() * kcal, rel=1e-5)


def test_every_step_of_a_run(lmp, uncertain):
    """Values belong to the positions of their own step, also where only some steps ask for them."""
    from lammps_simulation import read_dump

    atoms = structures.crystal()
    lmp.run(atoms, COMPUTE + "thermo 7\n" + START + "dump x all custom 5 x.lmp id x y z\ndump_modify x sort id format float %.17g\nrun 20", ranks=2)
    frames, positions = read_dump(lmp.folder / "u.lmp"), read_dump(lmp.folder / "x.lmp")
    assert [f.step for f in frames] == [0, 5, 10, 15, 20]
    for frame, where in zip(frames, positions):
        atoms.positions = where.positions
        np.testing.assert_allclose(frame.columns["c_u[2]"], uncertain(atoms).distances, rtol=1e-7)


def test_a_group(lmp, uncertain):
    atoms = structures.crystal()
    run = lmp.run(atoms, "group few id 1:3\n" + COMPUTE.replace("u all", "u few", 1) + "run 0")
    expected = uncertain(atoms)
    assert table(run.log)[0]["c_u[3]"] == pytest.approx(expected.distances[:3].max(), rel=1e-7)


HOT = START.replace("600", "6000")


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_guard_halts_and_keeps_the_configuration(lmp, uncertain, ranks):
    atoms = structures.crystal()
    limit = 1.5 * uncertain(atoms).distances.max()
    commands = f"fix g all adatom/guard 2 distance {limit} action halt file caught.xyz\n" + HOT
    commands += 'run 400\nprint "after the halt"\nthermo_style custom step atoms f_g f_g[1] f_g[2] f_g[5] f_g[6]\nrun 0'
    run = lmp.run(atoms, commands, ranks=ranks)
    assert "after the halt" in run.log
    assert "halting the run" in run.log
    rows = [r for r in table(run.log)]
    last = rows[-1]["Step"]
    assert 0 < last < 400
    frames = ase.io.read(lmp.folder / "caught.xyz", ":")
    caught = frames[0]
    assert caught.info["step"] == last and caught.info["step"] % 2 == 0
    expected = uncertain(caught)
    assert expected.distances.max() > limit
    assert caught.arrays["adatom_distance"].max() == pytest.approx(expected.distances.max(), rel=1e-4)
    np.testing.assert_allclose(caught.arrays["adatom_forces"], expected.forces, atol=1e-5)
    np.testing.assert_allclose(caught.arrays["adatom_force_std"], expected.force_std, rtol=1e-4)
    assert caught.info["adatom_energy_std"] == pytest.approx(expected.energy_std, rel=1e-4)
    assert caught.calc is None  # nothing that would be taken for a label
    assert list(caught.symbols) == list(atoms.symbols) and caught.pbc.all()


def test_guard_keeps_what_is_new_only(lmp):
    atoms = structures.crystal()
    commands = "fix g all adatom/guard 1 distance 0.01 action none file {} novelty {}\n" + START + "run 10"
    lmp.run(atoms, commands.format("all.xyz", 1e-9))
    lmp.run(atoms, commands.format("few.xyz", 1e3))
    assert len(ase.io.read(lmp.folder / "all.xyz", ":")) == 11
    assert 1 <= len(ase.io.read(lmp.folder / "few.xyz", ":")) <= len(set(atoms.symbols))


def test_guard_collects_below_the_threshold(lmp):
    commands = "fix g all adatom/guard 1 distance 1e6 collect 0.01 action halt file caught.xyz novelty 1e-9\n" + START + "run 10"
    lmp.run(structures.crystal(), commands, ranks=2)
    frames = ase.io.read(lmp.folder / "caught.xyz", ":")
    assert [f.info["step"] for f in frames] == list(range(11)) and all("> 0.01" in f.info["reason"] for f in frames)


def test_guard_remembers_over_a_restart(lmp):
    atoms = structures.crystal()
    guard = "fix g all adatom/guard 1 distance 0.01 action warn file caught.xyz novelty 1e3\n"
    lmp.run(atoms, guard + START + "run 5\nwrite_restart state.restart")
    before = len(ase.io.read(lmp.folder / "caught.xyz", ":"))
    script = f"units metal\natom_modify map array\nread_restart state.restart\npair_style adatom precision double\npair_coeff * * {lmp.model} {' '.join(TYPES)}\n"
    script += guard + "fix move all nve\nthermo_style custom step atoms f_g[1] f_g[2]\nthermo 1\nrun 5\n"
    run = lmp.run_script(script, ranks=2)
    assert len(ase.io.read(lmp.folder / "caught.xyz", ":")) == before
    assert table(run.log)[-1]["f_g[2]"] == before
    assert table(run.log)[-1]["f_g[1]"] == 11  # steps 0 to 10: that of the restart file was counted by the run before


@pytest.mark.parametrize("ranks", [1, 2])
def test_guard_checks_what_a_run_begins_with(lmp, uncertain, ranks):
    """Displaced atoms are another configuration on the same step; the same configuration counts once."""
    atoms = structures.crystal()
    limit = 1.5 * uncertain(atoms).distances.max()
    commands = f"fix g all adatom/guard 1 distance {limit} action {{}} file {{}}\nfix move all nve\nthermo_style custom step atoms f_g[1] f_g[5]\n"
    begin = "group one id 3\nrun 0\nrun 0\ndisplace_atoms one move 0.4 0.3 0.2\n"
    run = lmp.run(atoms, commands.format("warn", "caught.xyz") + begin + "run 0\nrun 0\nrun 0 pre no", ranks=ranks)
    rows = table(run.log)
    assert [row["f_g[1]"] for row in rows] == [0, 0, 1, 1, 1]
    caught = ase.io.read(lmp.folder / "caught.xyz")
    assert rows[2]["f_g[5]"] == pytest.approx(uncertain(caught).distances.max(), rel=1e-4) and rows[2]["f_g[5]"] > limit > rows[1]["f_g[5]"]
    run = lmp.run(atoms, commands.format("halt", "halted.xyz") + begin + "run 5", ranks=ranks)
    assert "halting the run" in run.log and "timer timeout off" in run.log
    assert table(run.log)[-1]["Step"] == 0


def test_guard_counts_the_end_of_a_run_once(lmp):
    """Also where atoms changed images and ranks in between."""
    commands = "fix g all adatom/guard 1 distance 1e-9 action none\n" + HOT + "thermo_style custom step atoms f_g\nrun 20\nrun 20\nrun 20"
    assert table(lmp.run(structures.crystal(), commands, ranks=2).log)[-1]["f_g"] == 61


def test_after_a_halt(lmp):
    commands = "fix g all adatom/guard 1 distance 1e-9 action halt\n" + START + "thermo_style custom step atoms f_g\n"
    run = lmp.run(structures.crystal(), commands + "run 5\nunfix g\nthermo_style custom step atoms pe\nrun 5\ntimer timeout off\nrun 5")
    assert [row["Step"] for row in table(run.log)] == [0, 0, 1, 2, 3, 4, 5]  # the second run is skipped


def test_guard_counts_a_step_of_a_minimisation_once(lmp):
    commands = "fix g all adatom/guard 1 distance 1e-3 action none file caught.xyz novelty 1e-9\nthermo_style custom step atoms f_g\n"
    run = lmp.run(structures.small_cell(), commands + "min_style cg\nminimize 0 1e-6 10 1000")
    rows = table(run.log)
    assert rows[-1]["Step"] >= 5
    assert [row["f_g"] for row in rows] == [row["Step"] + 1 for row in rows]
    assert [frame.info["step"] for frame in ase.io.read(lmp.folder / "caught.xyz", ":")] == list(range(len(rows)))


@pytest.fixture(scope="session")
def knows_copper_only(model, plugin, tmp_path_factory):
    from adatom import Potential
    from adatom.uncertainty import fit

    potential = Potential.load(model, dtype="float64", threads=1)
    rng, atoms = np.random.default_rng(4), structures.crystal()
    atoms.numbers[:] = 29
    frames = [labelled(potential, atoms, rng, rng.uniform(0.02, 0.1)) for _ in range(24)]
    file = tmp_path_factory.mktemp("copper") / "copper.safetensors"
    fit(model, frames[:16], frames[16:], file, members=8)
    return file


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("threshold", ["distance 1e6", "force 1e6"])
def test_guard_keeps_what_is_new_beside_unknown_elements(tmp_path, knows_copper_only, plugin, threshold, ranks):
    """Oxygen has infinite distances and force deviations: atoms of copper tell configurations apart; without any, the first is kept."""
    lmp, atoms = Lammps(tmp_path, knows_copper_only, plugin), structures.crystal()
    commands = f"fix g {{}} adatom/guard 1 {threshold} action none file {{}} novelty {{}}\n" + START + "run 10"
    lmp.run(atoms, commands.format("all", "all.xyz", 1e-9), ranks=ranks)
    lmp.run(atoms, commands.format("all", "few.xyz", 1e3), ranks=ranks)
    lmp.run(atoms, "group oxygen type 2\n" + commands.format("oxygen", "oxygen.xyz", 1e-9), ranks=ranks)
    count = {name: len(ase.io.read(tmp_path / f"{name}.xyz", ":")) for name in ("all", "few", "oxygen")}
    assert count == {"all": 11, "few": 1, "oxygen": 1}
    assert "inf" in ase.io.read(tmp_path / "few.xyz", 0).info["reason"]


def test_guard_in_a_minimisation(lmp):
    run = lmp.run(structures.small_cell(), "fix g all adatom/guard 1 distance 1e-3 action halt\nminimize 0 1e-6 100 1000")
    assert "halting the run" in run.log


@pytest.mark.parametrize(
    "command, message",
    [
        ("fix g all adatom/guard 0 distance 1", "expected a number of steps"),
        ("fix g all adatom/guard 1", "no threshold"),
        ("fix g all adatom/guard 1 action halt", "no threshold"),
        ("fix g all adatom/guard 1.5 distance 1", "N is '1.5', expected a number of steps"),
        ("fix g all adatom/guard 1 distance -1", "expected a number above zero"),
        ("fix g all adatom/guard 1 distance far", "distance is 'far', expected a number above zero"),
        ("fix g all adatom/guard 1 distance 1 universe maybe action halt", "universe is 'maybe', expected yes or no"),
        ("fix g all adatom/guard 1 distance 1 universe yes", "action is not halt"),
        ("fix g all adatom/guard 1 distance 1 novel", "unknown keyword 'novel'"),
        ("fix g all adatom/guard 1 distance 1 action stop", "expected none, warn or halt"),
        ("fix g all adatom/guard 1 distance 1 novelty 1", "there is no file"),
        ("fix g all adatom/guard 1 distance 1 collect 0.5", "there is no file"),
        ("fix g all adatom/guard 1 distance 1 collect 2 file x.xyz", "not below the threshold of distance"),
        ("fix g all adatom/guard 1 distance 1 threshold 2", "unknown keyword 'threshold'"),
        ("fix g all adatom/guard 1 distance", "has no value"),
        ("fix g all adatom/guard 1 distance 2 distance 1", "'distance' is given twice"),
        ("fix g all adatom/guard 1 action warn distance 1 action halt", "'action' is given twice"),
        ("fix g all adatom/guard 1 distance 1e9 file /no/such/folder/caught.xyz", "cannot write to /no/such/folder/caught.xyz: No such file or directory"),
        ("fix g all adatom/guard 1 distance 1e9 file /tmp", "cannot write to /tmp: Is a directory"),
        ("compute u all adatom/uncertainty 3", "takes no arguments"),
    ],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_errors(lmp, command, message, ranks):
    assert message in lmp.fails(lmp.script(structures.crystal(), command + "\nrun 0"), ranks=ranks)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_file_that_takes_nothing(lmp, ranks):
    """The run goes on; said once."""
    commands = "fix g all adatom/guard 1 distance 1e-9 action none file /dev/full novelty 1e-9\n" + START
    run = lmp.run(structures.crystal(), commands + "thermo_style custom step atoms f_g[1] f_g[2]\nrun 3", ranks=ranks)
    assert run.log.count("cannot write to /dev/full: No space left on device") == 1
    assert table(run.log)[-1]["f_g[1]"] == 4 and table(run.log)[-1]["f_g[2]"] == 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_file_that_is_tried_when_the_fix_is_made(lmp, ranks):
    """Nothing is left where nothing is caught; a file that was there stays as it is; a folder that vanishes in the meantime does not end the run."""
    (lmp.folder / "old.xyz").write_text("what was there\n")
    (lmp.folder / "gone").mkdir()
    guard = "fix {0} all adatom/guard 1 distance {1} action none file {2}\n"
    commands = guard.format("a", 1e9, "new.xyz") + guard.format("b", 1e9, "old.xyz") + guard.format("c", 1e-9, "gone/caught.xyz") + "shell rmdir gone\n"
    run = lmp.run(structures.crystal(), commands + START + "thermo_style custom step atoms f_c[1] f_c[2]\nrun 3", ranks=ranks)
    assert not (lmp.folder / "new.xyz").exists() and (lmp.folder / "old.xyz").read_text() == "what was there\n"
    assert run.log.count("cannot write to gone/caught.xyz: No such file or directory; the run goes on") == 1
    assert table(run.log)[-1]["f_c[1]"] == 4 and table(run.log)[-1]["f_c[2]"] == 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_that_are_left_out_are_not_in_the_file(lmp, uncertain, ranks):
    atoms = structures.crystal()
    rest = atoms[3:]
    commands = "group out id 1:3\nneigh_modify exclude group out all\nfix g all adatom/guard 1 distance 1e-9 action none file caught.xyz\n"
    lmp.run(atoms, commands + "run 0", ranks=ranks)
    caught = ase.io.read(lmp.folder / "caught.xyz")
    assert len(caught) == len(rest) and list(caught.symbols) == list(rest.symbols)
    np.testing.assert_allclose(caught.arrays["adatom_distance"], uncertain(rest).distances, rtol=1e-4)


NEB = """
min_style quickmin
timestep 0.001
fix spring all neb 1.0
fix g all adatom/guard 1 distance {} action halt{}
neb 0.0 0.001 10 10 5 final final.neb
print "after the halt"
"""


def test_replicas_that_halt_together(lmp, uncertain):
    """The middle one of three replicas alone is far from the training set; without `universe yes` the others would wait for it for ever."""
    atoms = structures.crystal()
    far = atoms.copy()
    far.positions[3] += [0.5, 0.4, 0.3]
    limit = np.sqrt(uncertain(atoms).distances.max() * uncertain(far).distances.max())
    assert limit < uncertain(far).distances.max()
    (lmp.folder / "final.neb").write_text("1\n4 {:.10f} {:.10f} {:.10f}\n".format(*(atoms.positions[3] + 2 * (far.positions[3] - atoms.positions[3]))))

    def start(universe: str):
        for log in lmp.folder.glob("*.lammps*"):
            log.unlink()
        script = lmp.script(atoms, NEB.format(limit, universe)).replace("atom_modify map array", "atom_modify map array sort 0 0.0")
        process = lmp.start(script, 3, ("-partition", "3x1"), timeout=60.0)
        logs = [(lmp.folder / f"log.lammps.{k}").read_text() for k in range(3)]
        return process.returncode, logs

    status, logs = start(" universe yes")
    assert status == 0
    assert all(" halts the run" in log or "halting the run" in log for log in logs) and all("after the halt" in log for log in logs)
    assert any("another partition halts the run" in log for log in logs)
    status, logs = start("")
    assert status != 0 and "action halt needs 'universe yes'" in "".join(logs)
    status, logs = start(" universe no")
    assert status != 0 and "the partitions of this command wait for each other" in "".join(logs)


def test_partitions_that_halt_each_for_itself_or_together(lmp, uncertain):
    atoms = structures.crystal()
    limit = 1.2 * uncertain(atoms).distances.max()
    commands = "variable x world 0.0 0.5\ngroup one id 4\ndisplace_atoms one move $x $x 0\n" \
               "fix g all adatom/guard 1 distance {} action halt universe {}\n" + START + "run 3"
    for universe, steps in (("no", [3, 0]), ("yes", [0, 0])):
        process = lmp.start(lmp.script(atoms, commands.format(limit, universe)), 2, ("-partition", "2x1"))
        assert process.returncode == 0, process.stdout[-2000:]
        assert [table((lmp.folder / f"log.lammps.{k}").read_text())[-1]["Step"] for k in range(2)] == steps


def test_a_full_disk_leaves_whole_frames(lmp):
    """What does not fit is taken back, and a run with more space goes on behind the last whole frame."""
    guard = "fix g all adatom/guard 1 distance 1e-9 action none file caught.xyz novelty 1e-9\n" + START
    script = lmp.script(structures.crystal(), guard + "thermo_style custom step atoms f_g[1] f_g[2]\nrun 9")
    file, log = lmp.folder / "caught.xyz", lmp.folder / "log.lammps"
    lmp.run_script(script)
    frame = file.read_text()[: file.read_text().index("\n32\n") + 1]
    space = 2 ** 24  # of any file; MPI wants some megabytes for itself
    before = frame * (space // len(frame) - 2)
    file.write_text(before)
    assert space - len(before) > 2 * len(frame) - 100
    # `lmp` itself, since its wrapper in Python would give the signal back its default action, which is to end the process
    start = "import lammps, os, resource, signal, sys\n" \
            "import lammps.executable as e\n" \
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" \
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({space}, {space}))\n" \
            "os.execv(os.path.join(e.ROOT_DIR, 'lmp'), ['lmp', '-in', 'in.lmp', '-log', 'log.lammps'])\n"
    process = subprocess.run([sys.executable, "-c", start], cwd=lmp.folder, env=lmp.environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    assert process.stdout.count("cannot write to caught.xyz: File too large") == 1
    kept = int(table(log.read_text())[-1]["f_g[2]"])
    assert 1 <= kept <= 3
    assert table(log.read_text())[-1]["f_g[1]"] == 10
    assert file.read_text().startswith(before)
    assert len(ase.io.read(io.StringIO(file.read_text()[len(before):]), ":", format="extxyz")) == kept
    lmp.run_script(script)
    assert len(ase.io.read(io.StringIO(file.read_text()[len(before):]), ":", format="extxyz")) == kept + 10


@pytest.mark.parametrize("command", ["fix g all adatom/guard 1 distance 1", "compute u all adatom/uncertainty\nfix p all print 1 '$(c_u[1])'"])
def test_a_model_without_detectors(tmp_path, model, plugin, command):
    lmp = Lammps(tmp_path, model, plugin)
    assert "the model has no detectors of uncertainty: add them with `adatom calibrate`" in lmp.fails(lmp.script(structures.crystal(), command + "\nrun 0"))


def test_another_pair_style(lmp):
    pair = "pair_style lj/cut 5.0\npair_coeff * * 0.01 2.0"
    assert "needs pair_style adatom" in lmp.fails(lmp.script(structures.crystal(), "fix g all adatom/guard 1 distance 1\nrun 0", pair=pair))
