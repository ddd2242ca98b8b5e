# SPDX-License-Identifier: MIT
"""One run of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adatom.training import _distributed


@dataclass
class TrainingResult:
    """What a run gave. Errors are dictionaries with `loss` and, for each kind of label that there is, `energy_rmse` (eV), `energy_per_atom_rmse`
    (eV/atom), `force_rmse` (eV/angstrom), `force_rmse_by_element` (a dictionary by symbol), `stress_rmse` (eV/angstrom^3), and the same with `_mae`;
    of a model with several heads also `heads`, such a dictionary for each head."""

    model: Path
    epochs: list[dict[str, Any]] = field(default_factory=list)
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: int = 0
    rank: int = 0


def train(
    config: dict[str, Any],
    *,
    resume: bool = False,
    progress: Callable[[int, int, int], bool] | None = None,
    report: Callable[[dict[str, Any]], bool] | None = None,
) -> TrainingResult:
    """Trains a potential as `config` says (docs/training.md), and writes `model.safetensors`, `log.jsonl` and `checkpoint.safetensors` to its
    `output` folder.

    `resume`: go on from the checkpoint there, if there is one. `progress(epoch, step, steps)` is called after every step and `report(epoch)` after
    every epoch, with its errors; a run stops, with a checkpoint, when one of them returns False. Started by torchrun, mpirun or srun,
    the processes share every batch; the result does not depend on their number.

    Raises ImportError without torch, ValueError for a wrong configuration, RuntimeError for data that cannot be trained on, KeyboardInterrupt after
    an interrupt (the checkpoint is written).
    """
    try:
        import torch  # noqa: F401  (loads the libraries that _training is linked with)
    except ImportError as error:
        raise ImportError("training needs torch: pip install 'adatom[train]'") from error
    try:
        from adatom import _training
    except ImportError as error:
        raise ImportError(
            f"this adatom was built without training ({error}); with torch installed, build it again: pip install --no-build-isolation --no-deps ."
        ) from error

    config = json.loads(json.dumps(config))
    tests = config.get("data", {}).pop("test", []) if isinstance(config.get("data"), dict) else []
    group = _distributed.join()
    found = _distributed.launched()
    rank = found[0] if found else 0
    try:
        trainer = _training.Trainer(json.dumps(config), resume, group)
        result = TrainingResult(model=Path(trainer.model_path), parameters=trainer.parameters, rank=rank)

        def keep(text: str) -> bool:
            epoch = json.loads(text)
            result.epochs.append(epoch)
            return report is None or rank != 0 or report(epoch) is not False

        def step(epoch: int, at: int, steps: int) -> bool:
            return progress is None or rank != 0 or progress(epoch, at, steps) is not False

        trainer.run(step, keep)
        if trainer.interrupted:
            raise KeyboardInterrupt
        stems = [Path(file).stem for file in tests]
        for file, stem in zip(tests, stems):
            name = stem if stems.count(stem) == 1 else f"{Path(file).parent.name}/{stem}"
            result.tests[name] = json.loads(trainer.test(str(file)))
        return result
    finally:
        if group:
            _distributed.leave()
