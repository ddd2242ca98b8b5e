# SPDX-License-Identifier: MIT
"""The command `adatom`, each subcommand as a user runs it."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from small_model import small_model, write_small_model

import adatom
import adatom.cli
from adatom import AdatomCalculator
from adatom.cli import bench as bench_module
from adatom.cli.import_model import atomic_numbers
from adatom.importers import write_model

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def labelled(model_file, tmp_path_factory):
    """Four crystals whose labels are the model's own values, moved by known amounts."""
    calculator = AdatomCalculator(model_file, dtype="float64")
    structures = []
    for i in range(4):
        atoms = bulk("Cu", cubic=True)
        atoms.numbers[1] = 8
        atoms.rattle(0.1, seed=i)
        atoms.calc = calculator
        forces = atoms.get_forces() + np.where(atoms.numbers == 8, 0.02, 0.01)[:, None]
        stress = atoms.get_stress() + 0.003
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy() + 0.04, forces=forces, stress=stress)
        structures.append(atoms)
    file = tmp_path_factory.mktemp("data") / "labelled.extxyz"
    ase.io.write(file, structures)
    return file


def test_info(adatom_command, model_file):
    document = adatom_command("info", model_file, as_json=True)
    assert document["elements"] == ["C", "O", "Cu"] and document["heads"] == ["default"]
    assert document["cutoff"] == 4.0 and document["bytes"] == model_file.stat().st_size
    assert document["parameters"] == 1266 and len(document["sha256"]) == 64
    text = adatom_command("info", model_file).stdout
    assert "C O Cu" in text and "4 angstrom" in text


def test_info_of_something_else(adatom_command, tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("Dear model,")
    for path in (file, tmp_path / "missing"):
        process = adatom_command("info", path, check=False)
        assert process.returncode == 1 and path.name in process.stderr and "Traceback" not in process.stderr


def test_eval(adatom_command, model_file, labelled, tmp_path):
    document = adatom_command("eval", model_file, labelled, "-o", tmp_path / "parity.png", as_json=True)
    errors = {(row["quantity"], row["element"]): row for row in document["errors"]}
    assert document["structures"] == 4 and document["atoms"] == 16
    assert set(errors) == {("energy", None), ("forces", None), ("forces", "O"), ("forces", "Cu"), ("stress", None)}
    for key, expected in {("energy", None): 0.01, ("forces", "O"): 0.02, ("forces", "Cu"): 0.01, ("stress", None): 0.003}.items():
        assert errors[key]["mae"] == pytest.approx(expected, abs=1e-6)
        assert errors[key]["rmse"] == pytest.approx(expected, abs=1e-6)
    assert errors["forces", None]["rmse"] == pytest.approx(math.sqrt((0.02**2 + 3 * 0.01**2) / 4), abs=1e-6)
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")
    assert "forces on Cu" in adatom_command("eval", model_file, labelled).stdout


def test_eval_needs_labels(adatom_command, model_file, tmp_path):
    ase.io.write(tmp_path / "plain.xyz", bulk("Cu"), format="extxyz")
    process = adatom_command("eval", model_file, tmp_path / "plain.xyz", check=False)
    assert process.returncode == 1 and "--energy-key" in process.stderr
    atoms = bulk("Cu")
    atoms.info["E_tot"], atoms.arrays["my_forces"] = -1.5, np.ones((1, 3))
    ase.io.write(tmp_path / "named.xyz", atoms, format="extxyz")
    process = adatom_command("eval", model_file, tmp_path / "named.xyz", check=False)
    message = " ".join(process.stderr.split())
    assert process.returncode == 1 and "the entries E_tot, Lattice, Properties, pbc; its columns are my_forces, pos, species" in message
    rows = adatom_command("eval", model_file, tmp_path / "named.xyz", "--energy-key", "E_tot", "--forces-key", "my_forces", as_json=True)["errors"]
    assert {row["quantity"] for row in rows} == {"energy", "forces"}


def test_relax(adatom_command, model_file, labelled, tmp_path):
    output = tmp_path / "relaxed.extxyz"
    document = adatom_command("relax", model_file, labelled, "-o", output, "--fmax", 0.02, as_json=True)
    assert document["converged"] and document["fmax"] <= 0.02 and document["energy"] < document["energy_initial"]
    relaxed = ase.io.read(output)
    assert relaxed.get_potential_energy() == pytest.approx(document["energy"])
    relaxed.calc = AdatomCalculator(model_file, dtype="float64")
    assert np.linalg.norm(relaxed.get_forces(), axis=1).max() < 0.021  # extxyz keeps eight decimals


def test_relax_the_cell(adatom_command, model_file, tmp_path):
    start, output = tmp_path / "start.extxyz", tmp_path / "relaxed.extxyz"
    ase.io.write(start, bulk("Cu", a=3.7))
    document = adatom_command("relax", model_file, start, "-o", output, "--cell", "--fmax", 0.001, as_json=True)
    assert document["converged"] and np.abs(document["stress"]).max() / units.GPa == pytest.approx(document["smax_GPa"]) and document["smax_GPa"] < 0.01
    rough = adatom_command("relax", model_file, start, "-o", output, "--cell", "--smax", 1.0, as_json=True)
    assert 0.01 < rough["smax_GPa"] <= 1.0 and rough["steps"] < document["steps"]
    assert "of the stress's components" in adatom_command("relax", model_file, start, "-o", output, "--cell").stdout
    assert "--cell" in adatom_command("relax", model_file, start, "-o", output, "--smax", 1.0, check=False).stderr
    assert document["volume"] != pytest.approx(bulk("Cu", a=3.7).get_volume())
    molecule = tmp_path / "molecule.xyz"
    ase.io.write(molecule, ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.2]]))
    process = adatom_command("relax", model_file, molecule, "-o", output, "--cell", check=False)
    assert process.returncode == 1 and "pbc" in process.stderr


