# SPDX-License-Identifier: MIT
"""The potentials that ship: each has a card, detectors, a configuration that is valid, and the errors that its data says."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest

from adatom import Potential

MODELS = Path(__file__).resolve().parents[2] / "models"
FOLDERS = sorted(p.parent for p in MODELS.glob("*/model.safetensors"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_model_that_ships(folder):
    assert (folder / "README.md").read_text().startswith(f"# {folder.name}\n")
    assert f"[{folder.name}]({folder.name}/README.md)" in (MODELS / "README.md").read_text()
    potential = Potential.load(folder / "model.safetensors")
    assert potential.members and '"/' not in json.dumps(potential.provenance)  # no absolute path
    assert (folder / "model.safetensors").stat().st_size < 2**20
    assert (folder / "config.toml").exists() != (folder / "learn.toml").exists()


@pytest.mark.parametrize("folder", [f for f in FOLDERS if (f / "learn.toml").exists()], ids=lambda f: f.name)
def test_a_model_from_a_loop(folder):
    """Its configuration is valid, and on the configurations that it did not see it errs as its detectors say."""
    pytest.importorskip("torch")
    from adatom.learn import load
    from adatom.uncertainty import judge

    config = load(folder / "learn.toml")
    assert Path(config.start.pretrained).is_file() and not config.output.resolve().is_relative_to(folder)  # its results are not among the sources
    held_out, train = (ase.io.read(folder / "data" / f"{part}.extxyz", ":") for part in ("held_out", "train"))
    assert len(held_out) >= 4 and len(train) >= 16
    potential = Potential.load(folder / "model.safetensors")
    judged = judge(potential, held_out)
    error = np.sqrt(np.mean(judged.force_errors**2))
    scale = np.sqrt(np.mean(np.concatenate([a.get_forces() for a in held_out]) ** 2))
    assert error < 0.2 * scale
    assert np.isfinite(judged.force_std).all() and 0.3 < np.sqrt(np.mean(judged.force_std**2)) / error < 3.0
    report = (folder / "report.html").read_text()
    assert "data:image/png" in report and "Still going" not in report
