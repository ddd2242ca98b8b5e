# SPDX-License-Identifier: MIT
"""python -m adatom is the command `adatom`."""

from adatom.cli import main

main()
