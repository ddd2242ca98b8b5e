# SPDX-License-Identifier: MIT
"""Detectors of uncertainty: what the engine computes, how they are fitted, and what refuses them."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors import safe_open

from adatom import AdatomCalculator, Potential
from adatom.uncertainty import auroc, fit, judge, recalibrate, remove
from adatom.uncertainty.fitting import _fit_energies


def labelled(potential, rng, amplitude):
    """A displaced crystal with labels off the model's by noise that grows with the displacement."""
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
    atoms.numbers[[1, 5, 9]] = 8
    atoms.positions += rng.normal(scale=amplitude, size=atoms.positions.shape)
    r = potential.evaluate(atoms)
    forces = r.forces + rng.normal(scale=amplitude, size=r.forces.shape)
    atoms.calc = SinglePointCalculator(atoms, energy=r.energy + rng.normal(scale=4 * amplitude), forces=forces)
    return atoms


@pytest.fixture(scope="module")
def frames(model_file):
    potential = Potential.load(model_file, dtype="float64")
    rng = np.random.default_rng(0)
    return [labelled(potential, rng, rng.uniform(0.01, 0.12)) for _ in range(60)]


@pytest.fixture(scope="module")
def calibrated(model_file, frames, tmp_path_factory):
    file = tmp_path_factory.mktemp("calibrated") / "model.safetensors"
    fit(model_file, frames[:30], frames[30:], file, members=12)
    return file


@pytest.fixture(scope="module")
def detectors(calibrated):
    return Potential.load(calibrated, dtype="float64")


def tensors(file):
    with safe_open(file, framework="np") as f:
        return {name.removeprefix("uncertainty."): f.get_tensor(name) for name in f.keys() if name.startswith("uncertainty.")}


def test_the_engine_computes_the_formulas_of_the_documentation(detectors, calibrated, frames):
    t = tensors(calibrated)
    for atoms in frames[:3]:
        r = detectors.evaluate(atoms, features=True, uncertainty=True)
        z = [detectors.elements.index(n) for n in atoms.numbers]
        x = r.features - t["mean"][z]
        y = np.einsum("nf,nfr->nr", x, t["whitening"][z])
        added = x @ t["members"]
        np.testing.assert_allclose(r.distances, np.sqrt((y**2).mean(1)) / t["distance_scale"][z], rtol=1e-9)
        np.testing.assert_allclose(r.member_energies, r.energy + added.sum(0), rtol=0, atol=1e-9)
        noise = detectors.uncertainty["energy_noise"]
        assert r.energy_std == pytest.approx(np.sqrt((added.sum(0) ** 2).mean() + noise**2 * len(atoms)), rel=1e-9)
        ends = t["bands"].astype(int)
        logs = [0.5 * np.log((y[:, a:b] ** 2).mean(1)) for a, b in zip([0, *ends], ends)] + [0.5 * np.log((added**2).mean(1))]
        np.testing.assert_allclose(np.log(r.force_std), t["force"][z, 0] + (t["force"][z, 1:] * np.stack(logs, 1)).sum(1), rtol=0, atol=1e-8)


def test_single_precision_threads_and_batches(detectors, calibrated, frames):
    expected = [detectors.evaluate(a, uncertainty=True) for a in frames[:4]]
    single = [Potential.load(calibrated, threads=n).evaluate(frames[0], uncertainty=True) for n in (1, 2, 3)]
    for r in single:
        np.testing.assert_allclose(r.distances, expected[0].distances, rtol=2e-3)
        np.testing.assert_allclose(r.force_std, expected[0].force_std, rtol=5e-3)
        assert (r.distances == single[0].distances).all() and (r.force_std == single[0].force_std).all()
        assert (r.member_energies == single[0].member_energies).all()
    for one, r in zip(expected, detectors.evaluate(frames[:4], uncertainty=True)):
        np.testing.assert_allclose(r.distances, one.distances, rtol=1e-10)
        np.testing.assert_allclose(r.member_energies, one.member_energies, rtol=0, atol=1e-10)
        assert r.energy_std == pytest.approx(one.energy_std, rel=1e-10)


