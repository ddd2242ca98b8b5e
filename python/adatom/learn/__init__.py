# SPDX-License-Identifier: MIT
"""Learning on the fly: run, catch what the model is unsure of, label it by DFT, train, run on (docs/learning.md)."""

from adatom.learn._config import LearnConfig, load
from adatom.learn._loop import learn

__all__ = ["LearnConfig", "learn", "load"]
