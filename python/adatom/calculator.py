# SPDX-License-Identifier: MIT
"""The ASE calculator."""

from __future__ import annotations

from os import PathLike
from typing import Any

from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from adatom.potential import Potential


class AdatomCalculator(Calculator):
    """ASE calculator of a model file or of a loaded `Potential`.

    Energy, free energy (the same), per-atom energies, forces, stress and per-atom stresses, in ASE's units and signs. Stress needs a cell with a
    volume; asking for it otherwise raises PropertyNotImplementedError. The options are those of `Potential.load`.

    With a model that has detectors of uncertainty (docs/uncertainty.md) `results` also has "energy_std" (eV), "member_energies" (eV, [members]),
    "force_std" (eV/angstrom, [n]) and "distances" ([n]). `uncertainty`: True makes a model without detectors an error, False leaves these out.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]
    ignored_changes = {"initial_charges", "initial_magmoms"}
    default_parameters: dict[str, Any] = {}

    def __init__(
        self,
        model: str | PathLike[str] | Potential,
        *,
        device: str = "cpu",
        dtype: Any = "float32",
        threads: int | None = None,
        splines: bool = True,
        head: str | None = None,
        matmul: str = "exact",
        uncertainty: bool | None = None,
    ):
        super().__init__()
        if isinstance(model, Potential):
            self.potential = model
        else:
            self.potential = Potential.load(model, device=device, dtype=dtype, threads=threads, splines=splines, head=head, matmul=matmul)
        self.uncertainty = bool(self.potential.members) if uncertainty is None else uncertainty
        if self.uncertainty and not self.potential.members:
            raise ValueError(self.potential.no_uncertainty)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        for name in ("stress", "stresses"):
            if name in properties and self.atoms.cell.volume == 0:
                raise PropertyNotImplementedError(f"{name}: this structure has no cell with a volume; set one (atoms.center(vacuum=...), atoms.cell)")
        # Energy, forces and stress come out of one pass; only per-atom stresses cost extra memory.
        result = self.potential.evaluate(self.atoms, stresses="stresses" in properties, uncertainty=self.uncertainty)
        self.results = {"energy": result.energy, "free_energy": result.energy, "energies": result.energies, "forces": result.forces}
        for name in ("stress", "stresses", "energy_std", "member_energies", "force_std", "distances"):
            if getattr(result, name) is not None:
                self.results[name] = getattr(result, name)
