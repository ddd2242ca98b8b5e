# SPDX-License-Identifier: MIT
"""The style inside a Python process, through the module `lammps`."""
import ctypes
import importlib.metadata

import lammps_structures as structures
import numpy as np
import pytest
from lammps_simulation import TYPES, write_data


@pytest.fixture
def engine(plugin, monkeypatch):
    """Creates LAMMPS instances and closes them."""
    import lammps

    # LAMMPS finds the MPI of its wheel by LD_LIBRARY_PATH, which is read when a process starts; a library that is loaded already is found, too
    mpi = next(file for file in importlib.metadata.files("mpich") if file.name == "libmpi.so.12")
    ctypes.CDLL(str(mpi.locate()), ctypes.RTLD_GLOBAL)
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", plugin)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    instances = []

    def create():
        instances.append(lammps.lammps(cmdargs=["-log", "none", "-screen", "none"]))
        return instances[-1]

    yield create
    for instance in instances:
        instance.close()


def load(engine, folder, atoms, model):
    write_data(folder / "data.lmp", atoms)
    engine.commands_string(f"""units metal
boundary p p p
atom_modify map array
read_data {folder / 'data.lmp'}
pair_style adatom precision double
pair_coeff * * {model} {' '.join(TYPES)}""")


def forces(engine):
    order = np.argsort(engine.numpy.extract_atom("id")[: engine.get_natoms()])
    return np.array(engine.numpy.extract_atom("f"))[order]


def test_plugin_is_loaded(engine):
    lmp = engine()
    assert ["pair", "adatom"] in lmp.available_plugins()
    assert lmp.has_style("pair", "adatom")


def test_two_instances_side_by_side(engine, tmp_path, model, reference):
    first, second = engine(), engine()
    one, two = structures.crystal(), structures.triclinic()
    load(first, tmp_path, one, model)
    load(second, tmp_path, two, model)
    for lmp in (first, second):
        lmp.command("run 0")
    np.testing.assert_allclose(forces(first), reference(one).forces, rtol=0, atol=1e-8)
    np.testing.assert_allclose(forces(second), reference(two).forces, rtol=0, atol=1e-8)


def test_moved_atoms_without_a_new_setup(engine, tmp_path, model, reference):
    """`run 1 pre no` reuses the neighbour list, `run 0` makes a new one: positions set from outside are used by both."""
    lmp, atoms = engine(), structures.crystal()
    load(lmp, tmp_path, atoms, model)
    lmp.command("run 0")
    atoms.positions += np.random.default_rng(3).normal(scale=0.02, size=atoms.positions.shape)
    lmp.scatter_atoms("x", 1, 3, (ctypes.c_double * atoms.positions.size)(*atoms.positions.ravel()))
    lmp.command("run 1 pre no post no")
    np.testing.assert_allclose(forces(lmp), reference(atoms).forces, rtol=0, atol=1e-8)
    atoms.positions += [0.3, -0.4, 0.5]
    lmp.scatter_atoms("x", 1, 3, (ctypes.c_double * atoms.positions.size)(*atoms.positions.ravel()))
    lmp.command("run 0")
    np.testing.assert_allclose(forces(lmp), reference(atoms).forces, rtol=0, atol=1e-8)


def test_errors_are_exceptions(engine, tmp_path, model):
    """The instance can be used after an error."""
    lmp, atoms = engine(), structures.crystal()
    load(lmp, tmp_path, atoms, model)
    with pytest.raises(Exception, match="names 1 elements after the file"):
        lmp.command(f"pair_coeff * * {model} Cu")
    with pytest.raises(Exception, match="'nowhere' not found"):
        lmp.command("pair_coeff * * nowhere Cu O C")
    lmp.command(f"pair_coeff * * {model} Cu O C")
    lmp.command("run 0")
    assert lmp.get_thermo("pe") < 0.0
