# SPDX-License-Identifier: MIT
"""adatom train: a potential from DFT data."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli import common

MOST_ELEMENTS = 5  # that have columns of their own


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration (TOML); docs/training.md describes it.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
    as_json: common.Json = False,
) -> None:
    """Trains a potential. The output folder gets model.safetensors, checkpoint.safetensors, log.jsonl and plots.

    Ctrl-C, SIGTERM and SIGHUP stop after the step in work, with a checkpoint to --resume from.
    """
    from rich.markup import escape

    from adatom.training import load_config, resolved_config
    from adatom.training import train as run
    from adatom.training._distributed import rank

    document = load_config(config)
    try:
        training = resolved_config(document)["training"]
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from error
    table = _Table(as_json)
    with common.progress(as_json or rank() != 0, time_left(training["seconds"])) as bar:
        task = bar.add_task("reading data", total=None, first=None)

        def progress(epoch: int, step: int, steps: int) -> bool:
            done = epoch - 1 + step / steps
            first = bar.tasks[0].fields["first"] or (bar.get_time(), done)  # a resumed run does not begin at zero
            bar.update(task, total=training["epochs"], completed=done, first=first, description=f"epoch {epoch}, step {step} of {steps}")
            return True

        def report(epoch: dict[str, Any]) -> bool:
            table.add(epoch, bar.console)
            return True

        def warn(text: str) -> None:
            bar.console.print(f"[yellow]warning:[/yellow] {escape(text)}", highlight=False, soft_wrap=True, markup=True)

        def note(text: str) -> None:
            bar.console.print(text, highlight=False, soft_wrap=True)

        interrupted = f"interrupted; `adatom train {config} --resume` goes on"
        try:
            result = run(document, resume=resume, progress=progress, report=report, warn=warn, note=note, plots=True)
        except KeyboardInterrupt as stop:
            common.echo(interrupted, err=True)
            raise typer.Exit(128 + getattr(stop, "signum", signal.SIGINT)) from None
    if result.rank != 0:
        return
    if not result.finished:  # another process was interrupted
        common.echo(interrupted, err=True)
        raise typer.Exit(128 + signal.SIGINT)
    if as_json:
        plots = [str(p) for p in result.plots]
        common.print_json(
            {"model": str(result.model), "parameters": result.parameters, "epochs": result.epochs, "valid": result.valid, "tests": result.tests, "plots": plots}
        )
        return
    if resume and not result.epochs:
        common.echo("the run had ended before; to train on, raise training.epochs (or the limit of training.seconds or training.patience that ended it)")
    table.tests(result.tests)
    common.echo(f"{result.model}: {result.parameters} parameters")


def time_left(limit: float):
    """A column of a progress bar over epochs: the time that the rest takes at the mean speed so far. `limit`: seconds after which the run ends; 0: none."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class TimeLeft(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            if task.total is None or task.fields["first"] is None:
                return Text("-:--:-- left", style="progress.remaining")
            start, done = task.fields["first"]
            if task.completed <= done:
                return Text("-:--:-- left", style="progress.remaining")
            left = (task.get_time() - start) / (task.completed - done) * (task.total - task.completed)
            if limit > 0:
                left = min(left, max(limit - (task.get_time() - start), 0.0))
            minutes, seconds = divmod(round(left), 60)
            return Text(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left", style="progress.remaining")

    return TimeLeft()


class _Table:
    """Errors of each epoch as it ends, and of the test files."""

    def __init__(self, quiet: bool):
        self.quiet, self.columns = quiet, None

    def add(self, epoch: dict[str, Any], console: Any) -> None:
        if self.quiet:
            return
        v = epoch["valid"]
        if self.columns is None:  # the first epoch tells which labels there are
            self.columns = _error_columns([v])
            if len(self._heads()) > console.width:
                self.columns = _error_columns([v], by_element=False)
            console.print(self._heads(), highlight=False, soft_wrap=True)
        numbers = (f"{epoch['epoch']}", f"{epoch['learning_rate']:.1e}", f"{epoch['train_loss']:.5g}", f"{v['loss']:.5g}")
        line = self._line(*numbers, [_number(value(v)) for _, value in self.columns], f"{epoch['seconds']:.0f} s", "*" if epoch["best"] else " ")
        console.print(line, highlight=False, soft_wrap=True)

    def _heads(self) -> str:
        return self._line("epoch", "rate", "train loss", "valid loss", [name for name, _ in self.columns], "time", " ")

    def _line(self, epoch: str, rate: str, train: str, valid: str, errors: list[str], time: str, best: str) -> str:
        widths = [max(len(name), 9) for name, _ in self.columns]
        return f"{epoch:>5} {rate:>7}  {train:>10}  {valid:>10}  {'  '.join(f'{e:>{n}}' for e, n in zip(errors, widths))} {time:>7} {best}"

    def tests(self, tests: dict[str, dict[str, Any]]) -> None:
        if not tests:
            return
        from rich.table import Table

        rows = [(name, e) for name, e in tests.items()]
        for name, e in tests.items():
            rows += [(f"{name}, head {head}", of_head) for head, of_head in e.get("heads", {}).items()]
        columns = _error_columns([e for _, e in rows])
        table = Table(title="RMSE of the kept weights on the test files", title_justify="left")
        table.add_column("file")
        for name, _ in columns:
            table.add_column(name, justify="right")
        for name, e in rows:
            table.add_row(name, *(_number(value(e)) for _, value in columns))
        common.console().print(table)


def _error_columns(sets: list[dict[str, Any]], by_element: bool = True) -> list[tuple[str, Callable[[dict[str, Any]], float | None]]]:
    """Name and value of each column of RMSEs, milli-units: energies, forces, forces by element where there are few, stresses; of what is labelled."""

    def column(*path: str) -> Callable[[dict[str, Any]], float | None]:
        def value(errors: Any) -> float | None:
            for key in path:
                errors = errors.get(key, {})
            return 1e3 * errors if errors != {} else None

        return value

    columns = [("E meV/atom", column("energy_per_atom_rmse")), ("F meV/A", column("force_rmse"))]
    elements = dict.fromkeys(element for e in sets for element in e.get("force_rmse_by_element", {}))
    if by_element and 1 < len(elements) <= MOST_ELEMENTS:
        columns += [(f"F {element}", column("force_rmse_by_element", element)) for element in elements]
    columns.append(("S meV/A^3", column("stress_rmse")))
    return [(name, value) for name, value in columns if any(value(e) is not None for e in sets)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
