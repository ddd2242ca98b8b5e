# SPDX-License-Identifier: MIT
"""A model file, ready to evaluate structures. Units: eV, angstrom, eV/angstrom; stress in eV/angstrom^3 with ASE's sign and Voigt order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from adatom import _core

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import ArrayLike, NDArray

_MATMULS = {"exact": _core.Matmul.exact, "tf32": _core.Matmul.tf32, "bf16": _core.Matmul.bf16}
_DEVICES = {"cpu": _core.Device.cpu, "cuda": _core.Device.cuda}
_PRECISIONS = {"float32": _core.Precision.float32, "float64": _core.Precision.float64}


@dataclass(frozen=True)
class Result:
    """One evaluated structure of n atoms. What was not requested is None; so are stresses of a structure without a volume."""

    energy: float  #: eV
    energies: NDArray[np.float64] | None = None  #: [n], eV, one term per atom
    forces: NDArray[np.float64] | None = None  #: [n, 3], eV/angstrom
    stress: NDArray[np.float64] | None = None  #: [6], eV/angstrom^3, xx yy zz yz xz xy
    stresses: NDArray[np.float64] | None = None  #: [n, 6], eV/angstrom^3, one term per atom; their sum is `stress`
    features: NDArray[np.float64] | None = None  #: [n, features], the scalar features of each atom, layer after layer
    energy_std: float | None = None  #: eV, standard deviation of the energy
    member_energies: NDArray[np.float64] | None = None  #: [members], eV, energies of the members of the ensemble
    force_std: NDArray[np.float64] | None = None  #: [n], eV/angstrom, standard deviation of a component of each atom's force
    distances: NDArray[np.float64] | None = None  #: [n], from the training set; 1: that of the farthest 1 % of held-out atoms
    virial: NDArray[np.float64] | None = None  #: [3, 3], eV, minus the derivative of the energy with respect to strain


class Potential:
    """A potential. Threads may share one; their calls then run one after another, without the GIL."""

    def __init__(self, core: _core.Potential, options: dict[str, Any] | None = None):
        self._core = core
        self._options = options  # of `load`, for a copy in another process

    @classmethod
    def load(
        cls,
        file: str | PathLike[str],
        device: str = "cpu",
        dtype: Any = "float32",
        threads: int | None = None,
        splines: bool = True,
        head: str | None = None,
        elements: Sequence[int | str] | str | None = None,
        matmul: str = "exact",
    ) -> Potential:
        """Reads a model file (docs/model_file.md).

        device: "cpu" or "cuda". dtype: "float32" or "float64", the precision of the network (edge vectors and energy sums are always float64).
        threads: OpenMP threads of an evaluation; None as OpenMP decides. splines: tabulate the radial functions.
        head: level of theory; needed if the model has several. elements: keep only these, for smaller tables: symbols, atomic numbers or "Cu,O".
        matmul: "exact", or on a GPU in float32 "tf32" or "bf16", linear maps on tensor cores with rounded inputs; `matmul_error` measures what they change.

        Raises FileNotFoundError, ModelError (a RuntimeError) if the file cannot be used, and ValueError for options that do not fit the model.
        """
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"no model file at {fspath(file)}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads = {threads}, expected a positive number, or None to let OpenMP decide")
        core = _core.Potential(
            path,
            device=_choice("device", device, _DEVICES),
            precision=_choice("dtype", dtype if isinstance(dtype, str) else np.dtype(dtype).name, _PRECISIONS),
            threads=threads or 0,
            splines=splines,
            head=head or "",
            elements=_atomic_numbers(elements or ()),
            matmul=_choice("matmul", matmul, _MATMULS),
        )
        options = {"device": device, "dtype": dtype, "threads": threads, "splines": splines, "head": head, "elements": elements, "matmul": matmul}
        return cls(core, {"file": path.resolve(), **options})

    def __deepcopy__(self, memo: dict) -> Potential:
        return self  # copies may share it

    def __reduce__(self):
        """A pickle holds the path and the options, not the weights: the file is read again."""
        return _load, (type(self), self._options)

    @property
    def cutoff(self) -> float:
        """Angstrom."""
        return self._core.info.cutoff

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that this instance evaluates."""
        return tuple(self._core.info.elements)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the model's heads (levels of theory)."""
        return tuple(self._core.info.heads)

    @property
    def head(self) -> str:
        """The head in use."""
        return self._core.info.head

    @property
    def features(self) -> int:
        """Scalar features of an atom, over all layers."""
        return self._core.info.features

    @property
    def members(self) -> int:
        """Members of the ensemble; 0 for a model without detectors of uncertainty."""
        return self._core.info.members

    @property
    def no_uncertainty(self) -> str:
        """Why the model has no detectors of uncertainty that can be used; empty if it has."""
        return self._core.info.no_uncertainty

    @property
    def uncertainty(self) -> dict:
        """How the detectors were fitted, and the intervals of their calibration, as the model file says; empty without."""
        return json.loads(self._core.info.uncertainty_json or "{}")

    @property
    def backend(self) -> str:
        """What runs the network, e.g. "cpu-v4"."""
        return self._core.info.backend

    @property
    def summary(self) -> str:
        """The architecture in one line."""
        return self._core.info.summary

    @property
    def architecture(self) -> dict:
        return json.loads(self._core.info.architecture_json)

    @property
    def provenance(self) -> dict:
        """Where the weights come from, as the model file says."""
        return json.loads(self._core.info.provenance_json or "{}")

    @property
    def counters(self) -> _core.Counters:
        """Floating-point operations and (on a GPU) bytes and kernels of the last evaluation, and memory that evaluation holds."""
        return self._core.counters()

    def matmul_error(self, atoms: Atoms) -> tuple[float, float]:
        """What `matmul` changes on this structure: the largest difference of an atom's energy (eV) and of a component of a force (eV/angstrom)."""
        return self._core.matmul_error(_structure(atoms))

    def set_threads(self, threads: int | None) -> None:
        self._core.set_threads(threads or 0)

    def __repr__(self) -> str:
        return f"<adatom.Potential {self.summary}, cutoff {self.cutoff:g} angstrom, {len(self.elements)} elements, {self.backend}>"

    @overload
    def evaluate(
        self, atoms: Atoms, *, energies: bool = ..., forces: bool = ..., stress: bool = ..., stresses: bool = ..., features: bool = ...,
        uncertainty: bool = ...
    ) -> Result: ...
    @overload
    def evaluate(
        self, atoms: Iterable[Atoms], *, energies: bool = ..., forces: bool = ..., stress: bool = ..., stresses: bool = ..., features: bool = ...,
        uncertainty: bool = ...
    ) -> list[Result]: ...
    def evaluate(
        self,
        atoms,
        *,
        energies: bool = True,
        forces: bool = True,
        stress: bool = True,
        stresses: bool = False,
        features: bool = False,
        uncertainty: bool = False,
    ):
        """Evaluates one structure, or many as one batch: a list gives a list of results in the same order.

        A structure is an `ase.Atoms`, or anything with `numbers`, `positions`, `cell` and `pbc`. Repeated calls with one structure that moves a
        little keep its neighbour list. Without forces, stress and stresses only the (cheaper) energy is computed. `uncertainty` needs a model with
        detectors (`adatom calibrate`).

        Raises ValueError, naming what is wrong, for elements that the model lacks, positions that are not finite, and overlapping atoms; RuntimeError,
        naming the atom, for results that are not finite.
        """
        request = _core.Request(energies=energies, forces=forces, virial=stress, virials=stresses, features=features, uncertainty=uncertainty)
        if _is_structure(atoms):
            return _result(self._core.evaluate(_structure(atoms), request), atoms, stress, stresses)
        batch = list(atoms)
        for i, item in enumerate(batch):
            if not _is_structure(item):
                raise TypeError(f"item {i} of the batch is a {type(item).__name__}, expected an ase.Atoms")
        evaluations = self._core.evaluate_batch([_structure(item) for item in batch], request)
        return [_result(evaluation, item, stress, stresses) for evaluation, item in zip(evaluations, batch)]

    def hessian_vector(self, atoms: Atoms, v: ArrayLike) -> NDArray[np.float64]:
        """Second derivative of the energy with respect to positions, times `v`: [n, 3], eV/angstrom^2 times the unit of `v` [n, 3].

        Exact (dual numbers), at a small constant times the cost of forces; the Hessian itself is never formed.
        """
        return self._core.hessian_vector(_structure(atoms), np.asarray(v, dtype=np.float64))

    def member_forces(self, atoms: Atoms) -> NDArray[np.float64]:
        """Forces of each member of the ensemble, [members, n, 3], eV/angstrom: exact derivatives of `Result.member_energies`, by a pass for each member."""
        return self._core.member_forces(_structure(atoms))

    def feature_tangents(self, atoms: Atoms, v: ArrayLike) -> NDArray[np.float64]:
        """Derivative of the scalar features when the atoms move along `v` [n, 3]: [n, features]."""
        return self._core.feature_tangents(_structure(atoms), np.asarray(v, dtype=np.float64))

    def feature_forces(self, atoms: Atoms, weights: ArrayLike, *, stress: bool = False) -> Result:
        """Energy, forces and stress of the sum of `weights` [n, features] times the scalar features."""
        request = _core.Request(energies=False, forces=True, virial=stress, virials=False, features=False, uncertainty=False)
        return _result(self._core.feature_forces(_structure(atoms), np.asarray(weights, dtype=np.float64), request), atoms, stress, False)


