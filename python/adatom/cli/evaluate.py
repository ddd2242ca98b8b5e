# SPDX-License-Identifier: MIT
"""adatom eval: errors of a model against labelled structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from adatom import _pictures, _structures
from adatom.cli import common, data, labelled

BATCH_ATOMS = 2000  # atoms evaluated together; enough to keep every core busy


def evaluate(
    model: common.ModelFile,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Labelled structures: extxyz, a cache, a folder, or anything that `adatom data` reads.", show_default=False)
    ],
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Draw parity plots into this PNG file.", show_default=False)] = None,
    index: Annotated[str, typer.Option("--index", help="Which structures of the file, as ASE's slices.")] = ":",
    format: data.Format = None,
    energy_key: data.EnergyKey = None,
    forces_key: data.ForcesKey = None,
    stress_key: data.StressKey = None,
    virial_key: data.VirialKey = None,
    head_key: data.HeadKey = None,
    type_map: data.TypeMap = None,
    zero_smearing: data.ZeroSmearing = False,
    dtype: common.DTypeOption = common.DType.float64,
    device: common.DeviceOption = common.Device.cpu,
    threads: common.Threads = None,
    head: common.Head = None,
    as_json: common.Json = False,
) -> None:
    """Compares energies, forces and stresses with the labels of a file.

    Labels are read as by `adatom data` and `adatom train`. Structures without a label are left out of that label's row; so is a stress of weight 0. A file
    without any label is an error.
    """
    names = {"energy": energy_key, "forces": forces_key, "stress": stress_key, "virial": virial_key, "head": head_key}
    labels = labelled.read(file, names, format, type_map, zero_smearing)
    structures = [labelled.structure(frame) for frame in chosen(labels.frames, index, file)]
    pairs = {name: Pairs() for name in UNITS}
    potential = common.load(model, device, dtype, threads, head)
    labelled.warn_of_heads(file, structures, potential)
    with common.progress(as_json) as bar:
        task = bar.add_task("evaluate", total=len(structures))
        for batch in _batches(structures):
            for atoms, result in zip(batch, potential.evaluate(batch)):
                for name in pairs:
                    pairs[name].add(atoms, name, atoms.calc.results.get(name) if atoms.calc else None, getattr(result, name))
            bar.advance(task, len(batch))
    if not any(pair.labels for pair in pairs.values()):
        raise ValueError(
            f"{file}: no energy, forces or stress to compare with; name them with --energy-key, --forces-key, --stress-key. {labels.contents or 'It has no labels'}"
        )
    labels.say(all(pair.labels for pair in pairs.values()))
    rows = [row for name, pair in pairs.items() for row in pair.rows(name)]
    if output:
        _plot(output, pairs)
    if as_json:
        common.print_json({"structures": len(structures), "atoms": sum(map(len, structures)), "errors": rows})
        return
    from rich.table import Table

    table = Table(title=f"{file}: {len(structures)} structures, {sum(map(len, structures))} atoms", title_justify="left")
    for name in ("quantity", "values", "MAE", "RMSE", "max", "unit"):
        table.add_column(name, justify="left" if name in ("quantity", "unit") else "right")
    for row in rows:
        name = row["quantity"] + (f" on {row['element']}" if row["element"] else "")
        table.add_row(name, str(row["values"]), *(f"{1e3 * row[key]:.3f}" for key in ("mae", "rmse", "max")), "m" + row["unit"])
    common.console().print(table)


UNITS = {"energy": "eV/atom", "forces": "eV/angstrom", "stress": "eV/angstrom^3"}


@dataclass
class Pairs:
    """Labels and predictions of one quantity: rows of 1 (energy per atom), 3 (forces) or 6 (stress) numbers."""

    labels: list = field(default_factory=list)
    predictions: list = field(default_factory=list)
    elements: list = field(default_factory=list)

    def add(self, atoms, name: str, reference, prediction) -> None:
        import numpy as np

        if reference is None or prediction is None:
            return
        shape = {"energy": (), "forces": (len(atoms), 3), "stress": (6,)}[name]
        reference = np.asarray(reference, dtype=float)
        if reference.shape != shape:
            raise ValueError(f"a label {name} has shape {reference.shape}, expected {shape}, in a structure {atoms.get_chemical_formula()}")
        if not np.isfinite(reference).all():
            raise ValueError(f"a label {name} is not a finite number, in a structure {atoms.get_chemical_formula()}")
        scale = 1 / len(atoms) if name == "energy" else 1.0
        self.labels.append(np.atleast_1d(reference * scale).reshape(-1, 3 if name == "forces" else max(reference.size, 1)))
        self.predictions.append(np.asarray(prediction * scale).reshape(self.labels[-1].shape))
        if name == "forces":
            self.elements.append(atoms.numbers)

    def rows(self, name: str) -> list[dict]:
        import numpy as np

        if not self.labels:
            return []
        difference = np.concatenate(self.predictions) - np.concatenate(self.labels)
        rows = [_errors(name, None, difference)]
        if self.elements:
            numbers = np.concatenate(self.elements)
            for z in np.unique(numbers):
                rows.append(_errors(name, _structures.symbols([z])[0], difference[numbers == z]))
        return rows


def _errors(name: str, element: str | None, difference) -> dict:
    import numpy as np

    magnitude = np.abs(difference)
    return {
        "quantity": name,
        "element": element,
        "values": int(difference.size),
        "mae": float(magnitude.mean()),
        "rmse": float(np.sqrt((difference**2).mean())),
        "max": float(magnitude.max()),
        "unit": UNITS[name],
    }


def chosen(frames: list, index: str, file: Path) -> list:
    from ase.io.formats import string2index

    from adatom.datasets.frames import refuse_defects

    try:
        which = string2index(index)
        some = frames[which] if isinstance(which, slice) else [frames[which]]
    except (IndexError, ValueError, TypeError) as error:
        raise ValueError(f"--index {index}: expected a number below {len(frames)} or a slice such as 10: or ::5, of the {len(frames)} structures of {file}") from error
    if not some:
        raise ValueError(f"{file}: no structures in it (index {index!r})")
    for k, frame in enumerate(some):
        refuse_defects(frame, f"{file}: structure {k} of those chosen")
    return some


def _batches(structures):
    batch, atoms = [], 0
    for structure in structures:
        if batch and atoms + len(structure) > BATCH_ATOMS:
            yield batch
            batch, atoms = [], 0
        batch.append(structure)
        atoms += len(structure)
    yield batch


def _plot(output: Path, pairs: dict[str, Pairs]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    shown = {name: pair for name, pair in pairs.items() if pair.labels}
    figure, panels = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 4), squeeze=False, layout="constrained")
    for panel, (name, pair) in zip(panels[0], shown.items()):
        reference, prediction = np.concatenate(pair.labels), np.concatenate(pair.predictions)
        if pair.elements:
            numbers = np.concatenate(pair.elements)
            for z in np.unique(numbers):
                panel.plot(reference[numbers == z].ravel(), prediction[numbers == z].ravel(), ".", ms=3, label=_structures.symbols([z])[0])
            panel.legend()
        else:
            panel.plot(reference.ravel(), prediction.ravel(), ".", ms=4)
        panel.axline((reference.flat[0], reference.flat[0]), slope=1, color="0.5", lw=0.8, zorder=0)
        panel.set(xlabel=f"label {name} ({UNITS[name]})", ylabel=f"predicted {name} ({UNITS[name]})", title=name)
        rmse = pair.rows(name)[0]["rmse"]
        panel.text(0.05, 0.95, f"RMSE {1e3 * rmse:.2f} m{UNITS[name]}", transform=panel.transAxes, va="top")
    _pictures.save(figure, output, 150)
