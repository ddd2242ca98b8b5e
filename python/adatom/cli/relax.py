# SPDX-License-Identifier: MIT
"""adatom relax: a structure's nearest minimum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from adatom import _structures
from adatom.cli import common


def relax(
    model: common.ModelFile,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Structure in any format that ASE reads; of several, the last.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Relaxed structure; the suffix decides the format.", show_default=False)],
    cell: Annotated[bool, typer.Option("--cell", help="Relax the cell too, to zero stress.")] = False,
    fmax: Annotated[float, typer.Option("--fmax", min=0.0, help="Largest force that remains, eV/angstrom.")] = 0.01,
    smax: Annotated[Optional[float], typer.Option("--smax", min=0.0, help="With --cell: largest component of the stress that remains, GPa; 0.01 by default.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Give up after this many steps.")] = 500,
    dtype: common.DTypeOption = common.DType.float64,
    device: common.DeviceOption = common.Device.cpu,
    threads: common.Threads = None,
    head: common.Head = None,
    as_json: common.Json = False,
) -> None:
    """Moves atoms (and the cell with --cell) to the nearest minimum, downhill all the way. Constraints in the file are kept.

    Exit code 2 if the forces did not get below --fmax, or the stress below --smax; the structure is written all the same.
    """
    import ase.io
    import numpy as np
    from ase import units
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE, BFGSLineSearch

    atoms = _structures.read_structures(file, "-1")[0]
    if cell and not atoms.pbc.all():
        raise ValueError(f"--cell needs a cell that is periodic along all three vectors; {file} has pbc = {atoms.pbc.tolist()}")
    if smax is not None and not cell:
        raise ValueError("--smax is for --cell: without it the cell stays as it is")
    smax = 0.01 if smax is None else smax
    _check_output(output)
    atoms.calc = _watched(common.load(model, device, dtype, threads, head))
    initial = atoms.get_potential_energy()
    # Both only go downhill. BFGS takes far fewer steps but holds a dense matrix of 3N x 3N
    method = BFGSLineSearch if len(atoms) <= 1000 else FIRE
    optimizer = method(FrechetCellFilter(atoms) if cell else atoms, logfile=None)

    def left() -> tuple[float, float]:
        """Largest force (eV/angstrom) and component of the stress (GPa). The filter's own criterion depends on the size of the cell."""
        force = np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0)
        return float(force), float(np.abs(atoms.get_stress()).max() / units.GPa) if cell else 0.0

    def converges() -> bool:
        force, stress = left()
        return force <= fmax and stress <= smax

    with common.progress(as_json) as bar:
        task = bar.add_task("relax", total=steps)
        converged = converges()
        if not converged:
            for _ in optimizer.irun(fmax=0.0, steps=steps):
                atoms.calc.trials = 0
                force, stress = left()
                rest = f", stress = {stress:.3f} GPa" if cell else ""
                bar.update(task, completed=optimizer.nsteps, description=f"E = {atoms.get_potential_energy():.6f} eV, fmax = {force:.4f} eV/angstrom{rest}")
                converged = converges()
                if converged:
                    break
    ase.io.write(output, atoms)
    document = {
        "converged": converged,
        "steps": optimizer.nsteps,
        "energy_initial": initial,
        "energy": atoms.get_potential_energy(),
        "fmax": left()[0],
        "output": str(output),
    }
    if "feature_distances" in atoms.calc.results:
        document["largest_distance"] = float(atoms.calc.results["feature_distances"].max(initial=0.0))
    if cell:
        document["stress"] = atoms.get_stress().tolist()
        document["smax_GPa"] = left()[1]
        document["volume"] = atoms.get_volume()
    if as_json:
        common.print_json(document)
    else:
        verdict = "converged" if converged else "not converged"
        common.echo(f"{verdict} after {document['steps']} steps: E = {document['energy']:.6f} eV ({document['energy'] - initial:+.6f} eV), ")
        rest = f", of the stress's components {document['smax_GPa']:.4f} GPa" if cell else ""
        common.echo(f"largest force {document['fmax']:.5f} eV/angstrom{rest}; written to {output}")
        if (distance := document.get("largest_distance", 0.0)) > 1:
            common.echo(f"distance from the training data up to {distance:.1f}: beyond 1 it is extrapolation (docs/uncertainty.md)")
    if not converged:
        raise typer.Exit(2)


def _check_output(output: Path) -> None:
    """What cannot be written had better be known before the work."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    common.check_output_file(output)
    try:
        known = ioformats.get(filetype(str(output), read=False))
    except UnknownFileTypeError:
        known = None
    if known is None or not known.can_write:
        raise ValueError(f"{output}: ASE writes no format of that suffix; .extxyz, .cif, .vasp and .traj are some that it does")


def _watched(potential):
    """A calculator that ends a relaxation which falls into a hole of the potential, or begins in one: a line search may not come to an end there."""
    import numpy as np

    from adatom import AdatomCalculator

    class Watched(AdatomCalculator):
        most = 0.0  # eV/angstrom
        trials = 0  # since the last step

        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            largest = np.abs(self.results["forces"]).max(initial=0.0)
            begins, self.trials = not self.most, self.trials + 1
            self.most = self.most or min(max(1e4, 1e3 * largest), 1e6)  # downhill, forces do not grow for long; with more no structure comes to rest
            if largest < self.most and self.trials < 500:
                return
            atom = int(np.argmax(np.abs(self.results["forces"]).max(1)))
            if largest < self.most:
                raise RuntimeError(
                    f"the energy does not fall along the forces, in {self.trials} trials of one step: the largest is {largest:.3g} eV/angstrom, on atom {atom} "
                    "(from 0). Try --dtype float64; if it is that already, the model is damaged or means nothing for this structure"
                )
            distances = self.results.get("feature_distances")
            far = f", {distances[atom]:.3g} times as far from the training data as these go" if distances is not None else ""
            if begins:
                raise RuntimeError(
                    f"there is a force of {largest:.3g} eV/angstrom on atom {atom} (from 0) before the first step{far}. The potential means nothing there: begin "
                    "with a structure whose atoms are not as close; if they are not close, the model is damaged, or its training diverged"
                )
            raise RuntimeError(
                f"the relaxation fell into a hole of the potential: a force of {largest:.3g} eV/angstrom on atom {atom} (from 0){far}. "
                "It means nothing there: begin with a structure whose atoms are not as close"
            )

    return Watched(potential)
