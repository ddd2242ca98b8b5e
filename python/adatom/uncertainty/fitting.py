# SPDX-License-Identifier: MIT
"""Fits the detectors of a model. docs/uncertainty.md has the formulas; symbols here are those of its text."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adatom import _core
from adatom.potential import Potential

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)  # of intervals
FLOOR = 1e-6  # of the eigenvalues of a covariance, relative to their mean: what float32 features resolve
ROWS_PER_FEATURE = 30  # random projections of forces for each feature, so that the curvature is known to some per cent
LARGEST_PROBES = 16


def fit(
    model: str | PathLike[str],
    train: Iterable[Atoms],
    held_out: Iterable[Atoms],
    output: str | PathLike[str],
    *,
    members: int = 32,
    seed: int = 0,
    head: str | None = None,
    threads: int | None = None,
    progress=lambda done, total: None,
) -> dict:
    """Adds detectors to a model file, in one pass over the training data and one over the held-out data; returns their description.

    train: what the model was trained on, or a sample of it (labels are not used). held_out: configurations with energies and forces that it was not
    trained on, from the same distribution; the calibration is as good as these are representative.

    Raises ValueError where the data do not suffice, and for what `Potential.load` does.
    """
    train, held_out = list(train), list(held_out)
    if members < 2:
        raise ValueError(f"members = {members}: an ensemble needs at least 2")
    potential = Potential.load(model, head=head, threads=threads)
    labelled = _check_labels(held_out)
    _check_copies(train, labelled)
    rng = np.random.default_rng(seed)
    elements = list(potential.elements)
    spread = _gather(potential, elements, train, rng, lambda k: progress(k, len(train) + len(labelled)))
    _check_elements(labelled, {z for z, known in zip(elements, spread.known) if known})
    mean, whitening = spread.whitening()

    predictions = []
    for k, atoms in enumerate(labelled):
        result = potential.evaluate(atoms, stress=False, features=True)
        predictions.append((atoms, result))
        progress(len(train) + k + 1, len(train) + len(labelled))
    force_errors = np.concatenate([a.get_forces() - r.forces for a, r in predictions])
    energy_errors = np.array([a.get_potential_energy() - r.energy for a, r in predictions])
    sizes = np.array([len(a) for a, _ in predictions])
    species = np.concatenate([[elements.index(z) for z in a.numbers] for a, _ in predictions])
    x = np.concatenate([r.features for _, r in predictions]) - mean[species]

    # The last layer's posterior: members are its samples.
    directions = spread.posterior_samples(force_errors, energy_errors / np.sqrt(sizes), members, rng)
    frame = np.repeat(np.arange(len(sizes)), sizes)
    added = np.zeros((len(sizes), members))
    np.add.at(added, frame, x @ directions)
    alpha, noise = _fit_energies(energy_errors, (added**2).mean(1), sizes)
    directions *= alpha

    y = np.einsum("nf,nfr->nr", x, whitening[species])
    bands = sorted({max(1, potential.features // 8), max(1, potential.features // 2), potential.features})
    logs = _logs(y, x @ directions, bands)
    force = _fit_forces(force_errors, logs, species, len(elements))
    distance = np.sqrt((y**2).mean(1))
    scale = _scales(distance, species, len(elements), spread.known)

    sigma = np.exp((np.concatenate([np.ones((len(logs), 1)), logs], 1) * force[species]).sum(1))
    energy_std = np.sqrt(alpha**2 * (added**2).mean(1) + noise**2 * sizes)
    description = {
        "network": _core.network_hash(Path(model)),
        "head": potential.head,
        "members": members,
        "energy_noise": float(noise),
        "levels": LEVELS,
        "energy_intervals": _quantiles(np.abs(energy_errors) / energy_std),
        "force_intervals": _quantiles((np.abs(force_errors) / sigma[:, None]).ravel()),
        "fitted": {"train": len(train), "held_out": len(labelled), "seed": seed, "adatom": _core.__version__},
    }
    tensors = {
        "mean": mean, "whitening": whitening, "members": directions, "bands": np.array(bands, dtype=float), "force": force, "distance_scale": scale,
    }  # fmt: skip
    _core.write_detectors(Path(model), Path(output), json.dumps(description), {f"uncertainty.{k}": np.ascontiguousarray(v) for k, v in tensors.items()})
    return description


def recalibrate(model: str | PathLike[str], held_out: Iterable[Atoms], output: str | PathLike[str], *, threads: int | None = None) -> dict:
    """Scales the standard deviations of a model with detectors to labelled configurations of another kind (some tens are enough), and takes their
    intervals anew. Distances stay. Returns the factors and the number of configurations."""
    from adatom.uncertainty.judging import judge

    potential = Potential.load(model, threads=threads)
    held_out = list(held_out)
    seen = judge(potential, held_out)
    if not np.isfinite(seen.distances).all():
        unknown = {z for a, d in zip(held_out, np.split(seen.distances, np.flatnonzero(np.diff(seen.frame)) + 1)) for z in a.numbers[~np.isfinite(d)]}
        _check_elements(held_out, set(potential.elements) - unknown)
    force_ratio = (np.abs(seen.force_errors) / seen.force_std[:, None]).ravel()
    energy_ratio = np.abs(seen.energy_errors) / seen.energy_std
    factors = {"forces": float(np.sqrt((force_ratio**2).mean())), "energies": float(np.sqrt((energy_ratio**2).mean()))}
    description, tensors = _read(model)
    tensors["uncertainty.force"][:, 0] += np.log(factors["forces"])
    # The members enter the standard deviation of forces too: their scale is taken out again there.
    tensors["uncertainty.members"] *= factors["energies"]
    tensors["uncertainty.force"][:, 0] -= tensors["uncertainty.force"][:, -1] * np.log(factors["energies"])
    description["energy_noise"] *= factors["energies"]
    description["energy_intervals"] = _quantiles(energy_ratio / factors["energies"])
    description["force_intervals"] = _quantiles(force_ratio / factors["forces"])
    description["recalibrated"] = {"held_out": len(seen.energy_errors), **factors}
    _core.write_detectors(Path(model), Path(output), json.dumps(description), tensors)
    return description["recalibrated"]


def remove(model: str | PathLike[str], output: str | PathLike[str]) -> None:
    """Copies a model file without its detectors."""
    _core.write_detectors(Path(model), Path(output), "", {})


def whitened(potential: Potential, model: str | PathLike[str], atoms: Atoms) -> NDArray[np.float64]:
    """[n, R]: whitened features of each atom in units of distances, so that the root mean square of a row is `Result.distances`."""
    _, tensors = _read(model)
    species = [potential.elements.index(z) for z in atoms.numbers]
    x = potential.evaluate(atoms, forces=False, stress=False, features=True).features - tensors["uncertainty.mean"][species]
    y = np.einsum("nf,nfr->nr", x, tensors["uncertainty.whitening"][species])
    scale = tensors["uncertainty.distance_scale"][species][:, None]
    return np.where(scale > 0, y / np.where(scale > 0, scale, 1.0), np.inf)


def _check_labels(frames: list) -> list:
    if not frames:
        raise ValueError("no held-out configurations: calibration needs labelled configurations that the model was not trained on")
    for k, atoms in enumerate(frames):
        results = getattr(atoms.calc, "results", {})
        if results.get("energy") is None or results.get("forces") is None:
            raise ValueError(f"configuration {k} of the held-out ones lacks an energy or forces: calibration compares with both")
    return frames


def _check_elements(frames: list, known: set) -> None:
    from ase.data import chemical_symbols

    unknown = sorted(set(np.concatenate([a.numbers for a in frames])) - known)
    if unknown:
        names = ", ".join(chemical_symbols[z] for z in unknown)
        raise ValueError(f"held-out configurations with {names}, which the training data lack: leave them out, or train with some of the kind")


def _check_copies(train: list, held_out: list) -> None:
    """Errors on what was trained on say nothing."""

    def key(atoms):
        return atoms.numbers.tobytes(), np.round(atoms.positions, 6).tobytes(), np.round(atoms.cell.array, 6).tobytes()

    seen = {key(a) for a in train}
    copies = sum(key(a) in seen for a in held_out)
    if copies == len(held_out):
        raise ValueError("all held-out configurations are among the training data, whose errors are smaller than others: give some that were not trained on")
    if copies:
        warnings.warn(f"{copies} of {len(held_out)} held-out configurations are among the training data: predicted errors come out too small", stacklevel=3)


class _Spread:
    """Moments of the features over the training set, and the curvature of a loss of energies and forces with respect to readout weights."""

    def __init__(self, elements: int, features: int):
        self.count = np.zeros(elements)
        self.sum = np.zeros((elements, features))
        self.square = np.zeros((elements, features, features))
        self.sums, self.compositions = [], []  # of each configuration
        self.force_rows = np.zeros((features, features))  # sum over configurations of J^T J, J = d(forces)/d(weights)

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.count > 0

    def whitening(self) -> tuple[NDArray, NDArray]:
        """Mean [Z, F] and whitening matrix [Z, F, F] of each element; zeros for those that are not there."""
        mean, whitening = np.zeros_like(self.sum), np.zeros_like(self.square)
        features = mean.shape[1]
        for z in np.flatnonzero(self.known):
            mean[z] = self.sum[z] / self.count[z]
            covariance = self.square[z] / self.count[z] - np.outer(mean[z], mean[z])
            # With few atoms the smallest eigenvalues come out too small: shrinking holds them up.
            shrink = min(1.0, FLOOR + 0.1 * (features / self.count[z]) ** 2)
            covariance = (1 - shrink) * covariance + shrink * max(np.trace(covariance) / features, 1e-12) * np.eye(features)
            values, vectors = np.linalg.eigh(covariance)
            whitening[z] = (vectors / np.sqrt(values))[:, ::-1]
        return mean, whitening

    def posterior_samples(self, force_errors, energy_errors, members: int, rng) -> NDArray:
        """[F, K]: samples of the readout weights about the model's own, for Gaussian errors of the sizes that held-out data show; their mean is zero."""
        sums, compositions = np.array(self.sums), np.array(self.compositions)
        features = sums.shape[1]
        # Atomic energies are free: only what the composition does not explain counts.
        sums = sums - compositions @ np.linalg.lstsq(compositions, sums, rcond=None)[0]
        atoms = compositions.sum(1)
        precision = self.force_rows / np.mean(force_errors**2) + (sums / atoms[:, None]).T @ sums / max(np.mean(energy_errors**2), 1e-16)
        precision += 1e-6 * np.trace(precision) / features * np.eye(features)
        root = np.linalg.cholesky(precision)
        samples = np.linalg.solve(root.T, rng.normal(size=(features, members)))
        samples -= samples.mean(1, keepdims=True)
        return samples * np.sqrt(members / (members - 1))


