# SPDX-License-Identifier: MIT
"""What several subcommands share: options and output."""

from __future__ import annotations

import json
import math
import unicodedata
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Threads = Annotated[Optional[int], typer.Option("--threads", min=1, help="Threads; by default OMP_NUM_THREADS, else one for each CPU that the process may use.")]
Head = Annotated[Optional[str], typer.Option("--head", help="Level of theory, for models with several.")]


NOT_MIRROR_SYMMETRIC = "not symmetric: a structure and its mirror image have different energies, as in the network that these weights are from (no parity)"


class Device(str, Enum):
    cpu = "cpu"
    cuda = "cuda"


class DType(str, Enum):
    float32 = "float32"
    float64 = "float64"


class Matmul(str, Enum):
    exact = "exact"
    tf32 = "tf32"
    bf16 = "bf16"


DeviceOption = Annotated[Device, typer.Option("--device")]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="Precision of the network.")]


def printable(text: str) -> str:
    """Text from a file, for a terminal: control characters, which could move its cursor or set its title, are replaced."""
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t" else c for c in text)


def echo(text: str, colour: str | None = None, err: bool = False) -> None:
    typer.secho(printable(text), fg=colour, err=err)


def console(**options):
    """Prints text as it is: names of files, heads and keys may have brackets. Where markup is meant, `print(..., markup=True)` and `rich.markup.escape`."""
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable, options=None):
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return Plain(markup=False, emoji=False, **options)


def print_json(document: dict[str, Any]) -> None:
    """JSON has no infinities and no nan: they are null."""
    echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def progress(quiet: bool, *columns):
    """A progress bar on stderr, so that stdout holds results only; none with --json. `columns`: in place of the count of what is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *(columns or (MofNCompleteColumn(),)), TimeElapsedColumn())
    return Progress(*columns, console=console(stderr=True), disable=quiet, transient=True)


def load(model: Path, device: Device, dtype: DType, threads: int | None, head: str | None, matmul: Matmul = Matmul.exact):
    from adatom import Potential

    return Potential.load(model, device=device.value, dtype=dtype.value, threads=threads, head=head, matmul=matmul.value)


def check_output_file(output: Path) -> None:
    """Raises ValueError where no file can be written: what is known before the work had better be said then."""
    if output.is_dir():
        raise ValueError(f"{output} is a folder, expected the name of a file to write")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {output.absolute().parent} for {output}")
