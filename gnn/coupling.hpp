// SPDX-License-Identifier: MIT
#pragma once
#include <array>
#include <vector>

#include "gnn/irreps.hpp"

/// Couplings of real irreps in e3nn's conventions: m = -l..l, l = 1 is (y, z, x).
namespace adatom::gnn {

/// Real Wigner 3j symbols as e3nn's `wigner_3j(l1, l2, l3)`: shape [2l1+1][2l2+1][2l3+1] row major, unit Frobenius norm, e3nn's sign.
/// Zero unless |l1-l2| <= l3 <= l1+l2. Exact to double precision (computed from factorials, cached). Thread safe.
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
/// coefficients ("component" normalisation, order of paths of the left-to-right coupling, stable sort by irrep).
struct SymmetricCoupling {
  int paths = 0;
  std::vector<std::vector<Monomial>> components;  ///< [2l+1 components of `out`]
};
SymmetricCoupling symmetric_coupling(const std::vector<Irrep>& in, Irrep out, int nu);

}  // namespace adatom::gnn
