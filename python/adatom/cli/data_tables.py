# SPDX-License-Identifier: MIT
"""Tables of `adatom data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adatom.cli import common

if TYPE_CHECKING:
    from adatom.datasets import Report

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_statistics(report: Report) -> None:
    console = common.console()
    data = report.data
    _print_sources(console, data)
    for name, head in data["heads"].items():
        title = f"head {name}: " if name else ""
        _print_labels(console, head, title)
        _print_elements(console, head, title)
    _print_structures(console, data)
    counts = {severity: sum(finding.severity == severity for finding in report.findings) for severity in COLOURS}
    if counts["error"] or counts["warning"]:
        console.print(f"{counts['error']} errors and {counts['warning']} warnings: see [bold]adatom data check[/bold]", markup=True)


def print_findings(report: Report, failed: bool) -> None:
    from rich.markup import escape

    console = common.console()
    for finding in report.findings:
        colour = COLOURS[finding.severity]
        console.print(f"[{colour}]{finding.severity}[/{colour}] [bold]{finding.code}[/bold]: {escape(finding.message)}", soft_wrap=True, markup=True)
        console.print(f"    {finding.advice}", soft_wrap=True)
    verdict = "[red]not fit for training[/red]" if failed else "[green]fit for training[/green]"
    console.print(f"{report.data['frames']} frames, {report.data['atoms']} atoms: {verdict}", markup=True)


def print_split(summary: dict) -> None:
    from rich.table import Table

    table = Table(title=f"{summary['units']} groups, seed {summary['seed']}", title_justify="left")
    for column in ("part", "asked", "frames", "file"):
        table.add_column(column, justify="right" if column in ("asked", "frames") else "left", overflow="fold")
    for (name, part), file in zip(summary["parts"].items(), summary["files"]):
        table.add_row(name, f"{part['asked']:g}", str(part["frames"]), str(file))
    console = common.console()
    console.print(table)
    if summary["group_by"] in ("config_type", "group") and summary["frames_without_label"]:
        console.print(f"[yellow]{summary['frames_without_label']} frames have no {summary['group_by']} and were dealt out one by one[/yellow]", markup=True)


def _print_sources(console, data: dict) -> None:
    from rich.table import Table

    table = Table(title=f"{data['frames']} frames, {data['atoms']} atoms", title_justify="left")
    for column in ("file", "format", "frames", "entries", "columns"):
        table.add_column(column, justify="right" if column == "frames" else "left", overflow="fold")
    for source in data["sources"]:
        seen = [" ".join(names) if names else "" for names in (source["entries"], source["columns"])]
        table.add_row(source["name"], source["format"], str(source["frames"]), *seen)
    console.print(table)


def _print_labels(console, head: dict, title: str) -> None:
    from rich.table import Table

    table = Table(title=f"{title}labels", title_justify="left")
    for column in ("quantity", "frames", "min", "max", "mean", "std", "rms", "unit"):
        table.add_column(column, justify="left" if column in ("quantity", "unit") else "right")
    frames = head["frames"]
    rows = [
        ("energy per atom", head["with_energy"], head["energy_per_atom"], "eV"),
        ("energy, composition removed", head["residual"]["count"], head["residual"], "eV/atom"),
        ("force, components", head["with_forces"], head["force"], "eV/angstrom"),
        ("largest force of a frame", head["with_forces"], head["largest_force"], "eV/angstrom"),
        ("net force of a frame", head["with_forces"], head["net_force"], "eV/angstrom"),
        ("stress, components", head["with_stress"], head["stress"], "eV/angstrom^3"),
        ("atoms of a frame", frames, head["frame_size"], ""),
    ]
    for name, count, numbers, unit in rows:
        values = [_number(numbers[key]) if numbers["count"] else "" for key in ("min", "max", "mean", "std", "rms")]
        table.add_row(name, str(count) if count == frames else f"{count} of {frames}", *values, unit)
    console.print(table)


def _print_elements(console, head: dict, title: str) -> None:
    from rich.table import Table

    energies = head["atomic_energies"]
    table = Table(title=f"{title}elements", title_justify="left")
    for column in ("element", "frames", "atoms", "force rms (eV/angstrom)", "atomic energy (eV)", "from"):
        table.add_column(column, justify="left" if column in ("element", "from") else "right")
    for symbol, element in head["elements"].items():
        energy = energies["elements"].get(symbol)
        force = _number(element["force"]["rms"]) if element["force"]["count"] else ""
        of_atom = (f"{energy['energy']:.6f}", energy["origin"]) if energy else ("", "")
        table.add_row(symbol, str(element["frames"]), str(element["atoms"]), force, *of_atom)
    console.print(table)
    if energies["rank"] < energies["fitted"]:
        determined = f"{energies['rank']} combinations of {energies['fitted']} atomic energies"
        console.print(f"the compositions determine {determined}; the smallest solution is shown")


def _print_structures(console, data: dict) -> None:
    from rich.table import Table

    table = Table(title="structures", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    kinds = {"0": "molecules", "1": "wires", "2": "slabs", "3": "crystals"}
    table.add_row("periodic along", ", ".join(f"{n} of 3 ({kinds[n]}): {frames}" for n, frames in data["periodicity"].items()))
    if data["nearest_distance"]["count"]:
        table.add_row("shortest distance", f"{data['nearest_distance']['min']:.3f} angstrom ({_frame(data, data['nearest_distance']['at'])})")
    named = {name: frames for name, frames in data["config_types"].items() if name}
    if named:
        table.add_row("config types", ", ".join(f"{name}: {frames}" for name, frames in named.items()))
    if data["groups"]["count"] > 1:
        table.add_row("groups", str(data["groups"]["count"]))
    table.add_row("copies", f"{data['duplicates']['copies']} frames repeat another exactly")
    if data["near_tolerance"]:
        table.add_row("near-duplicates", f"{data['near_duplicates']['copies']} frames within {data['near_tolerance']:g}")
    groups = data["space_groups"]
    if groups["of"]:
        ordered = sorted(groups["frames"].items(), key=lambda item: -item[1])
        listed = ", ".join(f"{name or 'none found'}: {frames}" for name, frames in ordered[:12]) + (", ..." if len(ordered) > 12 else "")
        sample = f" (of {groups['of']} drawn from {groups['crystals']} crystals)" if groups["of"] < groups["crystals"] else ""
        table.add_row("space groups", listed + sample)
    for name, head in data["heads"].items():
        prefix = f"{name}: " if name else ""
        for quantity in ("energy", "force"):
            outliers = head[f"{quantity}_outliers"]
            if outliers["count"]:
                first = outliers["first"][0]
                table.add_row(f"{prefix}{quantity} outliers", f"{outliers['count']}, farthest {_frame(data, first)}, z = {first['z']:.1f}")
    if data["defective"]["count"]:
        first = data["defective"]["first"][0]
        table.add_row("defects", f"{data['defective']['count']}, first {_frame(data, first)}: {first['what']}")
    console.print(table)


def _frame(data: dict, reference: dict) -> str:
    return f"{data['sources'][reference['source']]['name']}: frame {reference['frame']}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.2f}"
