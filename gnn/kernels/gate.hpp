// SPDX-License-Identifier: MIT
// Gate of one node: scalars s -> factor act(s); rows of higher l -> (factor act(gate)) x. Lanes are channels.
#pragma once
#include "gnn/kernels/lane.hpp"
#include "gnn/kernels/radial.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn {

template <class S, int W>
void gate(const Gate& g, const S* in, S* out) {
  using L = Lane<S, W>;
  using T = Base<S>;
  for (const auto& s : g.scalars)
    for (int c = 0; c < s.channels; c += W) L::store(out + s.out + c, activate(s.activation, L::load(in + s.in + c)) * T(s.factor));
  for (const auto& b : g.gated)
    for (int c = 0; c < b.channels; c += W) {
      const auto a = activate(g.activation, L::load(in + b.gate + c)) * T(g.factor);
      for (int m = 0; m < b.rows; ++m) L::store(out + b.out + m * b.out_row + c, a * L::load(in + b.in + m * b.in_row + c));
    }
}

/// g_in (written) from g_out and the gate's input.
template <class S, int W>
void gate_reverse(const Gate& g, const S* in, const S* g_out, S* g_in) {
  using L = Lane<S, W>;
  using N = typename L::Number;
  using T = Base<S>;
  for (const auto& s : g.scalars)
    for (int c = 0; c < s.channels; c += W) {
      N y, slope;
      activate_with_slope(s.activation, L::load(in + s.in + c), y, slope);
      L::store(g_in + s.in + c, slope * T(s.factor) * L::load(g_out + s.out + c));
    }
  for (const auto& b : g.gated)
    for (int c = 0; c < b.channels; c += W) {
      N a, slope, sum(T(0));
      activate_with_slope(g.activation, L::load(in + b.gate + c), a, slope);
      a = a * T(g.factor);
      for (int m = 0; m < b.rows; ++m) {
        const N go = L::load(g_out + b.out + m * b.out_row + c);
        sum = sum + go * L::load(in + b.in + m * b.in_row + c);
        L::store(g_in + b.in + m * b.in_row + c, a * go);
      }
      L::store(g_in + b.gate + c, sum * slope * T(g.factor));
    }
}

}  // namespace adatom::gnn
