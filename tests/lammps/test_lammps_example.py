# SPDX-License-Identifier: MIT
"""examples/lammps runs as its comments say."""
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "lammps"


@pytest.mark.parametrize("ranks", [1, 2])
def test_copper_slab_with_carbon_monoxide(lmp, ranks):
    for file in ("make_slab.py", "in.cu_co"):
        shutil.copy(EXAMPLE / file, lmp.folder)
    subprocess.run([sys.executable, "make_slab.py"], cwd=lmp.folder, check=True)
    script = (lmp.folder / "in.cu_co").read_text()
    process = lmp.start(script, ranks, ("-var", "model", str(lmp.model), "-var", "steps", "20"))
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    assert "66 atoms" in process.stdout and "Loop time" in process.stdout
    assert (lmp.folder / "cu_co.dump").stat().st_size > 0
