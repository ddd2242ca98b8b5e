# SPDX-License-Identifier: MIT
"""A model file, ready to evaluate structures. Units: eV, angstrom, eV/angstrom; stress in eV/angstrom^3 with ASE's sign and Voigt order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from adatom import _core
from adatom._core import ModelError

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
    """A potential: `Potential.load(file)`, or `Potential(file)`, which is the same. Threads may share one; their calls then run one after another, without
    the GIL."""

    def __init__(
        self,
        file: str | PathLike[str],
        device: str = "cpu",
        dtype: Any = None,
        threads: int | None = None,
        splines: bool = True,
        head: str | None = None,
        elements: Sequence[int | str] | str | None = None,
        matmul: str = "exact",
    ):
        """Reads a model file (docs/model_file.md); `~` in its path is the home folder.

        device: "cpu" or "cuda". dtype: "float32" (which None means) or "float64", the precision of the network (edge vectors and energy sums are always
        float64). threads: of an evaluation; None for OMP_NUM_THREADS, else as many as the CPUs that the process may use. splines: tabulate the radial
        functions. head: level of theory; needed if the model has several. elements: keep only these, for smaller tables: symbols, atomic numbers or "Cu,O".
        matmul: "exact", or on a GPU in float32 "tf32" or "bf16", linear maps on tensor cores with rounded inputs; `matmul_error` measures what they change.

        Raises FileNotFoundError, ModelError (a RuntimeError) if the file cannot be used, and ValueError for options that do not fit the model.
        """
        if not isinstance(file, (str, PathLike)):
            raise TypeError(f"Potential({file!r}): expected the path of a model file")
        path = Path(file).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no model file at {path}" + (" (a folder)" if path.is_dir() else ""))
        self._file = path.resolve()
        self._sha256 = _file_sha256(path)
        self._dtype = dtype if isinstance(dtype, str) else np.dtype(np.float32 if dtype is None else dtype).name
        self._threads = _thread_count(threads)
        self._core = _core.Potential(
            path,
            device=_choice("device", device, _DEVICES),
            precision=_choice("dtype", self._dtype, _PRECISIONS),
            threads=self._threads,
            splines=splines,
            head=head or "",
            elements=_atomic_numbers(elements or ()),
            matmul=_choice("matmul", matmul, _MATMULS),
        )
        # For a copy in another process
        self._options = {"device": device, "dtype": self._dtype, "splines": splines, "head": head, "elements": elements, "matmul": matmul}

    @classmethod
    def load(cls, file: str | PathLike[str], *arguments: Any, **options: Any) -> Potential:
        """`Potential(file, ...)`, by the name that says what it does."""
        return cls(file, *arguments, **options)

    def __deepcopy__(self, memo: dict) -> Potential:
        return self  # copies may share it

    def __reduce__(self):
        """A pickle holds the path, the SHA-256 of the file and the options, not the weights: the file is read again, and must be the same."""
        return _load, (type(self), self._file, self._sha256, {**self._options, "threads": self._threads or None})

    @property
    def file(self) -> Path:
        """The model file."""
        return self._file

    @property
    def sha256(self) -> str:
        """Of the model file, when it was loaded."""
        return self._sha256

    @property
    def dtype(self) -> str:
        """Precision of the network, "float32" or "float64"."""
        return self._dtype

    @property
    def device(self) -> str:
        """ "cpu" or "cuda"."""
        return self._options["device"]

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
        """Of the evaluations to come; None for OMP_NUM_THREADS, else as many as the CPUs that the process may use."""
        self._threads = _thread_count(threads)
        self._core.set_threads(self._threads)

    @property
    def mirror_symmetric(self) -> bool:
        """Whether a structure and its mirror image have the same energy. Networks whose features have no parity, as SevenNet's published ones, do not see to
        that: enantiomers differ, and so do sites that only a reflection makes equal."""
        return all(harmonic.endswith("e" if int(harmonic[:-1]) % 2 == 0 else "o") for harmonic in self.architecture.get("edge_harmonics", []))

    def __repr__(self) -> str:
        from ase.data import chemical_symbols

        names = [chemical_symbols[z] for z in self.elements]
        elements = " ".join(names) if len(names) <= 12 else f"{len(names)} elements"
        head = f", head {self.head}" if len(self.heads) > 1 else ""
        return f"<adatom.Potential {self._file.name}: {self.summary}, {elements}{head}, {self._dtype}, {self.backend}>"

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
        if atoms is None or isinstance(atoms, (str, bytes)) or not isinstance(atoms, Iterable):
            raise TypeError(f"got {type(atoms).__name__ if atoms is not None else 'None'}, expected an ase.Atoms or a list of them")
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


def _load(cls: type[Potential], file: Path, sha256: str, options: dict[str, Any]) -> Potential:
    if not file.is_file():
        raise FileNotFoundError(f"a pickled Potential was made of {file}, which is not there")
    potential = cls(file, **options)
    if potential.sha256 != sha256:
        raise ModelError(
            f"{file} is not the model file that the pickled Potential was made of: its SHA-256 is {potential.sha256}, expected {sha256}. "
            "It was written anew in between; load it, or bring the old file back"
        )
    return potential


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _thread_count(threads: int | None) -> int:
    """0, for None, lets the engine decide."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads = {threads}, expected a positive number, or None for OMP_NUM_THREADS, else all CPUs")
    return threads or 0


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
