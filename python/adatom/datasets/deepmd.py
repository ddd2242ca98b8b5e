# SPDX-License-Identifier: MIT
"""Folders of DeePMD-kit, with numpy alone.

    type.raw             type of each atom, an index into
    type_map.raw         symbols, one per line
    nopbc                if there is such a file, the system is not periodic
    set.000/             coord.npy [frames, 3 atoms] angstrom, box.npy [frames, 9] angstrom,
                         energy.npy [frames] eV, force.npy [frames, 3 atoms] eV/angstrom, virial.npy [frames, 9] eV,
                         real_atom_types.npy [frames, atoms] in the mixed type; -1 is an atom that is not there
    set.001/ ...

The virial is minus the strain derivative of the energy, so the stress is -virial / volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adatom._core import DataError
from adatom.datasets.text import extxyz_text


def deepmd_text(folder: Path, type_map: list[str] | None = None) -> Iterator[bytes]:
    """Frames, as extxyz, of a system, or of all systems below a folder in the order of their names; each frame's group is its system's folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of DeePMD-kit at {folder}")
    systems = sorted(file.parent for file in folder.rglob("type.raw"))
    if not systems:
        raise DataError(f"{folder}: no type.raw in it or in a folder below: it is no data of DeePMD-kit")
    for system in systems:
        yield from _read_system(system, type_map)


def _read_system(system: Path, type_map: list[str] | None) -> Iterator[bytes]:
    from ase.data import atomic_numbers

    types = np.atleast_1d(np.loadtxt(system / "type.raw", dtype=int))
    if (system / "type_map.raw").is_file():
        type_map = (system / "type_map.raw").read_text().split()
    if not type_map:
        raise DataError(f"{system}: there is no type_map.raw that says which elements the types are: give the symbols (--type-map O,H)")
    unknown = [symbol for symbol in type_map if symbol not in atomic_numbers]
    if unknown:
        raise DataError(f"{system}: {unknown[0]!r} in its type map is not the symbol of an element")
    numbers_of_types = np.array([atomic_numbers[symbol] for symbol in type_map])
    sets = sorted(path for path in system.glob("set.*") if path.is_dir())
    if not sets:
        raise DataError(f"{system}: no folder set.* in it; raw text files (coord.raw) are made into sets by DeePMD-kit's raw_to_set.sh")
    periodic = not (system / "nopbc").is_file()
    for folder in sets:
        yield from _read_set(folder, system, types, numbers_of_types, periodic)


def _read_set(folder: Path, system: Path, types, numbers_of_types, periodic: bool) -> Iterator[bytes]:
    coordinates = _load(folder / "coord.npy", None, 3 * len(types))
    if coordinates is None:
        raise DataError(f"{folder}: there is no coord.npy")
    frames = len(coordinates)
    box = _load(folder / "box.npy", frames, 9)
    if periodic and box is None:
        raise DataError(f"{folder}: there is no box.npy, and no file nopbc in {system} that says that the system is not periodic")
    energy = _load(folder / "energy.npy", frames, 1)
    forces = _load(folder / "force.npy", frames, 3 * len(types))
    virial = _load(folder / "virial.npy", frames, 9)
    mixed = _load(folder / "real_atom_types.npy", frames, len(types))
    for i in range(frames):
        frame_types = types if mixed is None else np.asarray(mixed[i])
        real = frame_types >= 0
        if frame_types.max(initial=-1) >= len(numbers_of_types):
            raise DataError(f"{folder}: frame {i} has the type {frame_types.max()}, but its type map has {len(numbers_of_types)} elements")
        cell = np.reshape(box[i], (3, 3)).astype(float) if periodic else np.zeros((3, 3))
        info, arrays = {"group": str(system)}, {}
        if energy is not None:
            info["energy"] = float(energy[i, 0])
        if virial is not None and periodic:
            tensor = -np.reshape(virial[i], (3, 3)).astype(float) / abs(np.linalg.det(cell))
            info["stress"] = 0.5 * (tensor + tensor.T)
        if forces is not None:
            arrays["forces"] = np.reshape(forces[i], (-1, 3))[real].astype(float)
        yield extxyz_text(numbers_of_types[frame_types[real]], np.reshape(coordinates[i], (-1, 3))[real].astype(float), cell, [periodic] * 3, info, arrays)


def _load(file: Path, frames: int | None, columns: int):
    """An array [frames, columns] that stays on the disk, or None if there is no such file."""
    if not file.is_file():
        return None
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file}: numpy cannot read it: {error}") from error
    expected = frames if frames is not None else len(array) if array.ndim else 0
    if array.size != expected * columns or expected == 0:
        raise DataError(f"{file}: its shape is {array.shape}, expected ({expected if frames else 'frames'}, {columns})")
    return array.reshape(expected, columns)
