// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <vector>

#include "gnn/irreps.hpp"

/// Couplings of real irreps in e3nn's conventions: m = -l..l about the y axis, so that l = 1 is (x, y, z).
namespace adatom::gnn {

/// Real Wigner 3j symbols as `wigner_3j(l1, l2, l3)` of e3nn 0.4: shape [2l1+1][2l2+1][2l3+1] row major, unit Frobenius norm.
/// Zero unless |l1-l2| <= l3 <= l1+l2. Exact to double precision (computed from factorials, cached). Thread safe.
///
/// Sign: with the degrees in ascending order the element of m = 0, 0, 0 is positive or, where that is zero (l1+l2+l3 odd), the first that is not;
/// another order of the degrees permutes the axes, and an odd permutation multiplies by (-1)^(l1+l2+l3).
/// e3nn 0.5 and later have the opposite sign for some triples with l1+l2+l3 odd, such as (1, 2, 2): weights that were trained with them must be
/// multiplied by that sign, path by path, before they are used here.
///
/// Throws std::invalid_argument for a negative degree or l1+l2+l3 > 60.
const std::vector<double>& wigner_3j(int l1, int l2, int l3);

/// One term of a symmetric polynomial: coefficient * x[index[0]] * ... * x[index[nu-1]], index ascending.
struct Monomial {
  std::array<int, 4> index{};  ///< first `nu` entries used
  int path = 0;
  double coefficient = 0.0;
};

/// The generalised coupling of MACE's symmetric contraction (arXiv 2206.07697, eq. 10-11): for each path p and component m of `out`, the polynomial
///
///     sum over lm_1..lm_nu of U[m][lm_1]..[lm_nu][p] x[lm_1] .. x[lm_nu]
///
/// with equal monomials summed (the coefficients of permuted indices added up), and zero coefficients left out.
/// `in` lists irreps of multiplicity one, in order: x is their concatenation. U is mace-torch's `U_matrix_real(in, out, nu)` without reduced
/// coefficients ("component" normalisation, order of paths of the left-to-right coupling, stable sort by irrep), and shares its special cases:
///
/// - A path whose U cancels when symmetrised is counted, since mace has a weight for it, but has no monomials.
/// - If nothing couples to `out`, U is zero with one path (and mace a weight that does nothing): paths = 1 and no monomials.
/// - nu = 4 keeps only natural parity, p = (-1)^l, and l < 12 at each coupling.
/// - nu = 1 with several entries `out` in `in`: mace takes the last run of adjacent ones. (Its models have each irrep once.)
///
/// Throws std::invalid_argument if `in` is empty or nu is not 1, 2, 3 or 4.
struct SymmetricCoupling {
  int paths = 0;                                  ///< at least 1
  std::vector<std::vector<Monomial>> components;  ///< [2l+1 components of `out`], each ordered by index, then path
};
SymmetricCoupling symmetric_coupling(const std::vector<Irrep>& in, Irrep out, int nu);

/// SymmetricCoupling::paths without the polynomials, in no time. Throws as symmetric_coupling.
std::size_t symmetric_paths(const std::vector<Irrep>& in, Irrep out, int nu);

}  // namespace adatom::gnn
