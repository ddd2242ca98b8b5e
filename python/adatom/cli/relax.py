# SPDX-License-Identifier: MIT
"""adatom relax: a structure's nearest minimum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adatom.cli import common


def relax(
    model: common.ModelFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Structure in any format that ASE reads; of several, the last.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Relaxed structure; the suffix decides the format.", show_default=False)],
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too, to zero stress.")] = False,
    fmax: Annotated[float, typer.Option("--fmax", min=0.0, help="Largest force that remains, eV/angstrom.")] = 0.01,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Give up after this many steps.")] = 500,
    dtype: common.DTypeOption = common.DType.float64,
    device: common.DeviceOption = common.Device.cpu,
    threads: common.Threads = None,
    head: common.Head = None,
    as_json: common.Json = False,
) -> None:
    """Moves atoms (and the cell with --cell) to the nearest minimum, downhill all the way. Constraints in the file are kept.

    Exit code 2 if the forces did not get below --fmax; the structure is written all the same.
    """
    import ase.io
    import numpy as np
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE, BFGSLineSearch

    atoms = common.read_structures(file, "-1")[0]
    if cell and not atoms.pbc.all():
        raise ValueError(f"--cell needs a cell that is periodic along all three vectors; {file} has pbc = {atoms.pbc.tolist()}")
    _check_output(output)
    atoms.calc = _watched(common.load(model, device, dtype, threads, head))
    initial = atoms.get_potential_energy()
    # Both only go downhill. BFGS takes far fewer steps but holds a dense matrix of 3N x 3N
    method = BFGSLineSearch if len(atoms) <= 1000 else FIRE
    optimizer = method(FrechetCellFilter(atoms) if cell else atoms, logfile=None)
    with common.progress(as_json) as bar:
        task = bar.add_task("relax", total=steps)

        def report():
            largest = np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0)
            description = f"E = {atoms.get_potential_energy():.6f} eV, fmax = {largest:.4f} eV/angstrom"
            bar.update(task, completed=optimizer.nsteps, description=description)

        optimizer.attach(report)
        converged = bool(optimizer.run(fmax=fmax, steps=steps))
    ase.io.write(output, atoms)
    document = {
        "converged": converged,
        "steps": optimizer.nsteps,
        "energy_initial": initial,
        "energy": atoms.get_potential_energy(),
        "fmax": float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0)),
        "output": str(output),
    }
    if "distances" in atoms.calc.results:
        document["largest_distance"] = float(atoms.calc.results["distances"].max(initial=0.0))
    if cell:
        document["stress"] = atoms.get_stress().tolist()
        document["volume"] = atoms.get_volume()
    if as_json:
        common.print_json(document)
    else:
        verdict = "converged" if converged else "not converged"
        typer.echo(f"{verdict} after {document['steps']} steps: E = {document['energy']:.6f} eV ({document['energy'] - initial:+.6f} eV), ")
        typer.echo(f"largest force {document['fmax']:.5f} eV/angstrom; written to {output}")
        if (distance := document.get("largest_distance", 0.0)) > 1:
            typer.echo(f"distance from the training data up to {distance:.1f}: beyond 1 it is extrapolation (docs/uncertainty.md)")
    if not converged:
        raise typer.Exit(2)


def _check_output(output: Path) -> None:
    """What cannot be written had better be known before the work."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    if not output.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {output.absolute().parent} for {output}")
    try:
        known = ioformats.get(filetype(str(output), read=False))
    except UnknownFileTypeError:
        known = None
    if known is None or not known.can_write:
        raise ValueError(f"{output}: ASE writes no format of that suffix; .extxyz, .cif, .vasp and .traj are some that it does")


def _watched(potential):
    """A calculator that ends a relaxation which falls into a hole of the potential: a line search may not come to an end in one."""
    import numpy as np

    from adatom import AdatomCalculator

    class Watched(AdatomCalculator):
        most = 0.0  # eV/angstrom

        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            largest = np.abs(self.results["forces"]).max(initial=0.0)
            self.most = self.most or max(1e4, 1e3 * largest)  # downhill, forces do not grow for long
            if largest < self.most:
                return
            atom = int(np.argmax(np.abs(self.results["forces"]).max(1)))
            far = f", {self.results['distances'][atom]:.3g} times as far from the training data as these go" if "distances" in self.results else ""
            raise RuntimeError(
                f"the relaxation fell into a hole of the potential: a force of {largest:.3g} eV/angstrom on atom {atom} (from 0){far}. "
                "It means nothing there: begin with a structure whose atoms are not as close"
            )

    return Watched(potential)
