#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reference values of e3nn 0.4.4 and mace-torch 0.3.16 for gnn/irreps and gnn/coupling.

Usage: make_e3nn.py [directory]        (default: data, beside this file)

Writes e3nn_wigner_3j.json and mace_symmetric_coupling.json. Tensors are not stored whole: a 3j symbol is stored as its trilinear form at fixed
random vectors, a generalised coupling U as the value of each path's polynomial at a fixed random x, and its numbers of monomials.
Needs 3 GiB of memory (U of correlation 3 and l = 0..4).
"""
import itertools
import json
import pathlib
import sys

import mace  # noqa: F401  first: it lets e3nn 0.4.4 load its constants with a recent torch
import e3nn
import numpy as np
import torch
from e3nn import o3
from mace.tools.cg import U_matrix_real

NATURAL = ["0e", "0e+1o", "0e+1o+2e", "0e+1o+2e+3o", "0e+1o+2e+3o+4e"]
# (irreps in, correlations, irreps out)
CASES = [
    (NATURAL[0], [1, 2, 3, 4], ["0e", "1o", "0o"]),
    (NATURAL[1], [1, 2, 3, 4], ["0e", "0o", "1o", "1e", "2e", "3o"]),
    (NATURAL[2], [1, 2, 3], ["0e", "0o", "1o", "1e", "2e", "3o"]),
    (NATURAL[2], [4], ["0e", "1o"]),
    (NATURAL[3], [1, 2, 3], ["0e", "1o", "1e", "2e", "3o"]),
    (NATURAL[4], [1, 2], ["0e", "1o", "2e", "2o", "4e"]),
    (NATURAL[4], [3], ["0e", "1o", "2e"]),
    ("0e+0o+1o+1e+2e+2o", [1, 2, 3], ["0e", "0o", "1o", "1e", "2e"]),
    ("0o+1e+2o", [1, 2, 3], ["0e", "0o", "1e", "2o"]),
    ("0e+0e+1o+1o", [1, 2, 3, 4], ["0e", "1o", "2e"]),  # an irrep twice
    ("2e+1o+0e+1o", [1, 2, 3], ["0e", "1o", "2e"]),  # not in order
    ("0e+1o+1e", [4], ["0e", "1o", "1e"]),
]


def random_vectors(dims):
    rng = np.random.default_rng(20240607)
    return [rng.uniform(-1, 1, dim).round(6) for dim in dims]


def wigner_3j(lmax=6):
    vectors = [random_vectors([2 * l + 1] * 3) for l in range(lmax + 1)]
    forms = []
    for l1, l2, l3 in itertools.product(range(lmax + 1), repeat=3):
        if abs(l1 - l2) <= l3 <= l1 + l2:
            w3j = o3.wigner_3j(l1, l2, l3).numpy()
            value = np.einsum("ijk,i,j,k", w3j, vectors[l1][0], vectors[l2][1], vectors[l3][2])
            forms.append([l1, l2, l3, float(value)])
    nonzero = []
    for l1, l2, l3 in [(0, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2), (2, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 2), (3, 1, 3)]:
        w3j = o3.wigner_3j(l1, l2, l3).numpy()
        nonzero.append({"l": [l1, l2, l3], "elements": [[*map(int, m), float(w3j[tuple(m)])] for m in np.argwhere(np.abs(w3j) > 1e-10)]})
    return {"vectors": [[list(v) for v in vs] for vs in vectors], "trilinear": forms, "elements": nonzero}


def coupling(irreps_in, out, nu, x):
    """Number of paths, and per component: number of monomials after symmetrisation, and the value of each path's polynomial at x."""
    dim, n_out = len(x), o3.Irrep(out).dim
    # e3nn 0.4.4 ends at l = 11, and l = 12 = 3 * 4 is a last coupling that is not asked for. At correlation 4 mace sets its own filter.
    filter_ir_mid = [(l, p) for l in range(12) for p in (1, -1)] if irreps_in == NATURAL[4] and nu == 3 else None
    U = U_matrix_real(irreps_in, out, nu, filter_ir_mid=filter_ir_mid, use_cueq_cg=False, dtype=torch.float64)[-1]
    U = U.numpy().reshape(n_out, dim**nu, -1)  # mace squeezes axes of length one
    indices = np.sort(np.indices([dim] * nu).reshape(nu, -1), axis=0)  # of the monomial, for each element
    key = np.ravel_multi_index(indices, [dim] * nu)
    monomials, position = np.unique(key, return_inverse=True)
    products = np.prod(x[np.array(np.unravel_index(monomials, [dim] * nu))], axis=0)
    components = []
    for component in U:
        coefficients = np.zeros((len(monomials), component.shape[-1]))
        np.add.at(coefficients, position, component)
        size = np.abs(coefficients)
        assert not ((1e-11 < size) & (size < 1e-4)).any(), "cannot tell zero from rounding"
        values = products @ coefficients
        components.append({"monomials": int((size > 1e-8).sum()), "values": [float(f"{v:.14g}") if abs(v) > 1e-11 else 0.0 for v in values]})
    return {"in": irreps_in, "out": out, "nu": nu, "paths": U.shape[-1], "components": components}


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "data"
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_default_dtype(torch.float64)
    if e3nn.__version__ != "0.4.4":
        sys.exit(f"e3nn {e3nn.__version__}: expected 0.4.4, which mace-torch 0.3.16 uses; later versions have other signs")
    source = f"e3nn {e3nn.__version__}, mace-torch {mace.__version__}"
    (x,) = random_vectors([64])
    couplings = []
    for irreps_in, correlations, outs in CASES:
        for nu, out in itertools.product(correlations, outs):
            couplings.append(coupling(irreps_in, out, nu, x[: o3.Irreps(irreps_in).dim]))
            print(*(couplings[-1][key] for key in ("in", "out", "nu", "paths")), [c["monomials"] for c in couplings[-1]["components"]], flush=True)
    for name, content in [("e3nn_wigner_3j", wigner_3j()), ("mace_symmetric_coupling", {"x": list(x), "couplings": couplings})]:
        text = json.dumps({"source": source, **content}, separators=(",", ":"))
        (directory / f"{name}.json").write_text(text.replace('{"', '\n{"').lstrip() + "\n")


if __name__ == "__main__":
    main()
