# SPDX-License-Identifier: MIT
"""What several subcommands share: options, output, reading structures."""

from __future__ import annotations

import json
import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Threads = Annotated[Optional[int], typer.Option("--threads", min=1, help="OpenMP threads; by default as OpenMP decides.")]
Head = Annotated[Optional[str], typer.Option("--head", help="Level of theory, for models with several.")]


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


def console():
    from rich.console import Console

    return Console()


def print_json(document: dict[str, Any]) -> None:
    """JSON has no infinities and no nan: they are null."""
    typer.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def progress(quiet: bool, *columns):
    """A progress bar on stderr, so that stdout holds results only; none with --json. `columns`: in place of the count of what is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), *(columns or (MofNCompleteColumn(),)), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True)


def load(model: Path, device: Device, dtype: DType, threads: int | None, head: str | None, matmul: Matmul = Matmul.exact):
    from adatom import Potential

    return Potential.load(model, device=device.value, dtype=dtype.value, threads=threads, head=head, matmul=matmul.value)


def read_structures(file: Path, index: str = ":") -> list:
    """All structures of a file in any format that ASE reads. ValueError, naming the file, where ASE cannot."""
    import ase.io

    if not file.is_file():
        raise FileNotFoundError(f"no structure file at {file}")
    try:
        structures = ase.io.read(file, index=index, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise whatever their parsing raises
        raise ValueError(f"{file}: ASE cannot read it ({type(error).__name__}: {error})") from error
    structures = structures if isinstance(structures, list) else [structures]
    if not structures:
        raise ValueError(f"{file}: no structures in it (index {index!r})")
    return structures


def symbols(numbers) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]
