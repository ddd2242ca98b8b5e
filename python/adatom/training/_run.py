# SPDX-License-Identifier: MIT
"""One run of training."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adatom.training import _distributed, _plots
from adatom.training._signals import Stopped, stop_on_signals

PLOTTED_ATOMS = 20_000  # of each set, drawn at random


@dataclass
class TrainingResult:
    """What a run gave. Errors are dictionaries with `loss` and, for each kind of label that there is, `energy_rmse` (eV), `energy_per_atom_rmse`
    (eV/atom), `force_rmse` (eV/angstrom), `force_rmse_by_element` (a dictionary by symbol), `stress_rmse` (eV/angstrom^3), and the same with `_mae`;
    of a model with several heads also `heads`, such a dictionary for each head. Epochs are counted from 1."""

    model: Path
    finished: bool = False  #: False where `progress` stopped the run, which can be resumed
    epochs: list[dict[str, Any]] = field(default_factory=list)  #: that this call did
    valid: dict[str, Any] = field(default_factory=dict)  #: errors of the weights that were kept on the validation configurations
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: int = 0
    rank: int = 0
    warnings: list[str] = field(default_factory=list)
    #: of a run that began with a model (`model.file`): by head `energy_per_atom_mean_error` and `energy_per_atom_rmse` (eV/atom) before the first epoch, on up
    #: to 20,000 atoms of the training configurations
    begins: dict[str, dict[str, Any]] = field(default_factory=dict)
    plots: list[Path] = field(default_factory=list)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def _module():
    """adatom._training."""
    try:
        with _threads_that_wait():
            import torch  # noqa: F401  (loads the libraries that _training is linked with)
    except ImportError as error:
        raise ImportError("training needs torch: pip install 'adatom[train]'") from error
    try:
        from adatom import _training
    except ImportError as error:
        raise ImportError(
            f"this adatom was built without training ({error}); with torch installed, build it again: pip install --force-reinstall --no-deps ."
        ) from error
    return _training


def _open(path: str):
    """What the trainer does not read itself, as extxyz: compressed files, folders of DeePMD-kit, and what ASE reads."""
    from adatom.datasets.reading import detect_format, open_text

    return open_text(Path(path), detect_format(path))


@contextmanager
def _threads_that_wait():
    """Torch's threads spin for some 10 ms after each operation, on cores where the engine's work then. What its OpenMP runtime reads when it is loaded makes
    it some 20 us; a choice of the user's stays."""
    chosen = any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"))
    if not chosen:
        os.environ["GOMP_SPINCOUNT"] = "500"
    try:
        yield
    finally:
        if not chosen:
            del os.environ["GOMP_SPINCOUNT"]


def resolved_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with all defaults filled in. Raises ValueError for one that is wrong, ImportError without torch."""
    return json.loads(_module().resolved_config(_as_json(config)))


def _as_json(config: Any) -> str:
    """ValueError, naming the key, for what JSON does not have: TOML's nan and inf, dates and times."""

    def check(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                check(item, f"{key}.{name}" if key else str(name))
        elif isinstance(value, (list, tuple)):
            for item in value:
                check(item, key)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"'{key}' is {value}, expected a finite number")
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ValueError(f"'{key}' is {value}, expected a number below 2^64")
        elif value is not None and not isinstance(value, (str, int, float)):
            raise ValueError(f"'{key}' is {value}, a {type(value).__name__}: expected a text, a number, true, false, a list or a table")

    check(config, "")
    return json.dumps(config)


