# SPDX-License-Identifier: MIT
"""What a run says of labels that are not what it takes them for, before its first epoch."""

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from training_runs import DATA

pytest.importorskip("torch", reason="training needs torch")
from adatom.training import train  # noqa: E402

ATOMS = DATA / "3bpa_isolated_atoms.extxyz"
ENERGIES = {"H": -13.587, "C": -1029.489, "N": -1484.981, "O": -2041.982}


@pytest.fixture
def frames():
    return ase.io.read(DATA / "3bpa_sample.extxyz", ":12")


def with_data(config, folder, frames, atoms=None, **data):
    """The configuration with these frames and, if there are any, isolated atoms in a file of their own."""
    ase.io.write(folder / "data.extxyz", frames)
    data["train"] = [str(folder / "data.extxyz")]
    if atoms:
        ase.io.write(folder / "atoms.extxyz", atoms)
        data["isolated_atoms"] = str(folder / "atoms.extxyz")
    rest = {key: value for key, value in config["data"].items() if key not in ("train", "valid", "isolated_atoms")}
    return {**config, "data": {**({} if "valid" in data else {"valid_fraction": 0.2}), **{k: v for k, v in rest.items() if k != "valid_fraction"}, **data}, "training": {**config["training"], "epochs": 1}}


def isolated_atoms(**other):
    atoms = ase.io.read(ATOMS, ":")
    for one in atoms:
        one.calc.results["energy"] = other.get(one.get_chemical_formula(), one.calc.results["energy"])
    return atoms


def warnings_of(config):
    with pytest.warns(UserWarning):
        return train(config).warnings


def test_atomic_energies_that_do_not_belong_to_the_data(config, tmp_path, frames):
    found = warnings_of(with_data(config, tmp_path, frames, isolated_atoms(C=-102.949)))
    assert len(found) == 1 and found[0].startswith("the atomic energies do not belong to data.train: the energies less the sum of the atomic energies are -4")
    assert "-20 eV per atom to 0 are expected" in found[0] and "least_squares" in found[0]


def test_atomic_energies_of_zero_for_all_electron_totals(config, tmp_path, frames):
    (found,) = warnings_of(with_data(config, tmp_path, frames, atomic_energies="zero"))
    assert found.startswith("the atomic energies do not belong to data.train")


@pytest.mark.parametrize("same_file", [True, False])
def test_isolated_atoms_that_contradict_each_other(config, tmp_path, frames, same_file):
    more = isolated_atoms(C=-1037.1)
    run = with_data(config, tmp_path, frames if same_file else frames + more[:1], isolated_atoms() + (more if same_file else []))
    with pytest.raises((ValueError, RuntimeError)) as caught:
        train(run)
    assert "this isolated atom of C has an energy of -1037.1 eV, another one of the data has -1029.48899" in str(caught.value)
    assert ("atoms.extxyz: frame 4" if same_file else "data.extxyz: frame 12") in str(caught.value)


def test_the_same_isolated_atoms_twice_are_no_contradiction(config, tmp_path, frames):
    assert train(with_data(config, tmp_path, frames + isolated_atoms(), isolated_atoms(C=-1029.4885))).warnings == []


def test_a_table_that_contradicts_the_isolated_atoms(config, tmp_path, frames):
    run = with_data(config, tmp_path, frames, isolated_atoms(), atomic_energy_of={**ENERGIES, "C": -102.9})
    with pytest.raises((ValueError, RuntimeError), match=r"data.atomic_energy_of.C is -102.9 eV, but the isolated atom of C in the data has -1029.4"):
        train(run)
    run["data"]["atomic_energy_of"]["C"] = ENERGIES["C"]
    assert train({**run, "output": str(tmp_path / "second")}).warnings == []


def test_one_composition_in_hartree(config, tmp_path, frames):
    for atoms in frames:
        atoms.calc.results["energy"] /= 27.211386
    (found,) = warnings_of(with_data(config, tmp_path, frames))
    assert found.startswith("the energy of data.train may be in hartree") and "Adatom expects eV and angstrom" in found


def test_zeros_are_told_with_the_frame_as_the_file_has_it(config, tmp_path, frames):
    frames[7].calc.results["forces"][:] = 0
    frames[8].calc.results["forces"][:5] = 0
    found = warnings_of(with_data(config, tmp_path, isolated_atoms() + frames, valid=[str(DATA / "3bpa_sample.extxyz")]))
    found = [text for text in found if "are in data.train too" not in text]
    assert len(found) == 2
    assert "1 frame has forces that are all exactly zero" in found[0] and "data.extxyz: frame 11 (line " in found[0]
    assert "5 of 27 atoms of 1 frame have a force of exactly zero" in found[1] and "data.extxyz: frame 12 (line " in found[1]


def test_labels_that_validate_are_looked_at_too(config, tmp_path, frames):
    frames[10].calc.results["forces"][:] = 0
    ase.io.write(tmp_path / "valid.extxyz", frames[8:12])
    found = warnings_of(with_data(config, tmp_path, isolated_atoms() + frames[:8], valid=[str(tmp_path / "valid.extxyz")]))
    assert any(text.startswith("data.valid: 1 frame has forces that are all exactly zero") and "valid.extxyz: frame 2 (line " in text for text in found)


def test_stress_of_the_other_sign(config, tmp_path):
    from ase.build import bulk
    from ase.calculators.emt import EMT

    random = np.random.default_rng(3)
    frames = []
    for _ in range(24):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + np.diag(random.uniform(-0.03, 0.03, 3))), scale_atoms=True)
        atoms.rattle(0.03, rng=random)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": -atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    run = with_data(config, tmp_path, frames)
    run["loss"] = {**run.get("loss", {}), "stress": 10.0}
    (found,) = warnings_of(run)
    assert found.startswith("data.train: the stress has the wrong sign")
    for atoms in frames:
        atoms.calc.results["stress"] *= -1
    with_data(config, tmp_path, frames)
    assert train({**run, "output": str(tmp_path / "second")}).warnings == []
