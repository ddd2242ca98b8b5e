# SPDX-License-Identifier: MIT
"""adatom learn and adatom label: the loop, and workers for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adatom.cli import common

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML); docs/learning.md describes it.", show_default=False)]


def learn(config: Config, as_json: common.Json = False) -> None:
    """Runs dynamics under a guard, labels what it caught by DFT, trains, and runs on; or goes on where a loop was stopped or killed.

    The output folder gets the models, the data and report.html.
    """
    from adatom.learn import learn as run
    from adatom.learn import load

    result = run(load(config), say=(lambda text: None) if as_json else lambda text: typer.echo(text))
    if as_json:
        common.print_json(result)
    else:
        typer.echo(f"{result['model']}\n{load(config).output / 'report.html'}")


def label(
    config: Config,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left to do now, instead of waiting for more.")] = False,
    structures: Annotated[Path | None, typer.Option("--structures", help="Label these instead, by the configuration's [label].")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the labelled structures go (extxyz).")] = None,
) -> None:
    """A worker for a loop whose configuration has label.wait = true: takes calculations from its queue until the loop has ended. Any number may run, on any
    machine that shares the folder.

    With --structures and --output it labels a file of structures, a test set for instance, through the same queue.
    """
    import time

    from adatom.learn import load
    from adatom.learn._labels import work

    if (structures is None) != (output is None):
        raise ValueError("--structures and --output go together")
    loaded = load(config)
    if structures is not None and output is not None:
        _label_file(loaded, structures, output)
        return
    queue = loaded.output / "labels"
    while True:
        done = work(queue, loaded.label, say=lambda text: typer.echo(text)) if queue.is_dir() else 0
        if once or (not done and queue.is_dir() and not (loaded.output / "running").exists()):
            return
        time.sleep(5.0)


def _label_file(config, structures: Path, output: Path) -> None:
    import ase.io

    from adatom.learn._files import write_frames
    from adatom.learn._loop import label as run

    labelled, failed = run(config, ase.io.read(structures, ":"), lambda text: typer.echo(text))
    write_frames(output, labelled)
    for f in failed:
        typer.echo(f"failed: {f['task']}: {f['reason']}", err=True)
