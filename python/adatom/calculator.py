# SPDX-License-Identifier: MIT
"""The ASE calculator."""

from __future__ import annotations

import threading
from os import PathLike
from typing import Any

import ase.calculators.calculator as ase_calculator
import ase.io.extxyz as ase_extxyz
import ase.outputs
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from adatom.potential import Potential

# ASE's own functions (SinglePointCalculator, get_properties, export_properties, write) refuse properties that they do not know: what detectors of
# uncertainty add is made known to them. Names of attributes of `Result`, where ASE's name is another.
_EXTRA_PROPERTIES = {
    "energy_std": ((), "energy_std"),
    "member_energies": (("nmembers",), "member_energies"),
    "force_std": (("natoms",), "force_std"),
    "feature_distances": (("natoms",), "distances"),
}


def _register_properties() -> None:
    for name, (shape, _) in _EXTRA_PROPERTIES.items():
        if name not in ase_calculator.all_properties:
            ase_calculator.all_properties.append(name)
        if name not in ase.outputs.all_outputs:
            kind = ase.outputs.ArrayProperty if shape else ase.outputs.ScalarProperty
            ase.outputs.all_outputs[name] = kind(name, float, shape) if shape else kind(name, float)
        known = ase_extxyz.per_atom_properties if shape == ("natoms",) else ase_extxyz.per_config_properties
        if name not in known:
            known.append(name)
    if "nmembers" not in ase.outputs.all_outputs:
        ase.outputs.all_outputs["nmembers"] = ase.outputs.ScalarProperty("nmembers", int)


_register_properties()


class AdatomCalculator(Calculator):
    """ASE calculator of a model file or of a loaded `Potential`.

    Energy, free energy (the same), per-atom energies, forces, stress and per-atom stresses, in ASE's units and signs. Stress needs a cell with a
    volume; asking for it otherwise raises PropertyNotImplementedError. `device`, `dtype`, `threads`, `splines`, `head`, `elements` and `matmul` are those
    of `Potential.load`, for a model file; beside a loaded `Potential`, which has its own, they are a ValueError.

    With a model that has detectors of uncertainty (docs/uncertainty.md) there are also the properties "energy_std" (eV), "member_energies" (eV,
    [members]), "force_std" (eV/angstrom, [n]) and "feature_distances" ([n]), in `results`, by `get_property`, and in the files that ASE writes.
    `uncertainty`: True makes a model without detectors an error, False leaves these out.

    `forces_on_request`: what is asked for the energy alone computes the energy alone (Monte Carlo: forces cost 3.3 times as much); forces asked for
    afterwards are another evaluation. By default all come from one pass.

    Several threads may use one calculator. Each call of ASE's is then whole: energies belong to the atoms that they were asked for.
    """

    name = "adatom"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]
    ignored_changes = {"initial_charges", "initial_magmoms"}
    default_parameters: dict[str, Any] = {}

    def __init__(
        self,
        model: str | PathLike[str] | Potential,
        *,
        device: str | None = None,
        dtype: Any = None,
        threads: int | None = None,
        splines: bool | None = None,
        head: str | None = None,
        elements: Any = None,
        matmul: str | None = None,
        uncertainty: bool | None = None,
        forces_on_request: bool = False,
    ):
        self._lock = threading.RLock()
        super().__init__()
        options = dict(device=device, dtype=dtype, threads=threads, splines=splines, head=head, elements=elements, matmul=matmul)
        options = {key: value for key, value in options.items() if value is not None}
        if not isinstance(model, Potential):
            self.potential = Potential.load(model, **options)
        elif options:
            raise ValueError(f"{', '.join(options)}: a loaded Potential has its own; give them to Potential.load, or give this calculator the model file")
        else:
            self.potential = model
        self.uncertainty = bool(self.potential.members) if uncertainty is None else uncertainty
        if self.uncertainty and not self.potential.members:
            raise ValueError(self.potential.no_uncertainty)
        self.forces_on_request = forces_on_request
        if self.uncertainty:
            self.implemented_properties = [*self.implemented_properties, *_EXTRA_PROPERTIES]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise ValueError("there are no atoms to compute: use atoms.calc = calculator, or calculator.get_property(name, atoms)")
        for name in ("stress", "stresses"):
            if name in properties and self.atoms.cell.volume == 0:
                raise PropertyNotImplementedError(f"{name}: this structure has no cell with a volume; set one (atoms.center(vacuum=...), atoms.cell)")
        # Energy, forces and stress come out of one pass; only per-atom stresses cost extra memory.
        forces = not self.forces_on_request or bool({"forces", "stress", "stresses"} & set(properties))
        result = self.potential.evaluate(self.atoms, forces=forces, stress=forces, stresses="stresses" in properties, uncertainty=self.uncertainty)
        self.results = {"energy": result.energy, "free_energy": result.energy, "energies": result.energies}
        for name in ("forces", "stress", "stresses"):
            if getattr(result, name) is not None:
                self.results[name] = getattr(result, name)
        for name, (_, attribute) in _EXTRA_PROPERTIES.items():
            if getattr(result, attribute) is not None:
                self.results[name] = getattr(result, attribute)

    # The GIL is released inside of an evaluation: another thread could put its results between this one's and their reading.
    def get_property(self, name, atoms=None, allow_calculation=True):
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)

    def calculate_properties(self, atoms, properties):
        with self._lock:
            return super().calculate_properties(atoms, properties)

    def set(self, **options) -> dict[str, Any]:
        """A calculator is made with its options: setting one is a ValueError."""
        if options:
            raise ValueError(f"{', '.join(options)}: options of this calculator cannot be changed; make another AdatomCalculator with them")
        return super().set()

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """What identifies the numbers: the model file, its SHA-256, head and precision. A database of ASE keeps it with each row."""
        potential = self.potential
        return {"file": str(potential.file), "sha256": potential.sha256, "head": potential.head, "dtype": potential.dtype, "backend": potential.backend}

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<adatom.AdatomCalculator of {self.potential!r}>"
