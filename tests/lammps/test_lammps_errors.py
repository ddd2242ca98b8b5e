# SPDX-License-Identifier: MIT
"""What is wrong is said, together with what to do, and every rank stops."""
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import lammps_structures as structures

TYPES = "Cu O C"


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("pair, message", [
    ("pair_style adatom device", "'device' at the end of the command has no value"),
    ("pair_style adatom device gpu", "device is 'gpu', expected cpu or cuda"),
    ("pair_style adatom precision half", "precision is 'half', expected float or double"),
    ("pair_style adatom threads 0", "threads is '0', expected a number from 1"),
    ("pair_style adatom threads many", "threads is 'many'"),
    ("pair_style adatom splines maybe", "splines is 'maybe', expected no or yes"),
    ("pair_style adatom no_domain_decomposition", "unknown keyword 'no_domain_decomposition', expected device"),
    ("pair_style adatom 5.0", "unknown keyword '5.0', expected device, precision, threads, head, splines or matmul (the cutoff is the model's)"),
    ("pair_style adatom precision float precision double", "'precision' is given twice"),
    ("pair_style adatom colour blue", "unknown keyword 'colour', expected device, precision, threads, head, splines or matmul"),
    ("pair_style adatom matmul half", "matmul is 'half', expected exact, tf32 or bf16"),
    ("pair_style adatom matmul tf32\npair_coeff * * {model} Cu O C", "matmul tf32 and bf16 are for device cuda and float32"),
    ("pair_style adatom head nonsense\npair_coeff * * {model} Cu O C", "nonsense"),
    ("pair_style adatom\npair_coeff * * {model} Cu O", "names 2 elements after the file"),
    ("pair_style adatom\npair_coeff * * {model} Cu O C H", "names 4 elements after the file"),
    ("pair_style adatom\npair_coeff * *", "has the form 'pair_coeff * * FILE"),
    ("pair_style adatom\npair_coeff 1 1 {model} Cu O C", "must start with * *"),
    ("pair_style adatom\npair_coeff * * {model} Cu O Qq", "atom type 3 to 'Qq'"),
    ("pair_style adatom\npair_coeff * * {model} Cu O cu", "atom type 3 to 'cu'"),
    ("pair_style adatom\npair_coeff * * {model} Cu O Ag", "Ag"),
    ("pair_style adatom\npair_coeff * * {model} Cu O NULL", "atom type 3 to NULL, but no other style handles it"),
    ("pair_style hybrid/overlay zero 3.0 adatom\npair_coeff * * zero\npair_coeff * * adatom {model} NULL NULL NULL", "every atom type to NULL"),
    ("pair_style adatom\npair_coeff * * nowhere.safetensors Cu O C", "'nowhere.safetensors' not found in the working directory"),
    ("pair_style adatom", "pair coeffs are not set"),
])
def test_commands(lmp, pair, message, ranks):
    script = lmp.script(structures.crystal(), pair=pair.format(model=lmp.model))
    assert message in lmp.fails(script, ranks)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("content", [b"", b"plain text\n", pickle.dumps({"weights": [1.0, 2.0]}), b"\xff" * 64])
def test_not_a_model_file(lmp, content, ranks):
    file = lmp.folder / "model.pt"
    file.write_bytes(content)
    output = lmp.fails(lmp.script(structures.crystal(), pair=f"pair_style adatom\npair_coeff * * model.pt {TYPES}"), ranks)
    assert "pair style adatom: " in output and "model.pt" in output


def test_model_file_that_one_rank_does_not_see(lmp):
    """Each rank reads the file: one that lacks it must stop all, not leave the others waiting. The second rank runs in another folder."""
    (lmp.folder / "model.safetensors").write_bytes(lmp.model.read_bytes())
    script = lmp.script(structures.crystal(), pair=f"pair_style adatom\npair_coeff * * model.safetensors {TYPES}")
    (lmp.folder / "in.lmp").write_text(script)
    (lmp.folder / "other").mkdir()
    (lmp.folder / "other" / "data.lmp").write_bytes((lmp.folder / "data.lmp").read_bytes())
    tools = Path(sys.executable).parent
    rank = [str(tools / "lmp"), "-in", "in.lmp"]
    command = [str(tools / "mpirun"), "-n", "1", "-wdir", str(lmp.folder), *rank, ":", "-n", "1", "-wdir", str(lmp.folder / "other"), *rank]
    process = subprocess.run(command, cwd=lmp.folder, env=lmp.environment, capture_output=True, text=True, timeout=60)
    assert process.returncode != 0
    assert "'model.safetensors' not found" in process.stdout + process.stderr


