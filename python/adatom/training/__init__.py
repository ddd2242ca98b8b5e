# SPDX-License-Identifier: MIT
"""Training of potentials on DFT data. Needs torch (`pip install 'adatom[train]'`).

    from adatom.training import train
    result = train({"model": {"family": "mace", "channels": 32, "max_L": 1, "r_max": 5.0}, "data": {"train": ["train.extxyz"]}})

docs/training.md describes the configuration.
"""

from adatom.training._config import load_config
from adatom.training._run import TrainingResult, resolved_config, train

__all__ = ["TrainingResult", "load_config", "resolved_config", "train"]
