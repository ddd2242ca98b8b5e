# SPDX-License-Identifier: MIT
"""python -m adatom is the command `adatom`. The current folder, which -m puts first in the path of modules, is taken out, as it is not there for that command:
a file torch.py that happens to lie in it is not torch."""

import contextlib
import os
import sys

with contextlib.suppress(OSError):  # of a current folder that is gone
    if not getattr(sys.flags, "safe_path", False) and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]

from adatom.cli import main  # noqa: E402

main()
