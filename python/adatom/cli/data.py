# SPDX-License-Identifier: MIT
"""adatom data: statistics, checks, splits and conversions of labelled configurations."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from adatom.cli import common, data_tables

app = typer.Typer(no_args_is_help=True, help="Labelled configurations: statistics, checks, splits, conversion.")

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILES",
        help="extxyz, caches, VASP OUTCAR or vasprun.xml, Quantum ESPRESSO output, DeePMD folders, ASE databases, ...",
        show_default=False,
    ),
]
Format = Annotated[
    Optional[str],
    typer.Option(
        "--format",
        help="Format of the files, where it is not recognised: extxyz, cache, vasp-outcar, vasp-xml, espresso, deepmd, ase-db, ase.",
    ),
]
Key = Optional[str]
EnergyKey = Annotated[Key, typer.Option("--energy-key", help="Name of the energy, e.g. REF_energy; by default free_energy, energy, or another common name.")]
ForcesKey = Annotated[Key, typer.Option("--forces-key", help="Name of the forces.")]
StressKey = Annotated[Key, typer.Option("--stress-key", help="Name of the stress.")]
VirialKey = Annotated[Key, typer.Option("--virial-key", help="Name of the virial; '' reads none.")]
ConfigTypeKey = Annotated[Key, typer.Option("--config-type-key", help="Name of the configuration type.")]
GroupKey = Annotated[Key, typer.Option("--group-key", help="Name of what must stay together in a split, e.g. a trajectory.")]
HeadKey = Annotated[Key, typer.Option("--head-key", help="Name of the head (level of theory).")]
Head = Annotated[str, typer.Option("--head", help="Head of the frames that name none.")]
TypeMap = Annotated[Optional[str], typer.Option("--type-map", help="Symbols of DeePMD's types, e.g. O,H, for folders without type_map.raw.")]
ZeroSmearing = Annotated[
    bool,
    typer.Option("--zero-smearing", help="Take energies extrapolated to zero smearing, not the free energies that the forces belong to, where no --energy-key is given."),
]
KeepUnconverged = Annotated[
    bool,
    typer.Option("--keep-unconverged", help="Keep frames whose electronic cycle did not converge (VASP, Quantum ESPRESSO)."),
]
NearDuplicates = Annotated[
    bool,
    typer.Option("--near-duplicates/--no-near-duplicates", help="Find structures that are the same up to rotation, order of atoms and the like."),
]
NearTolerance = Annotated[
    float,
    typer.Option("--near-tolerance", min=0, help="Relative distance of near-duplicates; 0.001 is a few thousandths of an angstrom."),
]
OutlierZ = Annotated[float, typer.Option("--outlier-z", min=0, help="Robust z-score beyond which a frame is an outlier.")]


class GroupBy(str, Enum):
    frame = "frame"
    config_type = "config-type"
    group = "group"
    block = "block"


@app.command()
def stats(
    files: Files,
    output: Annotated[Optional[Path], typer.Option("-o", "--output", help="Draw histograms into this image file.", show_default=False)] = None,
    format: Format = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    config_type_key: ConfigTypeKey = None,
    group_key: GroupKey = None,
    head_key: HeadKey = None,
    head: Head = "",
    type_map: TypeMap = None,
    zero_smearing: ZeroSmearing = False,
    keep_unconverged: KeepUnconverged = False,
    near_duplicates: NearDuplicates = True,
    near_tolerance: NearTolerance = 1e-3,
    outlier_z: OutlierZ = 8.0,
    symmetry_frames: Annotated[
        int, typer.Option("--symmetry-frames", min=0, help="Space groups of at most so many crystals, drawn at random.")
    ] = 500,
    symmetry_tolerance: Annotated[float, typer.Option("--symmetry-tolerance", min=0, help="Of space groups, angstrom.")] = 1e-2,
    as_json: common.Json = False,
) -> None:
    """What is in the files: elements, labels and their ranges, copies, outliers, space groups, atomic energies."""
    report = _examine(
        files,
        as_json,
        near_duplicates=near_duplicates,
        near_tolerance=near_tolerance,
        outlier_z=outlier_z,
        symmetry_frames=symmetry_frames,
        symmetry_tolerance=symmetry_tolerance,
        **_options(locals()),
    )
    if output:
        from adatom.datasets.plots import plot

        plot(report, output)
    if as_json:
        common.print_json(report.data)
    else:
        data_tables.print_statistics(report)


@app.command()
def check(
    files: Files,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    format: Format = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    config_type_key: ConfigTypeKey = None,
    group_key: GroupKey = None,
    head_key: HeadKey = None,
    head: Head = "",
    type_map: TypeMap = None,
    zero_smearing: ZeroSmearing = False,
    keep_unconverged: KeepUnconverged = False,
    near_duplicates: NearDuplicates = True,
    near_tolerance: NearTolerance = 1e-3,
    outlier_z: OutlierZ = 8.0,
    as_json: common.Json = False,
) -> None:
    """What is wrong with the files, and what to do about it. Exits with 1 if there are errors.

    Give the files for training and for testing together: structures that stand in both are reported.
    """
    report = _examine(
        files, as_json, near_duplicates=near_duplicates, near_tolerance=near_tolerance, outlier_z=outlier_z, symmetry_frames=0, **_options(locals())
    )
    failed = report.failed or (strict and any(finding.severity == "warning" for finding in report.findings))
    if as_json:
        common.print_json({"ok": not failed, "frames": report.data["frames"], "findings": [vars(finding) for finding in report.findings]})
    else:
        data_tables.print_findings(report, failed)
    if failed:
        raise typer.Exit(1)


@app.command()
def split(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for the parts and split.json.", show_default=False)],
    train: Annotated[float, typer.Option("--train", min=0, help="Share or number of frames; 0: the rest.")] = 0.8,
    valid: Annotated[float, typer.Option("--valid", min=0, help="Share or number of frames for validation.")] = 0.1,
    test: Annotated[
        Optional[float],
        typer.Option("--test", min=0, help="Share or number of frames for testing; by default the rest, none if there is none.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same split on every machine.")] = 0,
    group_by: Annotated[
        GroupBy,
        typer.Option("--group-by", help="What is never cut: frames of one configuration type or one group (--group-key), or runs of --block frames."),
    ] = GroupBy.frame,
    block: Annotated[int, typer.Option("--block", min=1, help="Length of the runs of --group-by block.")] = 100,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Keep also near-duplicates on one side; exact copies always are.")
    ] = False,
    near_tolerance: NearTolerance = 1e-3,
    cache: Annotated[bool, typer.Option("--cache", help="Write training caches instead of extxyz.")] = False,
    format: Format = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    config_type_key: ConfigTypeKey = None,
    group_key: GroupKey = None,
    head_key: HeadKey = None,
    head: Head = "",
    type_map: TypeMap = None,
    zero_smearing: ZeroSmearing = False,
    keep_unconverged: KeepUnconverged = False,
    as_json: common.Json = False,
) -> None:
    """Divides the files into train, valid and test without cutting groups, and never with a copy on the other side.

    Frames of extxyz files are copied as they stand, unless --head or --cache asks for more.
    """
    from adatom import datasets

    parts = _parts(train, valid, test)
    with common.progress(as_json) as bar:
        task = bar.add_task("split", total=None)
        summary = datasets.split(
            files,
            output,
            parts,
            seed=seed,
            group_by=group_by.value.replace("-", "_"),
            block=block,
            near_duplicates=near_duplicates,
            near_tolerance=near_tolerance,
            cache=cache,
            progress=lambda frames: bar.advance(task, frames),
            **_options(locals()),
        )
    if as_json:
        common.print_json(summary)
    else:
        data_tables.print_split(summary)


@app.command()
def convert(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="What to write: .extxyz, .xyz or .cache.", show_default=False)],
    drop_defective: Annotated[bool, typer.Option("--drop-defective", help="Leave out frames that cannot be used, and list them.")] = False,
    format: Format = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    stress_key: StressKey = None,
    virial_key: VirialKey = None,
    config_type_key: ConfigTypeKey = None,
    group_key: GroupKey = None,
    head_key: HeadKey = None,
    head: Head = "",
    type_map: TypeMap = None,
    zero_smearing: ZeroSmearing = False,
    keep_unconverged: KeepUnconverged = False,
    as_json: common.Json = False,
) -> None:
    """Joins the files into one extxyz file or one training cache, with the usual names of labels and in eV and angstrom."""
    from adatom import datasets

    with common.progress(as_json) as bar:
        task = bar.add_task("convert", total=None)
        summary = datasets.convert(
            files, output, drop_defective=drop_defective, progress=lambda frames: bar.advance(task, frames), **_options(locals())
        )
    if as_json:
        common.print_json(summary)
        return
    common.echo(f"{summary['frames']} frames in {output}")
    for frame in summary["dropped"]:
        common.echo(f"left out: {frame['file']}: frame {frame['frame']}: {frame['what']}", "yellow", err=True)


def _options(arguments: dict) -> dict:
    """What `datasets.read` takes, from a command's arguments."""
    names = ("energy", "forces", "stress", "virial", "config_type", "group", "head")
    options = {name: arguments[f"{name}_key"] for name in names if arguments[f"{name}_key"] is not None}
    from adatom.datasets import label_keys

    return {
        "format": arguments["format"],
        "keys": label_keys(**options),
        "default_head": arguments["head"],
        "type_map": arguments["type_map"].replace(",", " ").split() if arguments["type_map"] else None,
        "force_consistent": not arguments["zero_smearing"],
        "keep_unconverged": arguments["keep_unconverged"],
    }


def _examine(files: list[Path], quiet: bool, **options):
    from adatom import datasets

    with common.progress(quiet) as bar:
        task = bar.add_task("read", total=None)
        return datasets.examine(files, progress=lambda frames: bar.advance(task, frames), **options)


def _parts(train: float, valid: float, test: float | None) -> dict[str, float]:
    """Shares or numbers of frames; a part for testing only if something is asked for or left over."""
    if test is None:
        shares = train + valid <= 1 and train < 1
        test = round(1 - train - valid, 12) if shares else None
        if not test:
            return {"train": train, "valid": valid}
    return {"train": train, "valid": valid, "test": test}
