# SPDX-License-Identifier: MIT
"""One labelling calculation: `python _calculation.py TASK`. Needs ASE, numpy and the labelling program, and nothing of adatom, so that it runs in whichever Python
has the program."""

import importlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

import ase.io
import numpy as np

CP2K_SHELLS = ("cp2k_shell.popt", "cp2k_shell.psmp", "cp2k_shell")


class NotConverged(RuntimeError):
    """A calculation that ended without a converged result."""


def make_calculator(how, folder):
    """The ASE calculator that a task asks for. Output goes to the task's folder."""
    name, parameters = how["calculator"], dict(how["parameters"])
    if name == "emt":
        from ase.calculators.emt import EMT

        return EMT(**parameters)
    if name == "gpaw":
        from gpaw import GPAW, PW

        if isinstance(parameters.get("mode"), dict) and parameters["mode"].get("name") == "pw":
            parameters["mode"] = PW(parameters["mode"]["ecut"])
        return GPAW(txt=str(folder / "gpaw.txt"), **parameters)
    if name == "espresso":
        from ase.calculators.espresso import Espresso, EspressoProfile

        profile = EspressoProfile(command=parameters.pop("command", "pw.x"), pseudo_dir=parameters.pop("pseudo_dir"))
        data = {"control": {"tprnfor": True, "tstress": True}, **parameters.pop("input_data", {})}
        data["control"] = {"tprnfor": True, "tstress": True, **data.get("control", {})}
        return Espresso(profile=profile, directory=str(folder / "espresso"), input_data=data, **parameters)
    if name == "cp2k":
        from ase.calculators.cp2k import CP2K

        command = parameters.pop("command", None) or next(n for n in CP2K_SHELLS if shutil.which(n))
        return CP2K(command=command, directory=str(folder), label="cp2k", **parameters)
    module, function = name.split(":", 1)
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), function)(**parameters)


def calculate(task):
    """Writes result.extxyz or failed.json."""
    from ase.calculators.singlepoint import SinglePointCalculator

    how, atoms = json.loads((task / "label.json").read_text()), ase.io.read(task / "input.extxyz")
    start = time.monotonic()
    try:
        calculator = make_calculator(how, task)
        atoms.calc = calculator
        energy = float(atoms.get_potential_energy(force_consistent=has_free_energy(calculator)))
        forces = atoms.get_forces()
        stress = None
        if atoms.pbc.all():
            try:
                stress = atoms.get_stress()
            except Exception:  # noqa: BLE001  (not every calculator has it)
                stress = None
        check_output(how["calculator"], task)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise NotConverged("energy or forces are not finite")
    except Exception as error:  # noqa: BLE001  (whatever a DFT code raises is a failed calculation)
        put(task / "failed.json", json.dumps({"reason": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - start}, indent=1) + "\n")
        return
    labelled = atoms.copy()
    labelled.info = {"label_seconds": time.monotonic() - start}
    labelled.calc = SinglePointCalculator(labelled, energy=energy, forces=forces, **({} if stress is None else {"stress": stress}))
    text = io.StringIO()
    ase.io.write(text, labelled, format="extxyz")
    put(task / "result.extxyz", text.getvalue())


def has_free_energy(calculator):
    return "free_energy" in getattr(calculator, "implemented_properties", [])


def check_output(calculator, task):
    """What a program says in its output but ASE does not read."""
    signs = {"espresso": ("espresso/*.pwo", "convergence NOT achieved"), "cp2k": ("cp2k*.out", "SCF run NOT converged")}
    if calculator in signs:
        pattern, sign = signs[calculator]
        for file in task.glob(pattern):
            if sign in file.read_text(errors="replace"):
                raise NotConverged(f"{file.name}: {sign}")


def put(file, text):
    """Whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


if __name__ == "__main__":
    calculate(Path(sys.argv[1]))
