# SPDX-License-Identifier: MIT
"""Coupling coefficients with the signs of the model file, whatever version of e3nn is installed.

Signs are those of e3nn 0.4.4, the version that mace-torch requires. Later versions have the opposite sign for some triples of degrees.
Irreps are pairs (l, p) here.
"""
import functools
import itertools

import numpy as np

# Triples with at least two degrees <= 3, which is all that edges and hidden features of degree <= 3 need.
_SIGN_CHANGED_AFTER_0_4 = {(1, 2, 2), (1, 3, 3)}


@functools.lru_cache(maxsize=None)
def wigner_3j(l1, l2, l3):
    """Real Wigner 3j symbol, float64 [2 l1 + 1, 2 l2 + 1, 2 l3 + 1], unit Frobenius norm."""
    import torch
    from e3nn import o3

    if sorted((l1, l2, l3))[1] > 3:
        raise NotImplementedError(f"wigner_3j({l1}, {l2}, {l3}): signs are known where two of the degrees are at most 3")
    installed = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).numpy()
    new_signs = float(o3.wigner_3j(1, 2, 2, dtype=torch.float64).flatten()[_FIRST_OF_122]) < 0
    return -installed if new_signs and tuple(sorted((l1, l2, l3))) in _SIGN_CHANGED_AFTER_0_4 else installed


_FIRST_OF_122 = 1  # flat index of the first component of wigner_3j(1, 2, 2) that is not zero; positive in e3nn 0.4.4


def _product(a, b):
    """Irreps in a (x) b, ascending l."""
    return [(l, a[1] * b[1]) for l in range(abs(a[0] - b[0]), a[0] + b[0] + 1)]


def _couplings(irreps, nu, outs=None):
    """Left-to-right couplings of nu copies of `irreps`: (irrep, array [2 l + 1] + nu * [dim]), in order of creation; `outs`: those wanted."""
    dim = sum(2 * l + 1 for l, _ in irreps)
    starts = np.cumsum([0] + [2 * l + 1 for l, _ in irreps])
    if nu == 1:
        identity = np.eye(dim)
        return [(ir, identity[start:start + 2 * ir[0] + 1]) for ir, start in zip(irreps, starts) if outs is None or ir in outs]
    found = []
    for left, basis in sorted(_couplings(irreps, nu - 1), key=lambda path: path[0]):
        for ir, start in zip(irreps, starts):
            for out in _product(left, ir):
                if outs is not None and out not in outs:
                    continue
                # component normalisation, as mace-torch: sqrt(2 l_out + 1) w3j(l_out, l_left, l)
                c = np.sqrt(2 * out[0] + 1) * wigner_3j(out[0], left[0], ir[0])
                full = np.zeros((2 * out[0] + 1,) + nu * (dim,))
                full[..., start:start + 2 * ir[0] + 1] = np.einsum("j...,ijl->i...l", basis, c)
                found.append((out, full))
    return found


@functools.lru_cache(maxsize=None)
def contraction_basis(irreps, out, nu):
    """Basis of the symmetric contraction, [paths, 2 l + 1] + nu * [dim], paths in the order of the model file, symmetrised over the nu inputs.

    arXiv 2206.07697, eq. 10 and 11. `irreps` is a tuple of (l, p) of multiplicity one, `out` an (l, p). Without paths the first axis has length 0.
    """
    dim = sum(2 * l + 1 for l, _ in irreps)
    paths = [basis for _, basis in _couplings(irreps, nu, (out,))]
    basis = np.array(paths).reshape((len(paths), 2 * out[0] + 1) + nu * (dim,))
    permutations = list(itertools.permutations(range(nu)))
    return sum(basis.transpose((0, 1) + tuple(2 + i for i in p)) for p in permutations) / len(permutations)
