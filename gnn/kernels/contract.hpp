// SPDX-License-Identifier: MIT
// Symmetric contraction (arXiv 2206.07697, eq. 10-11) of one node: a polynomial of third degree in the message's rows x_i, with one set of
// coefficients per element and channel. Equal monomials have been summed beforehand (gnn/coupling.hpp), which leaves few: 94 of 816 for l_max 3 and a
// scalar output.
//
//     value    b       = sum_i x_i r_i,   r_i = c_i + sum_j c_ij x_j + sum_n c_in p_n,   p_n = x_a x_b
//     gradient db/dx_i = r_i              with the coefficients of the derivative
//
// The products p_n are formed once per node and channel. Rows are plain sums over lists, without stores or data-dependent addresses in between. Lanes
// are channels; NB nodes of one element are done together, so that each coefficient is loaded once for all of them.
#pragma once
#include "gnn/kernels/lane.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn {

/// x_i and p_n of W channels of NB nodes.
template <class S, int W, int NB>
struct ContractionInputs {
  using L = Lane<S, W>;
  using N = typename L::Number;
  N x[Contraction::most_inputs][NB], p[Contraction::most_products][NB];

  /// x_i of node b at x[b] + offsets[i].
  ContractionInputs(const Contraction& c, const S* const* from) {
    const int inputs = static_cast<int>(c.inputs.size()), products = static_cast<int>(c.products.size());
    for (int i = 0; i < inputs; ++i)
      for (int b = 0; b < NB; ++b) x[i][b] = L::load(from[b] + c.inputs[i]);
    for (int n = 0; n < products; ++n)
      for (int b = 0; b < NB; ++b) p[n][b] = x[c.products[n][0]][b] * x[c.products[n][1]][b];
  }

  /// Calls body(i, r_i[NB]) for each row; `c`: coefficients, the next one 16 scalars on.
  template <class Body>
  ADATOM_INLINE void for_rows(const ContractionRows& rows, const Base<S>* c, Body body) const {
    const int* pair = rows.pairs.data();
    const int* triple = rows.triples.data();
    for (const auto& row : rows.rows) {
      N even[NB], odd[NB];  // two sums, for the latency of the multiply-add
      for (int b = 0; b < NB; ++b) even[b] = N(L::load(c)), odd[b] = N(Base<S>(0));
      c += 16;
      const int* const pairs_end = rows.pairs.data() + row.pairs_end;
      for (; pair != pairs_end; ++pair, c += 16) {
        const auto w = L::load(c);
#pragma GCC unroll 8
        for (int b = 0; b < NB; ++b) odd[b] = odd[b] + x[*pair][b] * w;
      }
      const int* const triples_end = rows.triples.data() + row.triples_end;
      for (; triple + 1 < triples_end; triple += 2, c += 32) {
        const auto w0 = L::load(c), w1 = L::load(c + 16);
#pragma GCC unroll 8
        for (int b = 0; b < NB; ++b) {
          even[b] = even[b] + p[triple[0]][b] * w0;
          odd[b] = odd[b] + p[triple[1]][b] * w1;
        }
      }
      if (triple != triples_end) {
        const auto w = L::load(c);
        for (int b = 0; b < NB; ++b) even[b] = even[b] + p[*triple][b] * w;
        ++triple, c += 16;
      }
      for (int b = 0; b < NB; ++b) even[b] = even[b] + odd[b];
      body(row.input, even);
    }
  }
};

/// out[b] = value.
template <class S, int W, int NB>
void contract(const ContractionInputs<S, W, NB>& in, const ContractionRows& value, const Base<S>* coefficients, S* const* out) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  N sum[NB];
  for (int b = 0; b < NB; ++b) sum[b] = N(Base<S>(0));
  in.for_rows(value, coefficients, [&](int i, const N* r) {
    for (int b = 0; b < NB; ++b) sum[b] = sum[b] + in.x[i][b] * r[b];
  });
  for (int b = 0; b < NB; ++b) L::store(out[b], sum[b]);
}

/// gradient[b] + offsets[i] = db/dx_i; rows that no term has are left as they are.
template <class S, int W, int NB>
void contract_gradient(const ContractionInputs<S, W, NB>& in, const ContractionRows& gradient, const Base<S>* coefficients, const int* offsets, S* const* out) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  in.for_rows(gradient, coefficients, [&](int i, const N* r) {
    for (int b = 0; b < NB; ++b) L::store(out[b] + offsets[i], r[b]);
  });
}

/// Adds g db/dx_i to gx[b] + offsets[i], given g = dE/db at g[b].
template <class S, int W, int NB>
void contract_reverse(const ContractionInputs<S, W, NB>& in, const ContractionRows& gradient, const Base<S>* coefficients, const int* offsets,
                      const S* const* g, S* const* gx) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  N gb[NB];
  for (int b = 0; b < NB; ++b) gb[b] = L::load(g[b]);
  in.for_rows(gradient, coefficients, [&](int i, const N* r) {
    for (int b = 0; b < NB; ++b) {
      S* to = gx[b] + offsets[i];
      L::store(to, L::load(to) + gb[b] * r[b]);
    }
  });
}

/// Adds the tangents of dE/d(coefficient of `value`) to `gradient`, laid out as coefficients, given g = dE/db at g[b].
template <class S, int W, int NB>
void contract_weight_gradient(const ContractionInputs<S, W, NB>& in, const ContractionRows& value, const S* const* g, Base<S>* gradient) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  using H = Lane<Base<S>, W>;
  N gb[NB];
  for (int b = 0; b < NB; ++b) gb[b] = L::load(g[b]);
  const int* pair = value.pairs.data();
  const int* triple = value.triples.data();
  for (const auto& row : value.rows) {
    N gx[NB];
    auto sum = H::load(gradient);
    for (int b = 0; b < NB; ++b) gx[b] = gb[b] * in.x[row.input][b], sum = sum + gx[b].d;
    H::store(gradient, sum);
    gradient += 16;
    const auto add = [&](const N(&factor)[NB]) {
      auto total = H::load(gradient);
#pragma GCC unroll 8
      for (int b = 0; b < NB; ++b) total = fma(fma(total, gx[b].v, factor[b].d), gx[b].d, factor[b].v);
      H::store(gradient, total);
      gradient += 16;
    };
    for (const int* const end = value.pairs.data() + row.pairs_end; pair != end; ++pair) add(in.x[*pair]);
    for (const int* const end = value.triples.data() + row.triples_end; triple != end; ++triple) add(in.p[*triple]);
  }
}

}  // namespace adatom::gnn
