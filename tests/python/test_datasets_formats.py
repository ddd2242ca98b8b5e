# SPDX-License-Identifier: MIT
"""Outputs of DFT codes, ASE databases and DeePMD's folders."""

from __future__ import annotations

import ase.db
import ase.io
import numpy as np
import pytest
from dataset_files import crystals, labelled, same, shared_file, write_crystals
from ase import Atoms
from ase.build import molecule

from adatom import datasets
from adatom.datasets.through_ase import espresso_convergence, outcar_convergence, vasprun_convergence


@pytest.mark.parametrize(
    "name, format, atoms, energy, stress",
    [  # energies as the files say: free energy TOTEN, e_fr_energy, "!    total energy"
        ("OUTCAR_HfO2", "vasp-outcar", 12, -347.41144759, True),
        ("vasprun_Ir12Re4.xml", "vasp-xml", 16, -140.07481103, False),
        ("qe_cu.out", "espresso", 4, -852.84194295 * 13.605693123, True),
        ("qe_h2o.out", "espresso", 3, -35.42457091 * 13.605693123, False),
        ("gpaw_cu4.txt", "ase", 4, None, True),
    ],
)
def test_outputs(name, format, atoms, energy, stress):
    file = shared_file(f"dft_outputs/{name}")
    assert datasets.detect_format(file) == format
    frame = list(datasets.read(file))[-1]
    assert len(frame) == atoms and frame.defects() == []
    assert frame.forces.shape == (atoms, 3) and np.abs(frame.forces.sum(axis=0)).max() < 0.05
    assert (frame.stress is not None) == stress
    if energy is not None:
        assert frame.energy == pytest.approx(energy, rel=2e-7)  # ASE takes the rydberg of CODATA 2006
    assert frame.group == str(file)


def test_stress_of_vasp_in_numbers():
    """-V d(stress) in kB of the file itself: OUTCAR prints the pressure tensor, 1 kB = 0.1 GPa, with the opposite sign of ASE's stress."""
    file = shared_file("dft_outputs/OUTCAR_HfO2")
    (line,) = (line for line in file.read_text().splitlines() if line.strip().startswith("in kB"))
    xx, yy, zz, xy, yz, zx = map(float, line.split()[2:])
    (frame,) = datasets.read(file)
    np.testing.assert_allclose(frame.stress, -np.array([xx, yy, zz, yz, zx, xy]) / 1602.1766, atol=1e-7)


VASPRUN = """<?xml version="1.0"?><modeling>
<incar><i type="int" name="NELM">   3</i></incar>
<parameters><separator name="x"><i type="int" name="NELM">   1</i></separator></parameters>
{steps}</modeling>"""


def test_electronic_convergence(tmp_path):
    file = tmp_path / "vasprun.xml"
    file.write_text(VASPRUN.format(steps="".join("<calculation>" + n * "<scstep></scstep>" + "</calculation>" for n in (2, 3, 1))))
    assert vasprun_convergence(file) == [True, False, True]
    file.write_text(file.read_text()[:-30])  # a run that was killed
    assert vasprun_convergence(file) == [True, False]
    file.write_text("----- aborting loop because EDIFF is reached -----\n--- aborting loop EDIFF was not reached (unconverged) ---\n")
    assert outcar_convergence(file) == [True, False]
    file.write_text("     convergence has been achieved in  17 iterations\n     convergence NOT achieved after 100 iterations: stopping\n")
    assert espresso_convergence(file) == [True, False]


def test_frames_that_did_not_converge_are_left_out_aloud(tmp_path):
    text = shared_file("dft_outputs/qe_h2o.out").read_text()
    file = tmp_path / "pw.out"
    file.write_text(text.replace("convergence has been achieved in  17 iterations", "convergence NOT achieved after  17 iterations"))
    with pytest.warns(UserWarning, match=r"pw\.out: 1 of 1 frames are left out: their electronic cycle did not converge \(0\)"):
        assert list(datasets.read(file)) == []
    assert len(list(datasets.read(file, keep_unconverged=True))) == 1