def train(
    config: dict[str, Any],
    *,
    resume: bool = False,
    progress: Callable[[int, int, int], bool] | None = None,
    report: Callable[[dict[str, Any]], bool] | None = None,
    warn: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
    plots: bool = False,
) -> TrainingResult:
    """Trains a potential as `config` says (docs/training.md), and writes `model.safetensors`, `log.jsonl` and `checkpoint.safetensors` to its
    `output` folder.

    `resume`: go on from the checkpoint there, if there is one. `progress(epoch, step, steps)` is called after every step and `report(epoch)` after
    every epoch, with its errors; a run stops, with a checkpoint, when one of them returns False. Epochs are counted from 1. What looks wrong with the data but
    may be right, such as energies whose range suggests another unit, goes to `warn(text)`, or to Python's warnings; what is worth knowing before the first
    epoch to `note(text)`. `plots`: draw the errors of each epoch, and labels against predictions of the validation and test configurations. Started by
    torchrun, mpirun or srun, the processes share every batch; the result does not depend on their number.

    Raises ImportError without torch, ValueError for a wrong configuration, RuntimeError for data that cannot be trained on, where memory does not suffice and
    where another run works in the output folder, OSError for a picture that cannot be written, KeyboardInterrupt after an interrupt, SIGTERM or SIGHUP (the
    checkpoint is written).
    """
    _training = _module()
    document = _as_json(config)
    config = json.loads(document)
    tests = config.get("data", {}).get("test", []) if isinstance(config.get("data"), dict) else []
    on_device = isinstance(config, dict) and config.get("device") == "cuda" and _distributed.choose_device()
    group = _distributed.join(on_device)
    rank = _distributed.rank()
    trainer = None
    try:
        with stop_on_signals() as signals:
            trainer = _training.Trainer(document, resume, group, on_device, _open)
            result = TrainingResult(model=Path(trainer.model_path), parameters=trainer.parameters, rank=rank, warnings=trainer.warnings)
            result.begins = json.loads(trainer.begins)
            for text in trainer.warnings if rank == 0 else ():
                (warn or _warn)(text)
            if note is not None and rank == 0 and result.begins:
                note(_begins(config, result.begins))

            def keep(text: str) -> bool:
                epoch = json.loads(text)
                result.epochs.append(epoch)
                return report is None or rank != 0 or report(epoch) is not False

            def step(epoch: int, at: int, steps: int) -> bool:
                return progress is None or rank != 0 or progress(epoch, at, steps) is not False

            result.finished = trainer.run(step, keep)
            if trainer.interrupted:
                raise Stopped(signals[0]) if signals else KeyboardInterrupt
        if not result.finished:
            return result
        result.valid = json.loads(trainer.kept_errors) or {}
        if plots and rank == 0:
            result.plots += _plots.plot_run(result.model.parent)

        def draw(k: int, name: str, errors: dict[str, Any]) -> None:
            if plots:
                sample = trainer.parity(k, PLOTTED_ATOMS)  # by all processes
                if rank == 0:
                    file = result.model.parent / f"parity_{name.replace('/', '_')}.png"
                    result.plots += _plots.plot_parity(file, sample, errors, name)

        draw(-1, "validation", result.valid)
        stems = [Path(file).stem for file in tests]
        for k, (file, stem) in enumerate(zip(tests, stems)):
            name = stem if stems.count(stem) == 1 else f"{Path(file).parent.name}/{stem}"
            result.tests[name] = json.loads(trainer.test(k))
            draw(k, name, result.tests[name])
        return result
    except MemoryError as error:
        raise RuntimeError(
            "memory does not suffice: a smaller [model], smaller batches (training.batch_atoms), or data in a training cache (`adatom data convert`) need less"
        ) from error
    finally:
        if trainer is not None:
            trainer.close()
        if group:
            _distributed.leave()


def _begins(config: dict[str, Any], begins: dict[str, dict[str, Any]]) -> str:
    """Errors before the first epoch, in words."""
    errors = [
        (f"head '{head}' " if len(begins) > 1 else "") + f"{1e3 * e['energy_per_atom_rmse']:.1f} meV/atom, mean {1e3 * e['energy_per_atom_mean_error']:+.1f}"
        for head, e in begins.items()
    ]
    return f"RMSE of the energies of {Path(config['model']['file']).name} on data.train before the first epoch: {'; '.join(errors)}"