def test_forces_of_members_are_derivatives_of_their_energies(calibrated, frames):
    potential = Potential.load(calibrated, dtype="float64", splines=False)
    atoms, h = frames[0].copy(), 1e-4
    forces = potential.member_forces(atoms)
    assert forces.shape == (12, len(atoms), 3)
    for i, k in ((0, 1), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[i, k] += sign * h
            energies.append(potential.evaluate(moved, uncertainty=True).member_energies)
        np.testing.assert_allclose(-(energies[0] - energies[1]) / (2 * h), forces[:, i, k], rtol=0, atol=1e-6)


def test_the_ensemble_spreads_as_the_posterior(model_file, frames, tmp_path):
    """With many members the variance of the energy is that of the closed form, up to the factor that held-out energies give."""
    from adatom.uncertainty import fitting

    file = tmp_path / "many.safetensors"
    fit(model_file, frames[:30], frames[30:], file, members=4000)
    t, potential = tensors(file), Potential.load(model_file)
    spread = fitting._gather(potential, list(potential.elements), frames[:30], np.random.default_rng(1), lambda k: None)
    held = [(a, potential.evaluate(a)) for a in frames[30:]]
    sums, compositions = np.array(spread.sums), np.array(spread.compositions)
    sums = sums - compositions @ np.linalg.lstsq(compositions, sums, rcond=None)[0]
    sf = np.mean(np.concatenate([a.get_forces() - r.forces for a, r in held]) ** 2)
    se = np.mean([(a.get_potential_energy() - r.energy) ** 2 / len(a) for a, r in held])
    precision = spread.force_rows / sf + sums.T @ sums / len(frames[0]) / se
    precision += 1e-6 * np.trace(precision) / len(precision) * np.eye(len(precision))
    closed, sampled = np.linalg.inv(precision), t["members"] @ t["members"].T / 4000
    # J^T J is an average over random directions, different ones here; compare along the directions that energies take.
    ratios = np.array([v @ sampled @ v / (v @ closed @ v) for v in sums])
    assert ratios.std() / ratios.mean() < 0.25


def test_predictions_hold_in_distribution(detectors, frames, model_file):
    rng = np.random.default_rng(9)
    fresh = [labelled(Potential.load(model_file, dtype="float64"), rng, rng.uniform(0.01, 0.12)) for _ in range(40)]
    j = judge(detectors, fresh)
    coverage = dict(zip(j.levels, j.force_coverage()))
    assert 0.85 < coverage[0.9] < 0.95 and 0.4 < coverage[0.5] < 0.6
    assert j.force_spearman() > 0.3  # noise was made to follow the displacements; one draw of it per component
    assert 0.7 < np.sqrt((j.force_std**2).mean() / (j.force_errors**2).mean()) < 1.4


def test_far_from_the_data(detectors, frames):
    near = judge(detectors, frames[30:])
    squeezed = []
    for atoms in frames[30:]:
        atoms = atoms.copy()
        atoms.set_cell(0.93 * atoms.cell, scale_atoms=True)
        r = detectors.evaluate(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=r.energy, forces=r.forces)
        squeezed.append(atoms)
    far = judge(detectors, squeezed)
    assert auroc(near.combined_scores(near), far.combined_scores(near)) > 0.95
    assert far.force_std.mean() > near.force_std.mean()
    carbon = frames[0].copy()
    carbon.numbers[0] = 6  # in the model, not in the training data of the detectors
    r = detectors.evaluate(carbon, uncertainty=True)
    assert np.isinf(r.distances[0]) and np.isinf(r.force_std[0]) and np.isfinite(r.distances[1:]).all()


def test_recalibration_scales_to_what_it_is_given(calibrated, frames, tmp_path):
    def worse(atoms):
        r = AdatomCalculator(calibrated).potential.evaluate(atoms)
        labels = atoms.calc.results
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, energy=r.energy + 5 * (labels["energy"] - r.energy), forces=r.forces + 3 * (labels["forces"] - r.forces))
        return copy

    outside = [worse(a) for a in frames[30:]]
    factors = recalibrate(calibrated, outside, tmp_path / "again.safetensors")
    assert factors["forces"] == pytest.approx(3.0, rel=0.15) and factors["energies"] == pytest.approx(5.0, rel=0.3)
    before, after = judge(Potential.load(calibrated), outside), judge(Potential.load(tmp_path / "again.safetensors"), outside)
    np.testing.assert_allclose(after.distances, before.distances, rtol=1e-6)
    np.testing.assert_allclose(after.force_std, factors["forces"] * before.force_std, rtol=1e-4)
    np.testing.assert_allclose(after.energy_std, factors["energies"] * before.energy_std, rtol=1e-4)
    assert after.force_coverage()[after.levels.index(0.9)] == pytest.approx(0.9, abs=0.01)


