# SPDX-License-Identifier: MIT
"""adatom calibrate: detectors of uncertainty for a model, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from adatom.cli import common, data, labelled

Files = Optional[list[Path]]


def calibrate(
    model: common.ModelFile,
    train: Annotated[Files, typer.Option("--train", help="What the model was trained on, or a sample of it. May be repeated.", show_default=False)] = None,
    held_out: Annotated[
        Files, typer.Option("--held-out", help="Labelled configurations that it was not trained on. May be repeated.", show_default=False)
    ] = None,
    test: Annotated[Files, typer.Option("--test", help="Labelled configurations to judge the result on. May be repeated.", show_default=False)] = None,
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Model file to write; may be MODEL itself.", show_default=False)] = None,
    plot: Annotated[Optional[Path], typer.Option("--plot", help="Draw reliability, error against predicted error and distances into this PNG file.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Write the model without detectors.")] = False,
    members: Annotated[int, typer.Option("--members", min=2, help="Members of the ensemble.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of the random numbers.")] = 0,
    format: data.Format = None,
    energy_key: data.EnergyKey = None,
    forces_key: data.ForcesKey = None,
    head_key: data.HeadKey = None,
    type_map: data.TypeMap = None,
    zero_smearing: data.ZeroSmearing = False,
    threads: common.Threads = None,
    head: common.Head = None,
    as_json: common.Json = False,
) -> None:
    """Fits detectors of uncertainty, calibrates them, and prints how good they are.

    With --train and --held-out: fits detectors. With --held-out alone: scales the standard deviations of a model that has detectors to these
    configurations. With --test alone: judges. Files: whatever `adatom data` reads, labels as there. The first table row is the held-out set, against
    which the areas under the ROC curve of the others are counted.
    """
    from adatom import Potential
    from adatom.uncertainty import fit, judge, recalibrate, table
    from adatom.uncertainty import remove as remove_detectors
    from adatom.uncertainty.plots import plot as draw

    if remove:
        if train or held_out or test or plot or not output:
            raise ValueError("--remove takes MODEL and -o alone")
        remove_detectors(model, output)
        return
    if (train or held_out) and not output:
        raise ValueError("give the model file to write with -o (it may be the same file)")
    if train and not held_out:
        raise ValueError("--train needs --held-out: without configurations that the model has not seen there is nothing to calibrate with")
    if output and not held_out:
        raise ValueError("-o needs --held-out: nothing would change")
    if not (held_out or test):
        raise ValueError("give --train and --held-out to fit detectors, --held-out to calibrate them anew, or --test to judge them")

    names = {"energy": energy_key, "forces": forces_key, "head": head_key}
    known = Potential.load(model, head=head, threads=threads)

    def read_all(paths: list[Path], label: bool = True) -> list:
        files = [labelled.read(path, names, format, type_map, zero_smearing) for path in paths]
        return [atoms for file in files for atoms in usable(file, known, label)]

    kept = read_all(held_out or [])
    if train:
        with common.progress(as_json) as bar:
            task = bar.add_task("fit", total=None)
            fit(model, read_all(train, label=False), kept, output, members=members, seed=seed, head=head, threads=threads,
                progress=lambda done, total: bar.update(task, completed=done, total=total))  # fmt: skip
    elif held_out:
        recalibrate(model, kept, output, threads=threads)

    potential = Potential.load(output, head=head, threads=threads) if output else known
    judgements = {"held out": judge(potential, kept)} if kept else {}
    for path in test or []:
        judgements[path.stem if path.stem not in judgements else str(path)] = judge(potential, read_all([path]))
    rows = table(judgements)
    if plot:
        draw(judgements, plot)
    if as_json:
        common.print_json({"model": str(output or model), "sets": rows})
        return
    from rich.table import Table

    from rich import box

    view = Table(title=f"{output or model}: {potential.members} members. Forces in meV/angstrom, energies in meV.", title_justify="left", box=box.SIMPLE_HEAD)
    heads = ("set", "frames", "force\nRMSE", "\npred.", "rank\ncorr.", "in\n90 %", "energy\nRMSE", "\npred.", "in\n90 %", "\nAUROC")
    for name in heads:
        view.add_column(name, justify="left" if name == "set" else "right", vertical="bottom", overflow="fold")
    for row in rows:
        view.add_row(
            row["set"], str(row["configurations"]), f"{1e3 * row['force_rmse']:.1f}", f"{1e3 * row['force_std']:.1f}", f"{row['force_spearman']:.2f}",
            f"{row['force_coverage']['0.9']:.1%}", f"{1e3 * row['energy_rmse']:.1f}", f"{1e3 * row['energy_std']:.1f}",
            f"{row['energy_coverage']['0.9']:.1%}", f"{row['auroc']['together']:.3f}" if "auroc" in row else "-",
        )  # fmt: skip
    common.console().print(view)


def usable(file: labelled.Labelled, potential, label: bool) -> list:
    """Configurations of a file as `ase.Atoms`, each with energy and forces if `label`. Isolated atoms are left out: they have no environment to learn from."""
    from adatom.datasets.frames import refuse_defects

    structures = []
    for k, frame in enumerate(file.frames):
        if frame.is_isolated_atom():
            continue
        refuse_defects(frame, f"{file.file}: configuration {k}")
        structures.append(labelled.structure(frame))
        results = getattr(structures[-1].calc, "results", {})
        for name in ("energy", "forces"):
            if label and results.get(name) is None:
                raise ValueError(f"{file.file}: configuration {k} has no {name}; name it with --{name}-key. {file.contents}".rstrip())
    if not structures:
        raise ValueError(f"{file.file}: no configurations in it")
    if label:
        file.say(complete=True)
        labelled.warn_of_heads(file.file, structures, potential)
    return structures
