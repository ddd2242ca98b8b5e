# SPDX-License-Identifier: MIT
from collections.abc import Sequence
from os import PathLike
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

__version__: str

class ModelError(RuntimeError): ...

class Device:
    cpu: Device
    cuda: Device

class Precision:
    float32: Precision
    float64: Precision

class Request:
    def __init__(self, *, energies: bool, forces: bool, virial: bool, virials: bool) -> None: ...

class Structure:
    def __init__(
        self, numbers: NDArray[np.int32], positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: Sequence[bool]
    ) -> None: ...

class Evaluation(TypedDict, total=False):
    """What `evaluate` returns, a plain dict; keys that were not requested are absent."""

    energy: float
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    virial: NDArray[np.float64]
    virials: NDArray[np.float64]

class ModelInfo:
    @property
    def cutoff(self) -> float: ...
    @property
    def elements(self) -> list[int]: ...
    @property
    def heads(self) -> list[str]: ...
    @property
    def head(self) -> str: ...
    @property
    def architecture_json(self) -> str: ...
    @property
    def provenance_json(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def summary(self) -> str: ...

class Counters:
    @property
    def flops_per_step(self) -> float: ...
    @property
    def workspace_bytes(self) -> int: ...

class Potential:
    def __init__(
        self,
        file: str | PathLike[str],
        *,
        device: Device,
        precision: Precision,
        threads: int,
        splines: bool,
        head: str,
        elements: Sequence[int],
    ) -> None: ...
    @property
    def info(self) -> ModelInfo: ...
    def evaluate(self, structure: Structure, request: Request) -> Evaluation: ...
    def evaluate_batch(self, structures: Sequence[Structure], request: Request) -> list[Evaluation]: ...
    def hessian_vector(self, structure: Structure, v: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def counters(self) -> Counters: ...
    def set_threads(self, threads: int) -> None: ...