def test_relax_tells_when_it_did_not_converge(adatom_command, model_file, labelled, tmp_path):
    process = adatom_command("relax", model_file, labelled, "-o", tmp_path / "r.xyz", "--steps", 1, "--fmax", 1e-9, "--json", check=False)
    assert process.returncode == 2 and json.loads(process.stdout)["converged"] is False


@pytest.mark.parametrize(("name", "message"), [("r.foo", "no format of that suffix"), ("nowhere/r.xyz", "there is no folder"), (".", "is a folder")])
def test_relax_checks_first_what_it_will_write(adatom_command, model_file, labelled, tmp_path, name, message):
    process = adatom_command("relax", model_file, labelled, "-o", tmp_path / name, check=False)
    assert process.returncode == 1 and message in process.stderr and "Traceback" not in process.stderr


@pytest.mark.parametrize("rattle, message", [(0.35, "fell into a hole"), (0.5, "before the first step")])
def test_relax_into_a_hole_ends(adatom_command, tmp_path, rattle, message):
    """The potential of metals has no repulsion between atoms much closer than in any of its data."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(rattle, seed=1)
    ase.io.write(tmp_path / "close.extxyz", atoms)
    process = adatom_command("relax", MODELS / "metals/model.safetensors", tmp_path / "close.extxyz", "-o", tmp_path / "r.xyz", check=False)
    assert process.returncode == 1 and message in process.stderr and "as far from the training data" in process.stderr


def test_info_tells_of_detectors(adatom_command, model_file):
    document = adatom_command("info", MODELS / "metals/model.safetensors", as_json=True)
    assert document["uncertainty"]["members"] == 32 and document["uncertainty"]["fitted"]["held_out"] == 110
    assert "32 members" in adatom_command("info", MODELS / "metals/model.safetensors").stdout
    document = adatom_command("info", model_file, as_json=True)
    assert document["uncertainty"]["members"] == 0 and document["uncertainty"]["why"]


@pytest.mark.parametrize("options", [(), ("--cell",), ("--steps", 1)])
def test_relax_with_absurd_weights_ends(adatom_command, labelled, tmp_path, options):
    """In double precision energies of 1e100 eV are numbers: a line search would go on for ever."""
    tensors, document = small_model()
    tensors["layers.1.linear.0e"] = 1e60 * tensors["layers.1.linear.0e"]
    file = tmp_path / "absurd.safetensors"
    write_model(file, tensors, document)
    process = adatom_command("relax", file, labelled, "-o", tmp_path / "r.xyz", *options, check=False)
    assert process.returncode == 1 and "before the first step" in process.stderr and "the model is damaged" in process.stderr


def test_relax_reads_what_others_read_or_says_what_to_do(adatom_command, model_file, labelled, tmp_path):
    adatom_command("data", "convert", labelled, "-o", tmp_path / "x.cache")
    document = adatom_command("relax", model_file, tmp_path / "x.cache", "-o", tmp_path / "r.xyz", "--fmax", 0.02, as_json=True)
    assert document["converged"]
    (tmp_path / "latin1.extxyz").write_bytes('1\nProperties=species:S:1:pos:R:3 note="für"\nCu 0 0 0\n'.encode("latin-1"))
    (tmp_path / "x.what").write_text("what\n")
    for name, advice in (("latin1.extxyz", "save it as UTF-8"), ("x.what", "ASE knows no format")):
        process = adatom_command("relax", model_file, tmp_path / name, "-o", tmp_path / "r.xyz", check=False)
        assert process.returncode == 1 and f"{name}: " in process.stderr and advice in process.stderr


def test_control_characters_stay_in_their_files(adatom_command, labelled, tmp_path):
    """They could clear the terminal or set its title."""
    model = write_small_model(tmp_path / "model.safetensors", heads=("a\x1b[2Jb", "\x9b31m"))
    structures = tmp_path / "x.extxyz"
    structures.write_text(labelled.read_text().replace("Properties=", 'config_type="\x1b]0;owned\x07" Properties='))
    (tmp_path / "t.toml").write_text('"\\u001b[2Jbad" = 1\n')
    for arguments in (("info", model), ("data", "stats", structures), ("eval", model, structures), ("train", tmp_path / "t.toml")):
        process = adatom_command(*arguments, check=False)
        shown = process.stdout + process.stderr
        assert not set(shown) & {"\x1b", "\x9b", "\x07"} and "?" in shown, (arguments, shown)


def test_names_are_printed_as_they_are(adatom_command, labelled, tmp_path):
    """Square brackets are markup of the library that prints tables, an @ is an index of ASE's."""
    model = write_small_model(tmp_path / "m[bold]:smile:.safetensors", heads=("a[red]b",))
    structures = tmp_path / "x[0]@2.extxyz"
    structures.write_bytes(labelled.read_bytes())

    def printed(*arguments):
        return "".join(adatom_command(*arguments).stdout.replace("│", "").split())  # long names are folded

    assert model.name in printed("info", model) and "a[red]b" in printed("info", model)
    assert structures.name in printed("eval", model, structures)
    assert "[bold]:smile:" in printed("bench", model, "--atoms", 10, "--steps", 1)
    assert "x[0]@2" in printed("data", "stats", structures)


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("std::bad_alloc"), RuntimeError(), ValueError("no such thing")])
def test_errors_are_one_line(monkeypatch, capsys, error):
    def fail():
        raise error

    monkeypatch.setattr(adatom.cli, "app", fail)
    with pytest.raises(SystemExit) as end:
        adatom.cli.main()
    text = capsys.readouterr().err
    assert end.value.code == 1 and text.startswith("adatom: error: ") and text.count("\n") == 1 and len(text) > 20
    assert ("memory" in text) == isinstance(error, MemoryError)