def _load(cls: type[Potential], options: dict[str, Any]) -> Potential:
    return cls.load(**options)


def _choice(name: str, value: Any, choices: dict) -> Any:
    if value not in choices:
        raise ValueError(f"{name} = {value!r}, expected one of {', '.join(map(repr, choices))}")
    return choices[value]


def _atomic_numbers(elements: Iterable[int | str] | str) -> list[int]:
    elements = [symbol.strip() for symbol in elements.split(",")] if isinstance(elements, str) else list(elements)  # "Cu,O", as on the command line
    if any(isinstance(element, str) for element in elements):
        from ase.data import atomic_numbers

        for element in elements:
            if isinstance(element, str) and element not in atomic_numbers:
                raise ValueError(f"{element!r} is not the symbol of an element")
        return [atomic_numbers[element] if isinstance(element, str) else int(element) for element in elements]
    return [int(element) for element in elements]


def _is_structure(atoms: Any) -> bool:
    return all(hasattr(atoms, name) for name in ("numbers", "positions", "cell", "pbc"))


def _structure(atoms: Any) -> _core.Structure:
    if not _is_structure(atoms):
        raise TypeError(f"got a {type(atoms).__name__}, expected an ase.Atoms")
    return _core.Structure(np.asarray(atoms.numbers, dtype=np.int32), atoms.positions, np.asarray(atoms.cell), [bool(p) for p in atoms.pbc])


def _voigt(tensors: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 3, 3] to [..., 6], the mean of the two off-diagonal entries: a per-atom virial is not symmetric, only the sum over atoms is."""
    rows, columns = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
    return 0.5 * (tensors[..., rows, columns] + tensors[..., columns, rows])


def _result(evaluation: _core.Evaluation, atoms: Any, stress: bool, stresses: bool) -> Result:
    volume = abs(np.linalg.det(np.asarray(atoms.cell)))
    return Result(
        energy=evaluation["energy"],
        energies=evaluation.get("energies"),
        forces=evaluation.get("forces"),
        stress=_voigt(evaluation["virial"]) / -volume if stress and volume > 0 else None,
        stresses=_voigt(evaluation["virials"]) / -volume if stresses and volume > 0 else None,
        features=evaluation.get("features"),
        energy_std=evaluation.get("energy_std"),
        member_energies=evaluation.get("member_energies"),
        force_std=evaluation.get("force_std"),
        distances=evaluation.get("distances"),
        virial=evaluation.get("virial"),
    )
