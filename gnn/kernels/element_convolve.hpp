// SPDX-License-Identifier: MIT
// The first layer's convolution. Its senders' features depend on their element alone, so the sum over edges needs no channels: with radial functions
// R[k] = sum_c phi_c M[c, k],
//
//     A_i[lm, k] = sum over elements z  h_z[k] sum_c M[c, k] B_i[z][lm, c],        B_i[z][lm, c] = sum over edges to z  phi_c(r_e) Y_lm(e)
//
// B costs (functions c) instead of (channels k) per edge, 16 instead of 128, and what multiplies it is a constant matrix that also takes in
// h_z, the normalisation and the linear map of the message (Layer::element_linear). Lanes are the functions c. A run is the edges of a node to
// one element.
#pragma once
#include "gnn/kernels/convolve.hpp"

namespace adatom::gnn {

/// Runs of a tile's edges: run r has edges first[r] .. first[r+1]-1.
struct EdgeRuns {
  int runs;
  const int* first;  ///< [runs + 1]
};

/// B[run][lm][functions], (l_max+1)^2 rows.
template <class S, int W, int LMAX, class Rows>
void element_convolve(const EdgeTile<S>& tile, const EdgeRuns& runs, const Rows& radial, int functions, S* B) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  constexpr int lms = (LMAX + 1) * (LMAX + 1);
  for (int run = 0; run < runs.runs; ++run)
    for (int c = 0; c < functions; c += W) {
      N sum[lms];
      for (N& s : sum) s = N(Base<S>(0));
      for (int e = runs.first[run]; e < runs.first[run + 1]; ++e) {
        const S* record = tile.record + std::ptrdiff_t(e) * tile.record_size;
        const N phi = radial.template value<L>(record, tile.knot[e], e, c);
#pragma GCC unroll 16
        for (int lm = 0; lm < lms; ++lm) sum[lm] = fma(sum[lm], phi, record[record_Y + lm]);
      }
      for (int lm = 0; lm < lms; ++lm) L::store(B + (std::ptrdiff_t(run) * lms + lm) * functions + c, sum[lm]);
    }
}

/// Given G = dE/dB: adds dE/dY and dE/dr of each edge. dE/dphi_c = sum_lm G[lm, c] Y_lm has lanes c; dE/dY_lm = sum_c G[lm, c] phi_c has lanes lm, from
/// a transposed copy of the run's G, so that only dE/dr is a sum over lanes.
template <class S, int W, int LMAX, class Rows>
void element_convolve_reverse(const EdgeTile<S>& tile, const EdgeRuns& runs, const Rows& radial, int functions, const S* G, int gr) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  constexpr int lms = (LMAX + 1) * (LMAX + 1), vectors = (lms + W - 1) / W, row = vectors * W;
  constexpr int most = 256, chains = 4;  // chains: sums side by side, to hide the latency of the multiply-add
  alignas(64) S transposed[most * row], phi[most];
  for (int run = 0; run < runs.runs; ++run) {
    const S* g = G + std::ptrdiff_t(run) * lms * functions;
    for (int c = 0; c < functions; ++c)
      for (int lm = 0; lm < row; ++lm) transposed[c * row + lm] = lm < lms ? g[lm * functions + c] : S(Base<S>(0));
    for (int e = runs.first[run]; e < runs.first[run + 1]; ++e) {
      const S* record = tile.record + std::ptrdiff_t(e) * tile.record_size;
      N weights[2 * spline_taps], sum_r[1] = {N(Base<S>(0))}, sum_Y[chains][vectors];
      for (int n = 0; n < 2 * spline_taps; ++n) weights[n] = L::uniform(record[n]);
      for (auto& chain : sum_Y)
        for (N& s : chain) s = N(Base<S>(0));
      for (int c = 0; c < functions; c += W) {
        N f, slope, g_phi(Base<S>(0));
        radial.template value_and_slope<L>(weights, tile.knot[e], e, c, f, slope);
        L::store(phi + c, f);
#pragma GCC unroll 16
        for (int lm = 0; lm < lms; ++lm) g_phi = fma(g_phi, L::load(g + lm * functions + c), record[record_Y + lm]);
        sum_r[0] = fma(sum_r[0], g_phi, slope);
      }
      for (int c = 0; c < functions; c += chains)
#pragma GCC unroll 4
        for (int k = 0; k < chains; ++k)
          for (int v = 0; v < vectors; ++v) sum_Y[k][v] = fma(sum_Y[k][v], L::load(transposed + (c + k) * row + v * W), phi[c + k]);
      S total[1], g_Y[row];
      sum_over_lanes(sum_r, total);
      for (int v = 0; v < vectors; ++v) L::store(g_Y + v * W, (sum_Y[0][v] + sum_Y[1][v]) + (sum_Y[2][v] + sum_Y[3][v]));
      S* adjoint = tile.adjoint + std::ptrdiff_t(e) * tile.adjoint_size;
      for (int lm = 0; lm < lms; ++lm) adjoint[lm] = adjoint[lm] + g_Y[lm];
      adjoint[gr] = adjoint[gr] + total[0];
    }
  }
}

}  // namespace adatom::gnn