def test_the_calculator_has_them(calibrated, model_file, frames):
    atoms = frames[0].copy()
    atoms.calc = AdatomCalculator(calibrated)
    atoms.get_potential_energy()
    assert atoms.calc.results["force_std"].shape == (len(atoms),) and atoms.calc.results["member_energies"].shape == (12,)
    assert atoms.calc.results["energy_std"] > 0 and atoms.calc.results["feature_distances"].shape == (len(atoms),)
    atoms.calc = AdatomCalculator(calibrated, uncertainty=False)
    atoms.get_potential_energy()
    assert "force_std" not in atoms.calc.results
    with pytest.raises(ValueError, match="no detectors of uncertainty"):
        AdatomCalculator(model_file, uncertainty=True)


def test_what_has_no_detectors_says_so(model_file, calibrated, frames, tmp_path):
    with pytest.raises(ValueError, match="add them with `adatom calibrate`"):
        Potential.load(model_file).evaluate(frames[0], uncertainty=True)
    remove(calibrated, tmp_path / "without.safetensors")
    assert not Potential.load(tmp_path / "without.safetensors").members
    with safe_open(tmp_path / "without.safetensors", framework="np") as f:
        assert not any(name.startswith("uncertainty") for name in f.keys())
    with pytest.raises(ValueError, match="no detectors of uncertainty"):
        recalibrate(tmp_path / "without.safetensors", frames, tmp_path / "again.safetensors")


def test_detectors_of_other_weights_are_not_used(calibrated, frames, tmp_path):
    """Another program changed the weights and left the detectors."""
    from adatom.importers import read_model, write_model

    all_tensors, document = read_model(calibrated)
    all_tensors["embedding"] = all_tensors["embedding"] * 1.01
    file = tmp_path / "changed.safetensors"
    write_model(file, all_tensors, document)
    potential = Potential.load(file)
    potential.evaluate(frames[0])
    assert not potential.members and "fitted for other weights" in potential.no_uncertainty
    with pytest.raises(ValueError, match="fitted for other weights"):
        potential.evaluate(frames[0], uncertainty=True)