def test_output_that_is_none(tmp_path):
    (tmp_path / "OUTCAR").write_text("vasp.5.4.4 and nothing more\n")
    with pytest.raises(datasets.DataError, match="OUTCAR: ASE (cannot read it as vasp-outcar|finds no frames)"):
        list(datasets.read(tmp_path / "OUTCAR"))
    (tmp_path / "notes.txt").write_text("Dear diary\n")
    with pytest.raises(datasets.DataError, match="notes.txt"):
        list(datasets.read(tmp_path / "notes.txt"))


def test_forces_of_fixed_atoms_are_kept(tmp_path):
    from ase.constraints import FixAtoms

    (atoms,) = crystals(1)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "t.traj", atoms)
    (frame,) = datasets.read(tmp_path / "t.traj")
    np.testing.assert_array_equal(frame.forces, atoms.calc.results["forces"])


@pytest.mark.parametrize("suffix", ["db", "json"])
def test_ase_database(tmp_path, suffix):
    file = tmp_path / f"t.{suffix}"
    structures = crystals(6)
    with ase.db.connect(file) as database:
        for atoms in structures:
            database.write(atoms, traj=atoms.info["traj"], config_type=atoms.info["config_type"])
    assert datasets.detect_format(file) == "ase-db"
    frames = list(datasets.read(file, group="traj"))
    for frame, atoms in zip(frames, structures, strict=True):
        same(frame, atoms)
        assert (frame.group, frame.config_type) == (atoms.info["traj"], atoms.info["config_type"])
    assert [frame.group for frame in datasets.read(file)] == [""] * 6


def write_deepmd(folder, structures, sets=2, symbols=("Cu", "O"), nopbc=False, dtype=np.float32, **leave_out):
    """As DeePMD-kit's documentation describes the format, all structures with the atoms of the first."""
    folder.mkdir(parents=True)
    types = [symbols.index(symbol) for symbol in structures[0].symbols]
    np.savetxt(folder / "type.raw", types, fmt="%d")
    (folder / "type_map.raw").write_text("\n".join(symbols) + "\n")
    if nopbc:
        (folder / "nopbc").write_text("")
    for k, part in enumerate(np.array_split(np.arange(len(structures)), sets)):
        some = [structures[i] for i in part]
        (folder / f"set.{k:03d}").mkdir()
        arrays = {
            "coord": [atoms.positions.ravel() for atoms in some],
            "energy": [atoms.calc.results["energy"] for atoms in some],
            "force": [atoms.calc.results["forces"].ravel() for atoms in some],
        }
        if not nopbc:
            arrays["box"] = [np.asarray(atoms.cell).ravel() for atoms in some]
            arrays["virial"] = [-atoms.get_volume() * atoms.get_stress(voigt=False).ravel() for atoms in some]
        for name, values in arrays.items():
            if not leave_out.get(name):
                np.save(folder / f"set.{k:03d}" / f"{name}.npy", np.asarray(values, dtype=dtype))
    return folder


def deepmd_crystals(n):
    structures = [atoms for atoms in crystals(4 * n) if atoms.numbers[0] == 8]
    assert len(structures) == n
    return structures


def test_deepmd(tmp_path):
    structures = deepmd_crystals(5)
    folder = write_deepmd(tmp_path / "data" / "sys1", structures, dtype=np.float64)
    write_deepmd(tmp_path / "data" / "sys2", [labelled(molecule("H2O"), 1)], sets=1, symbols=("O", "H"), nopbc=True)
    assert datasets.detect_format(folder) == "deepmd"
    for frame, atoms in zip(datasets.read(folder), structures, strict=True):
        np.testing.assert_array_equal(frame.positions, atoms.positions)
        np.testing.assert_allclose(frame.stress, atoms.get_stress(), rtol=1e-12, atol=1e-15)
        assert frame.energy == atoms.calc.results["energy"] and frame.numbers.tolist() == atoms.numbers.tolist() and frame.group == str(folder)
    frames = list(datasets.read(tmp_path / "data"))
    assert len(frames) == 6 and frames[-1].pbc == [False] * 3 and frames[-1].stress is None and frames[-1].numbers.tolist() == [8, 1, 1]


