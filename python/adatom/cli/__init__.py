# SPDX-License-Identifier: MIT
"""The command `adatom`. One file per subcommand; heavy imports happen inside them so that `adatom --help` is quick."""

from __future__ import annotations

import warnings
from typing import Annotated, Optional

import typer

from adatom.cli import bench, calibrate, common, data, evaluate, import_model, info, learn, relax, train

app = typer.Typer(
    name="adatom",
    help="Machine-learned interatomic potentials: train, calibrate, learn, inspect, import, evaluate, relax, benchmark; data sets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("info")(info.info)
app.add_typer(import_model.app, name="import")
app.command("eval")(evaluate.evaluate)
app.command("relax")(relax.relax)
app.command("bench")(bench.bench)
app.command("train")(train.train)
app.command("calibrate")(calibrate.calibrate)
app.command("learn")(learn.learn)
app.command("label")(learn.label)
app.add_typer(data.app, name="data")


@app.callback()
def version(
    show: Annotated[Optional[bool], typer.Option("--version", is_eager=True, callback=lambda show: _print_version() if show else None, help="Print it.")] = None,
) -> None:
    pass  # typer takes the help from the app


def _print_version() -> None:
    import adatom

    common.echo(f"adatom {adatom.__version__}")
    raise typer.Exit


def _show_warning(otherwise):
    def show(message, category, *place, **more) -> None:
        if category is UserWarning:
            common.echo(f"adatom: warning: {message}", "yellow", err=True)
        else:
            otherwise(message, category, *place, **more)

    return show


def main() -> None:
    """Runs the command; errors that a user can mend become one line on stderr and exit code 1, Adatom's warnings one line each."""
    warnings.showwarning = _show_warning(warnings.showwarning)
    try:
        app()
    except MemoryError as error:
        _fail(f"there is not enough memory ({error})" if str(error) else "there is not enough memory", error)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        _fail(str(error) or type(error).__name__, error)


def _fail(text: str, error: BaseException) -> None:
    common.echo(f"adatom: error: {text}", "red", err=True)
    raise SystemExit(1) from error