def test_bad_data(model_file, frames, tmp_path):
    bare = frames[0].copy()
    with pytest.raises(ValueError, match="no held-out configurations"):
        fit(model_file, frames[:3], [], tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no training configurations"):
        fit(model_file, [], frames[:3], tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="configuration 1 of the held-out ones lacks"):
        fit(model_file, frames[:3], [frames[0], bare], tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="no element"):
        fit(model_file, [molecule("H2O")], frames[:3], tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_the_ensemble_survives_few_energies():
    """Errors that have nothing to do with the members' spread, as few energies often seem: likelihood alone takes the ensemble away altogether."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        variances, errors = rng.uniform(0.5, 2.0, size=6), rng.choice([-1.0, 1.0], size=6)
        alpha, noise = _fit_energies(errors, variances, np.full(6, 14))
        assert 0.1 < alpha < 2.0
        assert 0.3 < np.sqrt((alpha**2 * variances).mean() + noise**2 * 14) < 3.0
    rng = np.random.default_rng(0)  # and with many, what is there is found
    variances, sizes = np.exp(rng.normal(scale=1.5, size=4000)), np.full(4000, 14)
    errors = rng.normal(size=4000) * np.sqrt(0.7**2 * variances + 0.2**2 * sizes)
    assert _fit_energies(errors, variances, sizes) == pytest.approx((0.7, 0.2), rel=0.1)


def test_far_energies_are_less_certain_whatever_the_few_held_out_ones_say(model_file, frames, tmp_path):
    far = frames[0].copy()
    far.positions += np.random.default_rng(1).normal(scale=0.4, size=far.positions.shape)
    for k in range(30, 45, 5):
        fit(model_file, frames[:30], frames[k : k + 5], tmp_path / "few.safetensors")
        potential = Potential.load(tmp_path / "few.safetensors")
        near = np.median([potential.evaluate(a, uncertainty=True).energy_std for a in frames[:10]])
        assert potential.evaluate(far, uncertainty=True).energy_std > 2 * near


def test_elements_that_the_training_data_lack(adatom_command, model_file, frames, tmp_path):
    copper = []
    for atoms in frames[:20]:
        pure = atoms.copy()
        pure.numbers[:] = 29
        r = Potential.load(model_file).evaluate(pure)
        pure.calc = SinglePointCalculator(pure, energy=r.energy + 0.01 * len(copper), forces=r.forces + 0.01)
        copper.append(pure)
    file = tmp_path / "copper.safetensors"
    with pytest.raises(ValueError, match="with O, which the training data lack"):
        fit(model_file, copper[:10], copper[10:] + frames[:2], file)
    fit(model_file, copper[:10], copper[10:], file)
    potential = Potential.load(file)
    r = potential.evaluate(frames[0], uncertainty=True)
    oxygen = frames[0].numbers == 8
    assert np.isinf(r.distances[oxygen]).all() and np.isfinite(r.distances[~oxygen]).all()
    assert np.isinf(r.force_std[oxygen]).all() and np.isinf(r.energy_std)
    assert np.isfinite(potential.evaluate(copper[0], uncertainty=True).energy_std)
    with pytest.raises(ValueError, match="with O, which the training data lack"):
        recalibrate(file, [copper[10], frames[0], copper[11]], tmp_path / "x.safetensors")
    ase.io.write(tmp_path / "oxide.extxyz", frames[:2])
    rows = adatom_command("calibrate", file, "--test", tmp_path / "oxide.extxyz", as_json=True)["sets"]
    assert rows[0]["energy_std"] is None and rows[0]["energy_rmse"] > 0


def test_held_out_copies_of_training_data(model_file, frames, tmp_path):
    with pytest.raises(ValueError, match="all held-out configurations are among the training data"):
        fit(model_file, frames[:10], frames[2:5], tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match="1 of 3 held-out configurations"):
        fit(model_file, frames[:10], frames[9:12], tmp_path / "x.safetensors")


def test_one_atom_and_little_data(model_file, frames, tmp_path):
    """Fewer atoms than features, an atom without neighbours: nothing breaks."""
    lone = bulk("Cu", cubic=True)[:1]
    lone.pbc, lone.cell = False, None
    fit(model_file, [frames[0], lone], frames[30:32], tmp_path / "few.safetensors", members=2)
    potential = Potential.load(tmp_path / "few.safetensors")
    for atoms in (lone, frames[5]):
        r = potential.evaluate(atoms, uncertainty=True)
        assert np.isfinite(r.distances).all() and np.isfinite(r.force_std).all() and np.isfinite(r.energy_std)


def test_command(adatom_command, model_file, frames, tmp_path):
    files = {}
    for name, part in {"train": frames[:30], "held": frames[30:50], "test": frames[50:]}.items():
        files[name] = tmp_path / f"{name}.extxyz"
        ase.io.write(files[name], part)
    out = tmp_path / "calibrated.safetensors"
    result = adatom_command("calibrate", model_file, "--train", files["train"], "--held-out", files["held"], "--test", files["test"], "-o", out, "--plot",
                            tmp_path / "plot.png", as_json=True)  # fmt: skip
    assert [row["set"] for row in result["sets"]] == ["held out", "test"] and (tmp_path / "plot.png").stat().st_size > 10000
    assert result["sets"][0]["force_coverage"]["0.9"] == pytest.approx(0.9, abs=0.01)
    assert "auroc" not in result["sets"][0] and 0 <= result["sets"][1]["auroc"]["together"] <= 1
    again = adatom_command("calibrate", out, "--test", files["test"], as_json=True)
    assert again["sets"][0]["force_rmse"] == pytest.approx(result["sets"][1]["force_rmse"])
    adatom_command("calibrate", out, "--held-out", files["test"], "-o", out)  # in place
    assert Potential.load(out).uncertainty["recalibrated"]["held_out"] == 10
    assert "32 members" in adatom_command("calibrate", out, "--test", files["test"]).stdout
    adatom_command("calibrate", out, "--remove", "-o", tmp_path / "bare.safetensors")
    for arguments, message in (
        (("--train", files["train"], "-o", out), "--train needs --held-out"),
        (("--train", files["train"], "--held-out", files["held"]), "give the model file to write"),
        ((), "give --train and --held-out"),
        (("--test", files["test"], "-o", out), "nothing would change"),
        (("--remove",), "--remove takes MODEL and -o alone"),
    ):
        process = adatom_command("calibrate", tmp_path / "bare.safetensors", *arguments, check=False)
        assert process.returncode == 1 and message in process.stderr and "Traceback" not in process.stderr


def test_command_reads_labels_as_all_others_do(adatom_command, calibrated, frames, tmp_path):
    """Under the names that are given, by the energy that the forces belong to; what lacks one is named before anything is fitted."""
    named = []
    for atoms in frames[50:55]:
        copy = atoms.copy()
        copy.info["my_energy"] = atoms.get_potential_energy()
        copy.arrays["my_forces"] = atoms.get_forces()
        named.append(copy)
    ase.io.write(tmp_path / "usual.extxyz", frames[50:55])
    ase.io.write(tmp_path / "named.extxyz", named)
    usual = adatom_command("calibrate", calibrated, "--test", tmp_path / "usual.extxyz", as_json=True)["sets"][0]
    keys = ("--energy-key", "my_energy", "--forces-key", "my_forces")
    other = adatom_command("calibrate", calibrated, "--test", tmp_path / "named.extxyz", *keys, as_json=True)["sets"][0]
    assert other["force_rmse"] == pytest.approx(usual["force_rmse"]) and other["energy_rmse"] == pytest.approx(usual["energy_rmse"])
    process = adatom_command("calibrate", calibrated, "--test", tmp_path / "named.extxyz", check=False)
    assert process.returncode == 1 and "named.extxyz: configuration 0 has no energy; name it with --energy-key" in process.stderr
    assert "my_energy" in process.stderr and "Traceback" not in process.stderr


def test_training_leaves_detectors_out(calibrated, frames, tmp_path):
    pytest.importorskip("torch", reason="training needs torch")
    from adatom.training import train

    ase.io.write(tmp_path / "train.extxyz", frames[:4])
    result = train({"model": {"file": str(calibrated)}, "output": str(tmp_path / "run"), "threads": 1,
                    "data": {"train": [str(tmp_path / "train.extxyz")], "valid_fraction": 0.25}, "training": {"epochs": 1, "batch_size": 3}})  # fmt: skip
    assert not Potential.load(result.model).members
    assert not any(name.startswith("uncertainty") for name in safe_open(result.model, framework="np").keys())
