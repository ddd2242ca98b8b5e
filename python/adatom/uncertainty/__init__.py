# SPDX-License-Identifier: MIT
"""Detectors of uncertainty: fitted to data, calibrated on data that was held out, judged on any data (docs/uncertainty.md)."""

from adatom.uncertainty.fitting import fit, recalibrate, remove, whitened
from adatom.uncertainty.judging import Judgement, auroc, judge, table

__all__ = ["Judgement", "auroc", "fit", "judge", "recalibrate", "remove", "table", "whitened"]