def test_truncated_model_file(lmp):
    whole = lmp.model.read_bytes()
    (lmp.folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    output = lmp.fails(lmp.script(structures.crystal(), pair=f"pair_style adatom\npair_coeff * * cut.safetensors {TYPES}"), 2)
    assert "cut.safetensors" in output


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("before, commands, message", [
    ("newton off", "", "put 'newton on' before the box is created"),
    ("newton off on", "", "put 'newton on' before the box is created"),
    ("", "neigh_modify exclude type 1 2", "'neigh_modify exclude type 1 2' takes pairs of atom types 1 (Cu) and 2 (O) out"),
    ("", "neigh_modify exclude group all all", "'neigh_modify exclude group all all' takes pairs"),
    ("", "group a id 5\ngroup b id 9\nneigh_modify exclude group a b", "'neigh_modify exclude group a b' takes pairs"),
    ("", "group heavy type 1\natom_modify first heavy\ncomm_modify group heavy", "use 'comm_modify group all'"),
    ("", "compute t all pe/tally all", "compute t (pe/tally) adds up energies or forces of pairs"),
    ("", "run 0\nset atom 5 type 3\nrun 1 pre no", "the type of atom 5 changed without a new neighbour list"),
    ("", "run 0\npair_style adatom precision float\nrun 1 pre no", "'pair_style' or 'pair_coeff' was given anew"),
    ("", "run 0\npair_coeff * * {model} O Cu C\nrun 1 pre no", "'pair_style' or 'pair_coeff' was given anew"),
    ("atom_modify first heavy\ngroup heavy type 1", "neigh_modify include heavy", "use 'neigh_modify include all'"),
])
def test_settings_that_the_potential_cannot_work_with(lmp, before, commands, message, ranks):
    if "group" in before:
        before, commands = "", "group heavy type 1\natom_modify first heavy\n" + commands
    assert message in lmp.fails(lmp.script(structures.crystal(), commands.format(model=lmp.model) + "\nrun 0", before=before), ranks)


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_that_outrun_their_list(lmp, ranks):
    """A warning, once, where LAMMPS is told not to look; none where it makes the list anew in time, or where the box takes atoms along."""
    move = "fix m all move linear 100 0 0\n"
    keep = "neigh_modify every 100 delay 100 check no\n"
    said = "WARNING: pair style adatom: on step 10 an atom has moved more than half of the skin (2)"
    assert lmp.run(structures.crystal(), keep + move + "run 20", ranks=ranks).log.count(said) == 1
    assert "WARNING: pair style adatom" not in lmp.run(structures.crystal(), move + "run 20", ranks=ranks).log
    deform = "fix m all deform 1 x scale 1.5 remap x\nfix n all nve\n"
    assert "WARNING: pair style adatom" not in lmp.run(structures.crystal(), keep + deform + "run 3", ranks=ranks).log


def test_heat_flux(lmp):
    """LAMMPS cannot compute it from what it gets for atoms; said once for a pair_style."""
    heat = "compute k all ke/atom\ncompute h all heat/flux k energy centroid\n"
    assert lmp.run(structures.crystal(), heat + "run 0\nrun 0").log.count("WARNING: compute heat/flux is wrong for pair style adatom") == 1
    assert "heat/flux" not in lmp.run(structures.crystal()).log


@pytest.mark.parametrize("ranks", [1, 2])
def test_too_little_memory(lmp, ranks):
    """What allocates is on one rank; all of them end, and are told how much there is to do."""
    (lmp.folder / "in.lmp").write_text(lmp.script(structures.crystal() * (10, 10, 10), "run 0"))
    tools = Path(sys.executable).parent
    command = ["bash", "-c", f"ulimit -v 700000; exec {tools / 'lmp'} -in in.lmp"]
    command = [str(tools / "mpirun"), "-n", "2", *command] if ranks == 2 else command
    process = subprocess.run(command, cwd=lmp.folder, env=lmp.environment, capture_output=True, text=True, timeout=60)
    assert process.returncode != 0
    atoms = "32000 atoms of this rank" if ranks == 1 else "16000 atoms of this rank and "
    assert f"not enough memory for the {atoms}" in process.stdout + process.stderr, process.stdout[-2000:] + process.stderr[-2000:]


@pytest.mark.parametrize("git, descriptor, works", [(1, None, True), (1, "stable_22Jul2025_update2", False), (1, "patch_22Jul2025-917-gabc", False), (0, "", True)])
def test_updates_of_a_version(lmp, tmp_path, git, descriptor, works):
    """A LAMMPS of another update has other classes and the same version: the plugin is not for it. Functions that say what it is are replaced here."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    source = f"_Bool _ZN9LAMMPS_NS6LAMMPS12has_git_infoEv(void) {{ return {git}; }}\n"
    if descriptor is not None:
        source += f'const char* _ZN9LAMMPS_NS6LAMMPS14git_descriptorEv(void) {{ return "{descriptor}"; }}\n'
    (tmp_path / "other.c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "other.so", "other.c"], cwd=tmp_path, check=True)
    lmp.environment["LD_PRELOAD"] = str(tmp_path / "other.so")
    if works:
        assert lmp.run(structures.crystal()).thermo
    else:
        output = lmp.fails(lmp.script(structures.crystal()))
        assert "the plugin was compiled for LAMMPS 22 Jul 2025 - Update " in output and f"({descriptor})" in output and "Unrecognized pair style" in output


def test_units_lj(lmp):
    assert "'units lj' has no scale" in lmp.fails(lmp.script(structures.crystal(), units="lj"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_position_that_is_not_a_number(lmp, ranks):
    """Set between two builds of the list, so that LAMMPS's own checks do not see it. Only one rank owns the atom: the others wait for its halo."""
    commands = "fix move all nve\nneigh_modify every 100 delay 100 check no\ngroup one id 5\nrun 2\n" \
               "velocity one set 1e308 0 0\ntimestep 1000\nrun 5 pre no"
    output = lmp.fails(lmp.script(structures.crystal(), commands), ranks)
    assert "atom 5 is at (" in output and "the simulation is unstable" in output


MOLECULE = """
units metal
atom_style bond
boundary p p p
{special}
region box block 0 20 0 20 0 20
create_box 3 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 4
create_atoms 3 single 10 10 10
create_atoms 2 single 11.2 10 10
mass * 12.0
bond_style zero
bond_coeff 1
{bond}
pair_style adatom precision double
pair_coeff * * {model} Cu O C
thermo_style custom step atoms pe
thermo_modify format float %.17g norm no
run 0
"""
BOND = "create_bonds single/bond 1 1 2"


@pytest.mark.parametrize("ranks", [1, 2])
def test_bonds_that_are_no_more(lmp, ranks):
    """LAMMPS leaves pairs out as long as atoms are called special, with or without a bond."""
    commands = BOND + "\ndelete_bonds all bond 1 remove"
    assert "1-2 neighbours are zero" in lmp.fails(MOLECULE.format(special="", bond=commands, model=lmp.model), ranks)
    free = lmp.run_script(MOLECULE.format(special="", bond="", model=lmp.model), ranks)
    deleted = lmp.run_script(MOLECULE.format(special="", bond=commands + " special", model=lmp.model), ranks)
    assert deleted.thermo == free.thermo


def test_bonds_that_exclude_pairs(lmp):
    output = lmp.fails(MOLECULE.format(special="", bond=BOND, model=lmp.model), 2)
    assert "'special_bonds lj/coul 1 1 1'" in output and "1-2 neighbours" in output


@pytest.mark.parametrize("special", ["special_bonds lj/coul 1 1 1", "special_bonds lj 0 0 0 coul 0.5 0.5 0.5"])
def test_bonds_without_exclusions(lmp, special):
    """Weights between zero and one keep a pair in the list; the model takes it whole."""
    bonded = lmp.run_script(MOLECULE.format(special=special, bond=BOND, model=lmp.model))
    free = lmp.run_script(MOLECULE.format(special="", bond="", model=lmp.model))
    assert bonded.thermo[0]["PotEng"] == pytest.approx(free.thermo[0]["PotEng"], rel=1e-12)


@pytest.mark.parametrize(
    "masses, units, said",
    [
        ("mass 1 63.546", "metal", ""),
        ("mass 1 58.693", "metal", "type 1 is Cu (atomic weight 63.546), but has mass 58.693, which is that of Ni"),
        ("mass 1 63.546\nmass 2 12.011\nmass 3 15.999", "real", "type 2 is O (atomic weight 15.999), but has mass 12.011, which is that of C; type 3 is C"),
        ("mass 1 65.0\nmass 2 18.0\nmass 3 13.0034", "metal", ""),  # isotopes
        ("mass 2 30.0", "metal", "type 2 is O (atomic weight 15.999), but has mass 30, which is far from it"),
        ("mass * 1.0552e-25\nmass 2 2.6567e-26\nmass 3 1.9945e-26", "si", ""),
        ("mass 1 9.746e-26\nmass 2 2.6567e-26\nmass 3 1.9945e-26", "si", "has mass 58.69"),
    ],
)
def test_masses(lmp, masses, units, said):
    """A warning, once, where a mass is not that of the element."""
    scale = {"si": 1e-10}.get(units, 1.0)
    run = lmp.run(structures.crystal(), ("neighbor 1e-10 bin\n" if units == "si" else "") + masses + "\nrun 0\nrun 0", ranks=2 if said else 1, units=units, scale=scale)
    warnings = [line for line in run.log.splitlines() if "pair style adatom: atom type" in line]
    assert len(warnings) == bool(said)
    assert all(said in warning for warning in warnings)
