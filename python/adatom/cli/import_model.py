# SPDX-License-Identifier: MIT
"""adatom import: models of other packages become model files."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from adatom import _structures
from adatom.cli import common

app = typer.Typer(help="Convert a model of another package to a model file.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(metavar="IN", help="The other package's file.", show_default=False)]
Output = Annotated[Path, typer.Option("-o", "--output", help="Model file to write.", show_default=False)]
Elements = Annotated[Optional[str], typer.Option("--elements", help="Keep only these, e.g. Cu,O: smaller file, same predictions.")]
Head = Annotated[Optional[str], typer.Option("--head", help="Keep only this level of theory.")]


@app.command("mace")
def mace(source: Source, output: Output, elements: Elements = None, head: Head = None, as_json: common.Json = False) -> None:
    """A model saved by mace-torch, which must be installed. Such files are pickles: import only what you trust."""
    if not source.is_file():
        raise FileNotFoundError(f"no model file at {source}")
    with _needs("mace-torch"):
        from adatom.importers.mace import import_mace

        _write(import_mace, str(source), output, elements, head, as_json)


@app.command("sevennet")
def sevennet(
    source: Annotated[str, typer.Argument(metavar="IN", help="Checkpoint file, or a name that sevenn knows, e.g. 7net-0.", show_default=False)],
    output: Output,
    elements: Elements = None,
    head: Head = None,
    as_json: common.Json = False,
) -> None:
    """A checkpoint of SevenNet; sevenn must be installed. Checkpoints are pickles: import only what you trust."""
    with _needs("sevenn"):
        from adatom.importers.sevennet import import_sevennet

        _write(import_sevennet, source, output, elements, head, as_json)


@contextmanager
def _needs(package: str):
    try:
        yield
    except ImportError as error:
        raise ImportError(f"this import needs the package {package}: pip install {package} ({error})") from error


def _write(convert, source: str, output: Path, elements: str | None, head: str | None, as_json: bool) -> None:
    from adatom import Potential
    from adatom.importers import write_model

    common.check_output_file(output)
    numbers = atomic_numbers(elements)
    with common.progress(as_json) as bar:
        task = bar.add_task(f"convert {source}", total=2)
        tensors, document = convert(source, elements=numbers, head=head)
        bar.advance(task)
        document = write_model(output, tensors, document)
        bar.advance(task)
    mirror_symmetric = Potential.load(output, head=document["heads"][0]).mirror_symmetric
    kept, heads = _structures.symbols(document["elements"]), document["heads"]
    if as_json:
        common.print_json({"output": str(output), "elements": kept, "heads": heads, "cutoff": document["cutoff"], "sha256": document["sha256"],
                           "mirror_symmetric": mirror_symmetric})  # fmt: skip
    else:
        common.echo(f"wrote {output}: {len(kept)} elements, heads {', '.join(heads)}, cutoff {document['cutoff']:g} angstrom")
        if not mirror_symmetric:
            common.echo(f"under reflection it is {common.NOT_MIRROR_SYMMETRIC}")


def atomic_numbers(elements: str | None) -> list[int] | None:
    """"Cu,O" to [29, 8]; None stays None, all elements."""
    if elements is None:
        return None
    from ase.data import atomic_numbers as known

    names = [name.strip() for name in elements.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(f"--elements: {name!r} is not the symbol of an element; write them as Cu,O")
    if not names:
        raise ValueError("--elements names no element; write them as Cu,O")
    return [known[name] for name in names]