def test_deepmd_mixed_type(tmp_path):
    structures = deepmd_crystals(4)
    folder = write_deepmd(tmp_path / "sys", structures, sets=1)
    np.save(folder / "set.000" / "real_atom_types.npy", np.array([[1, 0, 0, 0], [0, 0, 0, 1], [1, 1, -1, -1], [0, 0, 0, 0]]))
    frames = list(datasets.read(folder))
    assert [frame.numbers.tolist() for frame in frames] == [[8, 29, 29, 29], [29, 29, 29, 8], [8, 8], [29] * 4]
    np.testing.assert_allclose(frames[2].positions, structures[2].positions[:2], rtol=1e-6)
    assert frames[2].forces.shape == (2, 3)


def test_deepmd_errors(tmp_path):
    structures = deepmd_crystals(3)

    def refuse(folder, message, **options):
        with pytest.raises(datasets.DataError, match=message):
            list(datasets.read(folder, "deepmd", **options))

    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "no type.raw")
    refuse(write_deepmd(tmp_path / "a", structures, box=True), "no box.npy, and no file nopbc")
    refuse(write_deepmd(tmp_path / "b", structures, coord=True), "no coord.npy")
    folder = write_deepmd(tmp_path / "c", structures, symbols=("Cu", "O", "Qq"))
    refuse(folder, "'Qq' in its type map is not the symbol")
    (folder / "type_map.raw").unlink()
    refuse(folder, r"no type_map.raw .* \(--type-map O,H\)")
    refuse(folder, "frame 0 has the type 1, but its type map has 1 elements", type_map=["Cu"])
    assert len(list(datasets.read(folder, type_map=["Cu", "O"]))) == 3
    np.save(folder / "set.000" / "force.npy", np.zeros((2, 11)))
    refuse(folder, r"force.npy: its shape is \(2, 11\), expected \(2, 12\)", type_map=["Cu", "O"])
    (folder / "set.000" / "force.npy").write_bytes(b"no array")
    refuse(folder, "force.npy: numpy cannot read it", type_map=["Cu", "O"])


def test_every_format_becomes_a_cache(tmp_path):
    """What a reader gives is what the cache gives back, whatever the source."""
    ase.io.write(tmp_path / "t.traj", crystals(3))
    folder = write_deepmd(tmp_path / "deepmd", deepmd_crystals(2))
    sources = [write_crystals(tmp_path / "t.extxyz", 4), tmp_path / "t.traj", folder]
    summary = datasets.convert(sources, tmp_path / "all.cache", default_head="pbe")
    assert summary["frames"] == 9 and [source["format"] for source in summary["sources"]] == ["extxyz", "ase", "deepmd"]
    cache = datasets.Cache(tmp_path / "all.cache")
    expected = [frame for source in sources for frame in datasets.read(source)]
    for frame, original in zip(cache, expected, strict=True):
        same(frame, datasets.frame_to_atoms(original))
        assert frame.head == "pbe"
    assert cache.provenance["sources"] == summary["sources"] and cache.heads == ["pbe"]
    again = datasets.convert([tmp_path / "all.cache"], tmp_path / "again.extxyz")
    assert again["frames"] == 9 and [frame.head for frame in datasets.read(tmp_path / "again.extxyz")] == ["pbe"] * 9


def test_nothing_to_convert(tmp_path):
    atoms = Atoms("H", [[0, 0, np.nan]])
    ase.io.write(tmp_path / "t.extxyz", [atoms])
    with pytest.raises(datasets.DataError, match=r"t\.extxyz: frame 0 cannot be used: the position of atom 0 .* --drop-defective"):
        datasets.convert([tmp_path / "t.extxyz"], tmp_path / "o.cache")
    with pytest.raises(datasets.DataError, match="nothing to write .* all frames have defects"):
        datasets.convert([tmp_path / "t.extxyz"], tmp_path / "o.cache", drop_defective=True)
    with pytest.raises(ValueError, match="the suffix '.h5' says no format"):
        datasets.convert([tmp_path / "t.extxyz"], tmp_path / "o.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["t.extxyz"]
