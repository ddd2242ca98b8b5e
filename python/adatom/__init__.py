# SPDX-License-Identifier: MIT
"""Adatom: machine-learned interatomic potentials in ASE, LAMMPS and C++.

    from adatom import AdatomCalculator, Potential

    atoms.calc = AdatomCalculator("model.safetensors")
    result = Potential.load("model.safetensors").evaluate(atoms)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adatom._core import ModelError, __version__
from adatom.potential import Potential, Result

if TYPE_CHECKING:
    from adatom.calculator import AdatomCalculator

__all__ = ["AdatomCalculator", "ModelError", "Potential", "Result", "__version__", "cmake_prefix", "lammps_plugin_folder"]


def lammps_plugin_folder() -> str:
    """The folder that holds `adatomplugin.so`; the `lmp` command of the package `lammps` adds it to LAMMPS_PLUGIN_PATH by itself."""
    return str(Path(__file__).parent / "lib" / "lammps")


def cmake_prefix() -> str:
    """What a C++ project puts into CMAKE_PREFIX_PATH so that `find_package(adatom)` finds this installation."""
    return str(Path(__file__).parent)


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__"]


def __getattr__(name: str):
    if name == "AdatomCalculator":  # imports ASE, which takes longer than everything else here together
        from adatom.calculator import AdatomCalculator

        return AdatomCalculator
    raise AttributeError(f"module 'adatom' has no attribute {name!r}")
