# SPDX-License-Identifier: MIT
"""adatom train: a potential from DFT data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli import common


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML); docs/training.md describes it.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
    as_json: common.Json = False,
) -> None:
    """Trains a potential. The output folder gets model.safetensors, checkpoint.safetensors, log.jsonl and plots.

    Ctrl-C stops after the step in work, with a checkpoint to --resume from.
    """
    from adatom.training import load_config
    from adatom.training import train as run
    from adatom.training._plots import plot_run

    document = load_config(config)
    epochs = document.get("training", {}).get("epochs", 100)
    table = _Table(as_json)
    with common.progress(as_json) as bar:
        task = bar.add_task("train", total=None)

        def progress(epoch: int, step: int, steps: int) -> bool:
            bar.update(task, total=epochs * steps, completed=epoch * steps + step, description=f"epoch {epoch + 1}/{epochs}")
            return True

        def report(epoch: dict[str, Any]) -> bool:
            table.add(epoch, bar.console)
            return True

        try:
            result = run(document, resume=resume, progress=progress, report=report)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; `adatom train {config} --resume` goes on", err=True)
            raise typer.Exit(130) from None
    if result.rank != 0:
        return
    plots = plot_run(result.model.parent)
    if as_json:
        common.print_json(
            {"model": str(result.model), "parameters": result.parameters, "epochs": result.epochs, "tests": result.tests, "plots": [str(p) for p in plots]}
        )
        return
    table.tests(result.tests)
    typer.echo(f"{result.model}: {result.parameters} parameters")


class _Table:
    """Errors of each epoch, and of the test files at the end."""

    def __init__(self, quiet: bool):
        self.quiet, self.begun = quiet, False

    def add(self, epoch: dict[str, Any], console: Any) -> None:
        if self.quiet:
            return
        if not self.begun:
            console.print("epoch     rate    train loss    valid loss   E meV/atom   F meV/A   S meV/A^3      time")
            self.begun = True
        v = epoch["valid"]
        console.print(
            f"{epoch['epoch'] + 1:5d}  {epoch['learning_rate']:.1e}  {epoch['train_loss']:12.5g}  {v['loss']:12.5g}  {1e3 * v['energy_per_atom_rmse']:11.3f}"
            f"  {1e3 * v['force_rmse']:8.2f}  {1e3 * v['stress_rmse']:10.3f}  {epoch['seconds']:7.1f} s{'  *' if epoch['best'] else ''}",
            highlight=False,
        )

    def tests(self, tests: dict[str, dict[str, float]]) -> None:
        for name, e in tests.items():
            typer.echo(
                f"{name}: RMSE of energies {1e3 * e['energy_rmse']:.2f} meV ({1e3 * e['energy_per_atom_rmse']:.3f} meV/atom), "
                f"of forces {1e3 * e['force_rmse']:.2f} meV/angstrom"
            )
