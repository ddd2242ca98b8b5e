# SPDX-License-Identifier: MIT
"""Something goes wrong in the subdomain of one rank while the others wait for its part of a layer: all of them stop, at once and with the reason."""

import re

import numpy as np
import pytest
from ase.build import bulk

# The list is made at the first step and then kept, so that LAMMPS's own checks of positions do not look. No atom moves by itself.
KEEP = "neighbor 0.3 bin\nneigh_modify delay 1000 every 1000 check no\nthermo 1000\n"
RANKS = [(2, "2 1 1"), (4, "4 1 1"), (4, "2 2 1")]


@pytest.fixture(scope="module")
def rod():
    """57.6 angstrom long: a subdomain of a quarter of it (14.4) has atoms that no other rank sees (ghost shells are 4.3 deep)."""
    atoms = bulk("Cu", cubic=True, a=3.6) * (16, 4, 2)
    atoms.positions += np.random.default_rng(3).normal(scale=0.03, size=atoms.positions.shape)
    atoms.wrap()
    return atoms


def near(atoms, x: float, y: float, skip: int = -1) -> int:
    """Index of the atom that is nearest to (x, y) in the xy plane."""
    distance = np.hypot(atoms.positions[:, 0] - x, atoms.positions[:, 1] - y)
    return int(min((d, i) for i, d in enumerate(distance) if i != skip)[1])


def place(atom: int, position) -> str:
    return "set atom {} x {:.17g} y {:.17g} z {:.17g}".format(atom + 1, *position)


def stops(lmp, atoms, trouble: str, ranks: int, processors: str) -> str:
    """Output of a run in which `trouble` comes after the list was made."""
    commands = KEEP + f"run 0\nprint 'all is well'\n{trouble}\nrun 3 pre no\nprint 'the run went on'"
    output = lmp.fails(lmp.script(atoms, commands, before=f"processors {processors}"), ranks, timeout=60.0)
    assert "all is well" in output and "the run went on" not in output, output[-2000:]
    return output


# Places in the middle of a subdomain: of the first and of the last rank, whichever layout.
@pytest.mark.parametrize("x, y", [(7.0, 3.6), (50.0, 10.8)])
@pytest.mark.parametrize("ranks, processors", RANKS)
class TestDuringTheRun:
    def test_two_atoms_on_one_spot(self, lmp, rod, ranks, processors, x, y):
        first = near(rod, x, y)
        second = int(np.argsort(np.linalg.norm(rod.positions - rod.positions[first], axis=1))[1])
        output = stops(lmp, rod, place(second, rod.positions[first]), ranks, processors)
        assert re.search(rf"atom ({first + 1}|{second + 1}) and one of its neighbours are on the same spot", output), output[-2000:]

    def test_infinite_position(self, lmp, rod, ranks, processors, x, y):
        atom = near(rod, x, y)
        runaway = f"group runaway id {atom + 1}\nvelocity runaway set 1e308 0 0\nfix move runaway nve\ntimestep 1000\nrun 0"
        output = stops(lmp, rod, runaway, ranks, processors)
        assert f"atom {atom + 1} is at (inf" in output and "the simulation is unstable" in output, output[-2000:]

    def test_position_whose_square_is_infinite(self, lmp, rod, ranks, processors, x, y):
        atom = near(rod, x, y)
        output = stops(lmp, rod, f"set atom {atom + 1} x 1e200", ranks, processors)
        assert "one of its neighbours has a position that is not finite" in output, output[-2000:]


@pytest.mark.parametrize("x, y", [(7.0, 3.6), (50.0, 10.8)])
@pytest.mark.parametrize("ranks, processors", [(1, "1 1 1"), *RANKS])
def test_energy_that_is_not_a_number(lmp, rod, tmp_path, ranks, processors, x, y):
    """The product of two large features is too large for single precision: at one atom of carbon, and what is around it."""
    import tiny_model

    model = tiny_model.write(tmp_path / "huge.safetensors", carbon=1e25)
    atoms = rod.copy()
    atom = near(atoms, x, y)
    atoms.numbers[atom] = 6
    pair = f"pair_style adatom precision float\npair_coeff * * {model} Cu O C"
    output = lmp.fails(lmp.script(atoms, "run 0", pair=pair, before=f"processors {processors}"), ranks, timeout=60.0)
    named = re.search(r"pair style adatom: the \w+ of atom (\d+) is not finite: ", output)
    assert named, output[-2000:]
    assert atoms.get_distance(atom, int(named[1]) - 1, mic=True) < 8.1


@pytest.mark.parametrize("x, y", [(7.0, 3.6), (50.0, 10.8)])
@pytest.mark.parametrize("ranks, processors", RANKS)
def test_two_atoms_on_one_spot_from_the_start(lmp, rod, ranks, processors, x, y):
    atoms = rod.copy()
    atoms += atoms[[near(rod, x, y)]]
    output = lmp.fails(lmp.script(atoms, "run 1", before=f"processors {processors}"), ranks, timeout=60.0)
    assert "and one of its neighbours are on the same spot" in output, output[-2000:]
