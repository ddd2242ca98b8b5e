# SPDX-License-Identifier: MIT
"""One labelling calculation: `python _calculation.py TASK FOLDER`, the latter that of the configuration; with TASK = "" it only looks whether the calculator
can be had. What is calculated stands in TASK, how in the environment (HOW): that comes from the configuration of the worker, not from the queue, which others
may write to. Needs ASE, numpy and the labelling program, and nothing of adatom, so that it runs in whichever Python has the program."""

import importlib
import importlib.machinery
import importlib.util
import io
import json
import os
import re
import shutil
import sys
import time
import uuid
from pathlib import Path

import ase.io
import numpy as np

CP2K_SHELLS = ("cp2k_shell.popt", "cp2k_shell.psmp", "cp2k_shell")
HOW = "ADATOM_LABEL"  # environment variable: {"calculator": ..., "parameters": {...}}
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # names of files that are being written
SIGNS = {"espresso": ("espresso/*.pwo", "convergence NOT achieved"), "cp2k": ("cp2k*.out", "SCF run NOT converged")}


class NotConverged(RuntimeError):
    """A calculation that ended without a converged result."""


def make_calculator(how, folder, search=()):
    """The ASE calculator that a task asks for. Output goes to the task's folder. The module of module:function is looked for in the folders `search` first."""
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

        pseudo_dir = pseudo_folder(parameters, search)
        del parameters["pseudo_dir"]
        profile = EspressoProfile(command=parameters.pop("command", "pw.x"), pseudo_dir=pseudo_dir)
        data = with_forces(parameters.pop("input_data", {}))
        return Espresso(profile=profile, directory=str(folder / "espresso"), input_data=data, **parameters)
    if name == "cp2k":
        from ase.calculators.cp2k import CP2K

        command = parameters.pop("command", None) or next(n for n in CP2K_SHELLS if shutil.which(n))
        return CP2K(command=command, directory=str(folder), label="cp2k", **parameters)
    return find_function(name, search)(**parameters)


def find_function(name, search):
    """module:function. Of the folders `search` only that module is taken before installed ones, and from the current folder nothing is: a file torch.py that
    happens to lie there is not torch. What the module imports may lie in all of them."""
    module, function = name.split(":", 1)
    top = module.split(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top, list(search))
    sys.path += [folder for folder in [*search, os.getcwd()] if folder not in sys.path]
    if spec is not None and spec.loader is not None and top not in sys.modules:
        found = sys.modules[top] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(found)
        except BaseException:
            del sys.modules[top]
            raise
    return getattr(importlib.import_module(module), function)


def pseudo_folder(parameters, search):
    """Counts from the configuration's folder: pw.x runs in another one."""
    return os.path.join(*map(os.path.abspath, search), os.path.expanduser(parameters["pseudo_dir"]))


def with_forces(input_data):
    """Quantum ESPRESSO's namelists, with forces and stress asked for unless they say otherwise. Case does not matter in their names; entries may stand without
    the name of their namelist."""
    data = {"control": {}}
    for name, value in input_data.items():
        if isinstance(value, dict):
            data.setdefault(name.lower(), {}).update({k.lower(): v for k, v in value.items()})
        else:
            data[name.lower()] = value
    for name in ("tprnfor", "tstress"):
        if name not in data:
            data["control"].setdefault(name, True)
    return data


def calculate(task, how, search=()):
    """Writes result.extxyz or failed.json; `search`: see make_calculator."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = ase.io.read(task / "input.extxyz", format="extxyz")  # whatever else its content looks like
    start = time.monotonic()
    for file in outputs(how["calculator"], task):  # of an attempt before this one
        file.unlink()
    try:
        calculator = make_calculator(how, task, search)
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
    except Exception as raised:  # noqa: BLE001  (whatever a DFT code raises is a failed calculation)
        error = raised
        try:  # a program that ends with an error says more in its output than in its exit status
            check_output(how["calculator"], task)
        except NotConverged as cause:
            error = cause
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
    for file in outputs(calculator, task):
        sign = SIGNS[calculator][1]
        if sign in file.read_text(errors="replace"):
            raise NotConverged(f"{file.name}: {sign}")


def outputs(calculator, task):
    return sorted(task.glob(SIGNS[calculator][0])) if calculator in SIGNS else []


def put(file, text):
    """Whole or not at all. The temporary name cannot be known before, and is nobody's link."""
    temporary = temporary_name(file)
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise


def temporary_name(file):
    return file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")


def check(how, search):
    """Raises what stands in the way of any calculation: without running one, and without starting programs."""
    if how["calculator"] == "gpaw":
        importlib.import_module("gpaw")
    elif how["calculator"] == "espresso":
        for name in ("pseudo_dir", "pseudopotentials"):
            if name not in how["parameters"]:
                raise ValueError(f"label.parameters.{name} is missing")
        for element, file in how["parameters"]["pseudopotentials"].items():
            if not os.path.isfile(path := os.path.join(pseudo_folder(how["parameters"], search), file)):
                raise ValueError(f"label.parameters.pseudopotentials: no file at {path} for {element}")
    elif how["calculator"] == "emt":  # which takes any, and looks at this one only
        for name in set(how["parameters"]) - {"asap_cutoff"}:
            raise ValueError(f"label.parameters.{name} is no parameter of EMT; there is asap_cutoff")
    elif ":" in how["calculator"] and not callable(find_function(how["calculator"], search)):
        raise TypeError(f"{how['calculator']} is no function")


if __name__ == "__main__":
    given = json.loads(os.environ.pop(HOW))
    if sys.argv[1]:
        calculate(Path(sys.argv[1]), given, sys.argv[2:])
    else:
        try:
            check(given, sys.argv[2:])
        except Exception as error:  # noqa: BLE001  (whatever a module raises when it is imported)
            sys.exit(f"{type(error).__name__}: {error}")
