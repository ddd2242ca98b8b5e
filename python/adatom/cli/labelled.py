# SPDX-License-Identifier: MIT
"""Labelled structures that commands compare a model with: read as by `adatom data` and `adatom train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adatom.cli import common


@dataclass
class Labelled:
    file: Path
    frames: list
    contents: str  # what the file has, for messages
    notes: list[dict[str, str]]  # what its reader has to say

    def say(self, complete: bool) -> None:
        """Prints the notes; those of names that are not read only where some label is missing."""
        for note in self.notes:
            if note["kind"] != "unread" or not complete:
                kind = "warning" if note["kind"] == "warning" else "note"
                common.echo(f"adatom: {kind}: {self.file}: {note['message']}; {note['advice']}", "yellow", err=True)


def read(file: Path, names: dict[str, str | None], format: str | None, type_map: str | None, zero_smearing: bool) -> Labelled:
    """`names`: of labels in the file, as `datasets.label_keys` takes them; the rest are options of the command line."""
    from adatom import datasets
    from adatom.datasets.reading import open_source, reading_notes, refuse_unused_keys

    found = format or datasets.detect_format(file)
    if found not in datasets.FORMATS:
        raise ValueError(f"--format {found}: expected one of {', '.join(datasets.FORMATS)}")
    named = datasets.label_keys(**names)
    named.free_energy = not zero_smearing
    refuse_unused_keys([file], [found], named)
    source = open_source(file, found, named, type_map=type_map.replace(",", " ").split() if type_map else None)
    frames = list(source)
    return Labelled(file, frames, source.contents, reading_notes(source, found))


def structure(frame):
    """`ase.Atoms` with those labels that count."""
    from adatom.datasets import frame_to_atoms

    atoms = frame_to_atoms(frame)
    if frame.weights[3] == 0 and atoms.calc is not None:
        atoms.calc.results.pop("stress", None)
    return atoms


def warn_of_heads(file: Path, structures: list, potential) -> None:
    """Structures that name another level of theory than the model runs with; a model of one head called Default knows none."""
    heads = [str(atoms.info.get("head") or "") for atoms in structures]
    if potential.heads == ("Default",):
        return
    for other in sorted(set(heads) - {"", potential.head}):
        advice = f"--head {other} compares with them" if other in potential.heads else f"the model has {', '.join(potential.heads)}"
        common.echo(
            f"adatom: warning: {file}: {heads.count(other)} of {len(heads)} structures are of the head '{other}', whose labels are of another level of theory "
            f"than '{potential.head}', with which the model runs: {advice}",
            err=True,
        )
