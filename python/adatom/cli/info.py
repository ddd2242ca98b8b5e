# SPDX-License-Identifier: MIT
"""adatom info: what a model file holds."""

from __future__ import annotations

import json

from adatom import _structures
from adatom.cli import common


def info(model: common.ModelFile, as_json: common.Json = False) -> None:
    """Shows architecture, elements, cutoff, heads, size and provenance of a model file, after checking that it can be loaded."""
    from safetensors import safe_open

    from adatom import Potential

    first = _document(model)
    potential = Potential.load(model, head=first["head"])
    with safe_open(model, framework="numpy") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys() if not name.startswith("uncertainty.")]
    document = {
        "file": str(model),
        "bytes": model.stat().st_size,
        "summary": potential.summary,
        "cutoff": potential.cutoff,
        "elements": _structures.symbols(potential.elements),
        "heads": list(potential.heads),
        "parameters": sum(_product(shape) for shape in shapes),
        "tensors": len(shapes),
        "mirror_symmetric": potential.mirror_symmetric,
        "backend": potential.backend,
        "sha256": first["sha256"],
        "uncertainty": {"members": potential.members, **potential.uncertainty} if potential.members else {"members": 0, "why": potential.no_uncertainty},
        "provenance": potential.provenance,
        "architecture": potential.architecture,
    }
    if as_json:
        common.print_json(document)
        return
    from rich.table import Table

    table = Table(show_header=False, title=str(model), title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a hash is copied whole
    table.add_row("architecture", document["summary"])
    if not document["mirror_symmetric"]:
        table.add_row("reflections", common.NOT_MIRROR_SYMMETRIC)
    table.add_row("cutoff", f"{document['cutoff']:g} angstrom")
    table.add_row(f"elements ({len(document['elements'])})", " ".join(document["elements"]))
    table.add_row("heads", ", ".join(document["heads"]))
    table.add_row("weights", f"{document['parameters']:,} numbers in {document['tensors']} tensors, {document['bytes'] / 1e6:.1f} MB")
    table.add_row("runs on", document["backend"])
    table.add_row("sha256", document["sha256"])
    table.add_row("uncertainty", _uncertainty(document["uncertainty"]))
    for key, value in _training_rows(document["provenance"].get("training")):
        table.add_row(key, value)
    for key, value in document["provenance"].items():
        if key == "training":
            continue
        table.add_row(str(key), value if isinstance(value, str) else json.dumps(value))
    common.console().print(table)


def _uncertainty(detectors: dict) -> str:
    if not detectors["members"]:
        return f"none: {detectors['why']}"
    fitted, again = detectors["fitted"], detectors.get("recalibrated")
    text = f"{detectors['members']} members, head {detectors['head']}, fitted to {fitted['train']} and calibrated on {fitted['held_out']} configurations"
    return text + (f", then on {again['held_out']}" if again else "")


def _training_rows(training) -> list[tuple[str, str]]:
    """How a model was trained, for people; --json has all of it."""
    if not isinstance(training, dict) or "data" not in training:  # of another program
        return [] if training is None else [("training", json.dumps(training))]
    length = f"{training['epochs']} epochs ({training['steps']} steps, {training['seconds'] / 60:.1f} minutes)"
    rows = [("trained", f"by adatom {training['adatom']}, {length}, seed {training['seed']}")]
    for role, files in training["data"].items():
        lines = [f"{f['file']}: " + (f"{f['configurations']} configurations, " if f.get("configurations") else "") + f["hash"] for f in files]
        rows.append((role, "\n".join(lines)))
    errors = training.get("validation") or {}
    units = (("energy_per_atom_rmse", "energy", "meV/atom"), ("force_rmse", "forces", "meV/angstrom"), ("stress_rmse", "stress", "meV/angstrom^3"))
    shown = [f"{name} {1e3 * errors[key]:.3g} {unit}" for key, name, unit in units if key in errors]
    if shown:
        rows.append(("validation RMSE", ", ".join(shown)))
    if "from" in training:
        rows.append(("fine-tuned", f"from a model trained with seed {training['from'].get('seed')}"))
    loss, batch = training["config"]["loss"], training["config"]["training"]
    rows.append(("loss", f"{loss['shape']}, weights energy {loss['energy']:g}, forces {loss['forces']:g}, stress {loss['stress']:g}"))
    optimizer = training["config"]["optimizer"]
    limits = [f"{batch[key]} {what}" for key, what in (("batch_size", "configurations"), ("batch_atoms", "atoms"), ("batch_edges", "edges")) if batch[key]]
    rows.append(("optimizer", f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}, batches of at most {', '.join(limits)}"))
    return rows


def _document(model) -> dict:
    """The first head and the hash in the file's header. Errors about the file are the engine's own, from Potential.load."""
    from safetensors import SafetensorError, safe_open

    from adatom import Potential

    try:
        with safe_open(model, framework="numpy") as file:
            metadata = file.metadata() or {}
            document = json.loads(metadata["adatom"])
            return {"head": document["heads"][0], "sha256": metadata.get("sha256") or document["sha256"]}
    except (SafetensorError, LookupError, TypeError, ValueError, OSError, RecursionError):
        Potential.load(model)
        raise


def _product(shape) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
