// SPDX-License-Identifier: MIT
// What follows the message of a node: symmetric contraction and readouts.
#pragma once
#include "gnn/cpu/gradient.hpp"
#include "gnn/kernels/contract.hpp"
#include "gnn/kernels/gate.hpp"

namespace adatom::gnn::cpu {

template <int NB>
using GroupSize = std::integral_constant<int, NB>;
template <class S, int W, int NB>
GroupSize<NB> group_size(const ContractionInputs<S, W, NB>&) {
  return {};
}

/// Calls body(element, k, inputs, nodes) for every group of up to four nodes of one element and every vector of channels.
template <class S, int W, class Body>
void for_contractions(const PackedLayer<Base<S>>& layer, int elements, int nodes, const int* species, const S* message, Body body) {
  const Contraction& c = layer.spec->contraction;
  const std::size_t in = layer.spec->message_layout.size;
  for (int z = 0; z < elements; ++z) {
    int list[tile_nodes], n = 0;
    for (int i = 0; i < nodes; ++i)
      if (species[i] == z) list[n++] = i;
    for (int k = 0; n && k < c.channels; k += W) {
      const S* x[4];
      int b = 0;
      const auto point = [&](int count) {
        for (int q = 0; q < count; ++q) x[q] = message + list[b + q] * in + k;
      };
      for (; b + 4 <= n; b += 4) point(4), body(z, k, ContractionInputs<S, W, 4>(c, x), list + b);
      for (; b < n; ++b) point(1), body(z, k, ContractionInputs<S, W, 1>(c, x), list + b);
    }
  }
}

/// Contracted features from the messages; with keeps_gradient the messages are replaced by the gradients.
template <class S, int W>
void contract_all(const PackedLayer<Base<S>>& layer, int elements, int nodes, const int* species, S* message, S* contracted) {
  using L = Lane<S, W>;
  const Contraction& c = layer.spec->contraction;
  const std::size_t in = layer.spec->message_layout.size, out = c.out.size;
  for_contractions<S, W>(layer, elements, nodes, species, message, [&](int z, int k, const auto& inputs, const int* list) {
    constexpr int NB = decltype(group_size(inputs))::value;
    for (const auto& p : layer.components) {
      S* y[NB];
      for (int q = 0; q < NB; ++q) y[q] = contracted + list[q] * out + p.out + k;
      contract<S, W, NB>(inputs, *p.value.rows, p.value.at(z, k), y);
    }
    if (!layer.keeps_gradient) return;
    const auto& p = layer.components[0];
    S* y[NB];
    for (int q = 0; q < NB; ++q) {
      y[q] = message + list[q] * in + k;
      for (const int offset : c.inputs) L::store(y[q] + offset, typename L::Number(Base<S>(0)));
    }
    contract_gradient<S, W, NB>(inputs, *p.gradient.rows, p.gradient.at(z, k), c.inputs.data(), y);
  });
}

/// Adjoint of the messages (zero before). `message`: as contract_all left it. With `buffers` also the gradient of the weights.
template <class S, int W>
void contract_all_reverse(const PackedLayer<Base<S>>& layer, int elements, int nodes, const int* species, const S* message, const S* gcontracted, S* gmessage,
                          const GradientBuffers<Base<S>>* buffers, [[maybe_unused]] Base<S>* gradient) {
  using L = Lane<S, W>;
  const Contraction& c = layer.spec->contraction;
  const std::size_t in = layer.spec->message_layout.size, out = c.out.size;
  if (layer.keeps_gradient) {
    for (int i = 0; i < nodes; ++i) {
      const S* g = gcontracted + i * out + layer.components[0].out;
      for (const int offset : c.inputs) {
        const S* x = message + i * in + offset;
        S* to = gmessage + i * in + offset;
        for (int k = 0; k < c.channels; k += W) L::store(to + k, L::load(g + k) * L::load(x + k));
      }
    }
    return;
  }
  for_contractions<S, W>(layer, elements, nodes, species, message, [&](int z, int k, const auto& inputs, const int* list) {
    constexpr int NB = decltype(group_size(inputs))::value;
    std::size_t n = 0;
    for (const auto& p : layer.components) {
      const S* g[NB];
      S* gx[NB];
      for (int q = 0; q < NB; ++q) g[q] = gcontracted + list[q] * out + p.out + k, gx[q] = gmessage + list[q] * in + k;
      contract_reverse<S, W, NB>(inputs, *p.gradient.rows, p.gradient.at(z, k), c.inputs.data(), g, gx);
      if constexpr (is_dual<S>)
        if (buffers) {
          const ContractionComponent& component = c.components[n];
          const std::size_t at = buffers->offset(component.ids[component.ids.size() > 1 ? z : 0]);
          contract_weight_gradient<S, W, NB>(inputs, *p.value.rows, g, gradient + at + (k / 16) * p.value.panel + k % 16);
        }
      ++n;
    }
  });
}

/// Energy of a node from its features h; adds seed * dE/dh to g. In double, with weights in double: the energy of an atom is a small sum of large terms.
/// With `buffers` also the gradient of the weights.
template <class S, int W>
SumOf<S> readout(const PackedReadout<Base<S>>& r, const S* h, S* g, SumOf<S> seed, bool reverse, const GradientBuffers<Base<S>>* buffers, Workspace<S>& w) {
  using L = Lane<S, W>;
  using Sum = SumOf<S>;
  Sum* pre = need(w.hidden, 3 * r.hidden);  // inputs of the activations, then their outputs, then adjoints
  Sum* post = pre + r.hidden;
  Sum* adjoint = post + r.hidden;
  const std::size_t first = r.rows.size();
  for (std::size_t o = 0; o < first; ++o) {
    Sum sum[8] = {};
    for (int c = 0; c < r.channels; c += 8)
      for (int k = 0; k < 8; ++k) sum[k] = sum[k] + widen(h[r.in + c + k]) * r.exact_rows[o][c + k];
    pre[o] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])) + r.bias[o];
  }
  std::size_t at = 0;
  for (const ReadoutLayer& l : r.layers) {  // the others: few scalars
    for (int i = 0; i < l.in; ++i) post[at + i] = activate(r.activation, pre[at + i]);
    for (int o = 0; o < l.out; ++o) {
      Sum sum(l.bias.empty() ? 0.0 : l.bias[o]);
      for (int i = 0; i < l.in; ++i) sum = sum + post[at + i] * l.weight[std::size_t(i) * l.out + o];
      pre[at + l.in + o] = sum;
    }
    at += l.in;
  }
  const Sum energy = pre[at];
  if (!reverse) return energy;
  adjoint[at] = seed;
  for (std::size_t n = r.layers.size(); n-- > 0;) {
    const ReadoutLayer& l = r.layers[n];
    if constexpr (is_dual<S>)
      if (buffers) {
        auto* weight = w.gradient + buffers->offset(r.spec->weight_ids[n + 1]);
        for (int i = 0; i < l.in; ++i)
          for (int o = 0; o < l.out; ++o) weight[std::size_t(i) * l.out + o] += static_cast<Base<S>>(tangent_of_product(post[at - l.in + i], adjoint[at + o]));
        if (r.spec->bias_ids[n + 1] >= 0)
          for (int o = 0; o < l.out; ++o) w.gradient[buffers->offset(r.spec->bias_ids[n + 1]) + o] += static_cast<Base<S>>(adjoint[at + o].d);
      }
    for (int i = 0; i < l.in; ++i) {
      Sum sum(0), y, slope;
      for (int o = 0; o < l.out; ++o) sum = sum + adjoint[at + o] * l.weight[std::size_t(i) * l.out + o];
      activate_with_slope(r.activation, pre[at - l.in + i], y, slope);
      adjoint[at - l.in + i] = sum * slope;
    }
    at -= l.in;
  }
  if constexpr (is_dual<S>)
    if (buffers) {
      auto* weight = w.gradient + buffers->offset(r.spec->weight_ids[0]);
      for (std::size_t o = 0; o < first; ++o) {
        for (int c = 0; c < r.channels; ++c) weight[c * first + o] += static_cast<Base<S>>(tangent_of_product(widen(h[r.in + c]), adjoint[o]));
        if (r.spec->bias_ids[0] >= 0) w.gradient[buffers->offset(r.spec->bias_ids[0]) + o] += static_cast<Base<S>>(adjoint[o].d);
      }
    }
  for (int c = 0; c < r.channels; c += W) {
    typename L::Number sum = L::load(g + r.in + c);
    for (std::size_t o = 0; o < first; ++o) sum = sum + L::load(&r.rows[o][c]) * narrow<S>(adjoint[o]);
    L::store(g + r.in + c, sum);
  }
  return energy;
}

}  // namespace adatom::gnn::cpu