def test_version(adatom_command):
    assert adatom_command("--version").stdout == f"adatom {adatom.__version__}\n"


def test_bench(adatom_command, model_file, labelled):
    document = adatom_command("bench", model_file, "--atoms", 100, "--threads", 1, "--steps", 3, as_json=True)
    assert document["atoms"] == 108 and document["threads"] == 1 and document["steps"] == 3
    for key in ("us_per_atom_step", "peak_bytes_per_atom", "flops_per_atom_step", "ms_per_step"):
        assert 0 < document[key] < math.inf
    assert 0 < document["fma_peak_share"] < 1
    assert document["ms_per_step"] == pytest.approx(document["us_per_atom_step"] * 108 / 1e3)
    document = adatom_command("bench", model_file, "--structure", labelled, "--steps", 1, as_json=True)
    assert document["atoms"] == 4
    process = adatom_command("bench", model_file, "--structure", labelled, "--atoms", 5, check=False)
    assert process.returncode == 1 and "exclude each other" in process.stderr


def test_crystal_of_the_bench():
    assert len(bench_module.crystal((29, 8), None, 200)) == 256
    assert set(bench_module.crystal((1, 8), "O", 10).symbols) == {"O"}
    with pytest.raises(ValueError, match="Pt"):
        bench_module.crystal((29, 8), "Pt", 10)


def test_import_without_the_package(adatom_command, model_file, tmp_path):
    for family, package in (("mace", "mace"), ("sevennet", "sevenn")):
        if importlib.util.find_spec(package):
            continue
        process = adatom_command("import", family, model_file, "-o", tmp_path / "out.safetensors", check=False)
        assert process.returncode == 1 and "pip install" in process.stderr and not (tmp_path / "out.safetensors").exists()


def test_elements_of_import():
    assert atomic_numbers("Cu, O") == [29, 8] and atomic_numbers(None) is None
    with pytest.raises(ValueError, match="Qq"):
        atomic_numbers("Cu,Qq")
    with pytest.raises(ValueError, match="no element"):
        atomic_numbers(",")


def test_help_names_every_command(adatom_command):
    text = adatom_command("--help").stdout
    for name in ("info", "import", "eval", "relax", "bench", "data"):
        assert name in text