def _gather(potential, elements, train, rng, progress) -> _Spread:
    if not train:
        raise ValueError("no training configurations: detectors compare with what the model was trained on")
    spread = _Spread(len(elements), potential.features)
    probes = min(LARGEST_PROBES, max(1, -(-ROWS_PER_FEATURE * potential.features // len(train))))
    for k, atoms in enumerate(train):
        x = potential.evaluate(atoms, forces=False, stress=False, features=True).features
        composition = np.zeros(len(elements))
        for z in np.unique(atoms.numbers):
            s, rows = elements.index(z), x[atoms.numbers == z]
            composition[s] = len(rows)
            spread.count[s] += len(rows)
            spread.sum[s] += rows.sum(0)
            spread.square[s] += rows.T @ rows
        spread.sums.append(x.sum(0))
        spread.compositions.append(composition)
        for _ in range(probes if len(atoms) > 1 else 0):
            row = potential.feature_tangents(atoms, rng.normal(size=(len(atoms), 3))).sum(0)
            spread.force_rows += np.outer(row, row) / probes
        progress(k + 1)
    return spread


def _logs(y, added, bands) -> NDArray:
    """Logs of the root mean squares of bands of y and of what the members add: [n, bands + 1]."""
    squares = [(y[:, begin:end] ** 2).mean(1) for begin, end in zip([0, *bands], bands)]
    return 0.5 * np.log(np.stack([*squares, (added**2).mean(1)], 1) + 1e-24)


def _fit_energies(errors, variances, sizes) -> tuple[float, float]:
    """alpha and noise of the most likely N(0, alpha^2 variance + noise^2 atoms). A log-normal prior of width 1 draws alpha to what explains all errors: a few
    held-out energies often fit best with none at all, and the ensemble would see nothing anywhere."""
    from scipy.optimize import minimize

    def loss(log):
        total = np.exp(2 * log[0]) * variances + np.exp(2 * log[1]) * sizes
        return 0.5 * np.sum(np.log(total) + errors**2 / total) + 0.5 * (log[0] - np.log(alpha)) ** 2

    rms = np.sqrt(np.mean(errors**2 / sizes)) + 1e-12
    alpha = np.sqrt(np.mean(errors**2) / max(np.mean(variances), 1e-30)) + 1e-12
    starts = [np.log([alpha, 1e-3 * rms]), np.log([0.5 * alpha, 0.5 * rms])]
    best = min((minimize(loss, start, method="Nelder-Mead", options={"maxiter": 2000}) for start in starts), key=lambda r: r.fun)
    return float(np.exp(best.x[0])), float(np.exp(best.x[1]))


def _fit_forces(errors, logs, species, elements: int) -> NDArray:
    """[Z, bands + 2]: coefficients a of log(sigma) = a_0 + a . logs with the largest likelihood of N(0, sigma^2), all but a_0 not negative. Convex.
    Elements are drawn to the coefficients of all together, so that few atoms do no harm."""
    from scipy.optimize import minimize

    columns = np.concatenate([np.ones((len(logs), 1)), logs], 1)
    square = (errors**2).mean(1)

    def solve(rows, towards, strength):
        z, e = columns[rows], square[rows]

        def loss(a):
            ratio = e * np.exp(np.clip(-2 * (z @ a), -50, 50))
            value = 3 * np.sum(z @ a + 0.5 * ratio) + 0.5 * strength * np.sum((a - towards) ** 2)
            return value, 3 * z.T @ (1 - ratio) + strength * (a - towards)

        start = np.zeros(z.shape[1])
        start[0] = 0.5 * np.log(e.mean() + 1e-24)
        return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None)] + [(0.0, None)] * (z.shape[1] - 1)).x

    everything = solve(np.arange(len(columns)), np.zeros(columns.shape[1]), 1e-3)
    return np.stack([solve(rows, everything, 10.0) if (rows := np.flatnonzero(species == z)).size else everything for z in range(elements)])


def _scales(distance, species, elements: int, known) -> NDArray:
    scale = np.zeros(elements)
    for z in np.flatnonzero(known):
        own = distance[species == z]
        scale[z] = np.quantile(own, 0.99) if len(own) else np.quantile(distance, 0.99)
    return scale


def _quantiles(ratios) -> list[float]:
    """Half widths of the intervals of LEVELS, in standard deviations."""
    return [float(q) for q in np.quantile(ratios, LEVELS)]


def _read(model) -> tuple[dict, dict]:
    from safetensors import safe_open

    with safe_open(model, framework="np") as file:
        document = json.loads(file.metadata()["adatom"])
        tensors = {name: file.get_tensor(name).astype(float) for name in file.keys() if name.startswith("uncertainty.")}
    if "uncertainty" not in document:
        raise ValueError(f"{model} has no detectors of uncertainty to calibrate: give the training data too")
    return document["uncertainty"], tensors
