// SPDX-License-Identifier: MIT
// Symmetric contraction (arXiv 2206.07697, eq. 10-11) of one node, as a polynomial of the message's rows x_i with one set of coefficients per element
// and channel:
//
//     b = sum_i x_i (c_i + sum_{j>=i} x_j (c_ij + sum_{k>=j} c_ijk x_k)) = sum_i x_i p_i,      p_i = c_i + sum_j x_j q_ij,    q_ij = c_ij + sum_k c_ijk x_k
//
// and its gradient, given g = dE/db:   dE/dx_i += g p_i,   dE/dx_j += g x_i q_ij,   dE/dx_k += g x_i x_j c_ijk.
//
// Equal monomials have been summed beforehand, so the loops run over what is left (gnn/coupling.hpp). Lanes are channels. NB nodes of one element
// are done together, so that each coefficient is loaded once for all of them.
#pragma once
#include "gnn/kernels/lane.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn {

/// `coefficients`: of these W channels, the next coefficient `stride` scalars on. x[b]: row of x_i at x[b] + inputs[i].
template <class S, int W, int NB>
void contract(const ContractionPolynomial& p, const Base<S>* coefficients, std::ptrdiff_t stride, const int* inputs, const S* const* x, S* const* out) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  N sum[NB];
  for (int b = 0; b < NB; ++b) sum[b] = N(Base<S>(0));
  const Base<S>* c = coefficients;
  int pair = 0, triple = 0;
  for (const auto& single : p.singles) {
    N pi[NB];
    for (int b = 0; b < NB; ++b) pi[b] = N(L::load(c));
    c += stride;
    for (; pair < single.pairs_end; ++pair) {
      N q[NB];
      for (int b = 0; b < NB; ++b) q[b] = N(L::load(c));
      c += stride;
      for (; triple < p.pairs[pair].triples_end; ++triple, c += stride) {
        const auto ck = L::load(c);
        const int k = inputs[p.triples[triple]];
#pragma GCC unroll 8
        for (int b = 0; b < NB; ++b) q[b] = q[b] + L::load(x[b] + k) * ck;
      }
      const int j = inputs[p.pairs[pair].j];
      for (int b = 0; b < NB; ++b) pi[b] = pi[b] + q[b] * L::load(x[b] + j);
    }
    const int i = inputs[single.i];
    for (int b = 0; b < NB; ++b) sum[b] = sum[b] + pi[b] * L::load(x[b] + i);
  }
  for (int b = 0; b < NB; ++b) L::store(out[b], sum[b]);
}

/// gx[b] + inputs[i] is added to.
template <class S, int W, int NB>
void contract_reverse(const ContractionPolynomial& p, const Base<S>* coefficients, std::ptrdiff_t stride, const int* inputs, const S* const* x,
                      const S* const* g_out, S* const* gx) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  N g[NB];
  for (int b = 0; b < NB; ++b) g[b] = L::load(g_out[b]);
  const Base<S>* c = coefficients;
  int pair = 0, triple = 0;
  for (const auto& single : p.singles) {
    const int i = inputs[single.i];
    N pi[NB], gi[NB];
    for (int b = 0; b < NB; ++b) pi[b] = N(L::load(c)), gi[b] = g[b] * L::load(x[b] + i);
    c += stride;
    for (; pair < single.pairs_end; ++pair) {
      const int j = inputs[p.pairs[pair].j];
      N q[NB], xj[NB], gij[NB];
      for (int b = 0; b < NB; ++b) q[b] = N(L::load(c)), xj[b] = L::load(x[b] + j), gij[b] = gi[b] * xj[b];
      c += stride;
      for (; triple < p.pairs[pair].triples_end; ++triple, c += stride) {
        const auto ck = L::load(c);
        const int k = inputs[p.triples[triple]];
#pragma GCC unroll 8
        for (int b = 0; b < NB; ++b) {
          q[b] = q[b] + L::load(x[b] + k) * ck;
          S* to = gx[b] + k;
          L::store(to, L::load(to) + gij[b] * ck);
        }
      }
      for (int b = 0; b < NB; ++b) {
        pi[b] = pi[b] + q[b] * xj[b];
        S* to = gx[b] + j;
        L::store(to, L::load(to) + gi[b] * q[b]);
      }
    }
    for (int b = 0; b < NB; ++b) {
      S* to = gx[b] + i;
      L::store(to, L::load(to) + g[b] * pi[b]);
    }
  }
}

}  // namespace adatom::gnn
