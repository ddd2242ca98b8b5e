// SPDX-License-Identifier: MIT
// Linear maps of rows: y[r][o] (+)= sum_i x[r][i] W[i][o]. Lanes are output channels; the input is uniform.
//
// Gradient of the weights, in dual arithmetic (gnn/evaluator.hpp): the tangent of sum_r x[r][i] g[r][o].
//
// W lies in panels of 16 output channels, [panel][in][16], so that the inner loop reads it once, front to back. A block of rows times two vectors of
// channels is kept in registers.
#pragma once
#include "gnn/kernels/aligned.hpp"
#include "gnn/kernels/lane.hpp"

namespace adatom::gnn {

/// W for y = x W and for the reverse pass (W transposed), packed into panels.
template <class T>
struct PackedMatrix {
  int in = 0, out = 0;  ///< multiples of 16
  AlignedVector<T> panels;
};

template <class T, class M>
PackedMatrix<T> pack(const M& m, bool transpose) {
  PackedMatrix<T> p;
  p.in = transpose ? m.out : m.in;
  p.out = transpose ? m.in : m.out;
  p.panels.resize(std::size_t(p.in) * p.out);
  for (int o = 0; o < p.out; ++o)
    for (int i = 0; i < p.in; ++i) p.panels[(std::size_t(o / 16) * p.in + i) * 16 + o % 16] = static_cast<T>(transpose ? m(o, i) : m(i, o));
  return p;
}

namespace detail {
template <class S, int W, int V, int RB>
ADATOM_INLINE void linear_block(const S* const* x, int x_offset, S* const* y, int y_offset, const PackedMatrix<Base<S>>& m, int c, bool accumulate) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  using T = Base<S>;
  N sum[RB][V];
  const T* panel[V];
  for (int v = 0; v < V; ++v) panel[v] = m.panels.data() + (std::size_t((c + v * W) / 16) * m.in) * 16 + (c + v * W) % 16;
  for (int r = 0; r < RB; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = accumulate ? L::load(y[r] + y_offset + c + v * W) : N(T(0));
  const S* row[RB];
  for (int r = 0; r < RB; ++r) row[r] = x[r] + x_offset;
  for (int i = 0; i < m.in; ++i) {
    decltype(L::load(panel[0])) w[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) w[v] = L::load(panel[v] + 16 * i);
#pragma GCC unroll 16
    for (int r = 0; r < RB; ++r) {
      const S s = row[r][i];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] = fma(sum[r][v], w[v], s);
    }
  }
  for (int r = 0; r < RB; ++r)
    for (int v = 0; v < V; ++v) L::store(y[r] + y_offset + c + v * W, sum[r][v]);
}

template <class S, int W, int V, int RB>
void linear_rows(int rows, const S* const* x, int x_offset, S* const* y, int y_offset, const PackedMatrix<Base<S>>& m, int c, bool accumulate) {
  int r = 0;
  for (; r + RB <= rows; r += RB) linear_block<S, W, V, RB>(x + r, x_offset, y + r, y_offset, m, c, accumulate);
  if constexpr (RB > 1)
    if (r < rows) linear_rows<S, W, V, (RB > 4 ? 4 : RB / 2)>(rows - r, x + r, x_offset, y + r, y_offset, m, c, accumulate);
}
}  // namespace detail

/// `rows` rows; row r reads x[r] + x_offset (m.in scalars) and writes y[r] + y_offset (m.out scalars).
/// RB: rows that are kept in registers, from the number of registers of the instruction set.
template <class S, int W, int RB>
void linear(int rows, const S* const* x, int x_offset, S* const* y, int y_offset, const PackedMatrix<Base<S>>& m, bool accumulate) {
  int c = 0;
  for (; c + 2 * W <= m.out; c += 2 * W) detail::linear_rows<S, W, 2, RB>(rows, x, x_offset, y, y_offset, m, c, accumulate);
  for (; c < m.out; c += W) detail::linear_rows<S, W, 1, RB>(rows, x, x_offset, y, y_offset, m, c, accumulate);
}

/// gradient[i][o] += sum over rows of the tangent of x[r][i] g[r][o], g: adjoint of y; `in`, `out`: multiples of 16.
template <class S, int W>
void linear_gradient(int rows, const S* const* x, const S* const* g, int in, int out, Base<S>* gradient) {
  using L = Lane<S, W>;
  using T = Base<S>;
  using H = Lane<T, W>;
  constexpr int IB = 8;
  for (int i = 0; i < in; i += IB)
    for (int o = 0; o < out; o += W) {
      typename H::Number sum[IB];
#pragma GCC unroll 8
      for (int k = 0; k < IB; ++k) sum[k] = H::load(gradient + std::ptrdiff_t(i + k) * out + o);
      for (int r = 0; r < rows; ++r) {
        const auto a = L::load(g[r] + o);
        const S* const b = x[r] + i;
#pragma GCC unroll 8
        for (int k = 0; k < IB; ++k) sum[k] = fma(fma(sum[k], a.d, b[k].v), a.v, b[k].d);
      }
#pragma GCC unroll 8
      for (int k = 0; k < IB; ++k) H::store(gradient + std::ptrdiff_t(i + k) * out + o, sum[k]);
    }
}

}  // namespace adatom::gnn
