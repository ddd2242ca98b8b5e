# SPDX-License-Identifier: MIT
"""adatom learn and adatom label: the loop, and workers for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adatom import _structures
from adatom.cli import common

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML); docs/learning.md describes it.", show_default=False)]


def learn(config: Config, as_json: common.Json = False) -> None:
    """Runs dynamics under a guard, labels what it caught by DFT, trains, and runs on; or goes on where a loop was stopped or killed.

    The output folder gets the models, the data and report.html.
    """
    from adatom.learn import learn as run
    from adatom.learn import load
    from adatom.learn._process import told_to_end

    loaded = load(config)
    with told_to_end():
        result = run(loaded, (lambda text: None) if as_json else lambda text: common.echo(text), lambda text: common.echo(text, err=True))
    if as_json:
        common.print_json(result)
    else:
        common.echo(f"{result['model']}\n{loaded.output / 'report.html'}")


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
    from adatom.learn import load
    from adatom.learn._process import told_to_end

    if (structures is None) != (output is None):
        raise ValueError("--structures and --output go together")
    loaded = load(config)
    with told_to_end():
        if structures is not None and output is not None:
            _label_file(loaded, structures, output)
        else:
            _work(loaded, once)


def _work(config, once: bool) -> None:
    import time

    from adatom.learn._labels import check_program, work

    check_program(config.label)
    queue = config.output / "labels"
    if not queue.is_dir():
        common.echo(f"no calculations at {queue}" + (" yet: waiting for the loop" if not once else ""))
    while True:
        done = work(queue, config.label, say=lambda text: common.echo(text), checked=True) if queue.is_dir() else 0
        if once or (not done and queue.is_dir() and not (config.output / "running").exists()):
            return
        time.sleep(5.0)


def _label_file(config, structures: Path, output: Path) -> None:
    from adatom.learn._files import printable, write_frames
    from adatom.learn._loop import label as run

    if output.is_dir():
        raise ValueError(f"--output {output} is a folder, expected a file")
    output.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is said before anything is calculated
    labelled, failed = run(config, _structures.read_structures(structures), lambda text: common.echo(text))
    write_frames(output, labelled)
    for f in failed:
        common.echo(f"failed: {f['task']}: {printable(f['reason'])}", err=True)
