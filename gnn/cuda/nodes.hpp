// SPDX-License-Identifier: MIT
// What is done node by node: gates, normalisation by the density of edges, skips of the first layer, readouts, and rows on their way to and from a halo.
#pragma once
#include "gnn/cuda/graph.hpp"
#include "gnn/network.hpp"

namespace adatom::gnn::cuda {

// ---------------------------------------------------------------------------------------------------------------- gates
template <class T>
struct DeviceGate {
  const Gate::Scalars* scalars = nullptr;
  const Gate::Gated* gated = nullptr;
  int scalar_count = 0, gated_count = 0;
  Activation activation = Activation::silu;
  T factor = 1;
};

/// As gate() of gnn/kernels/gate.hpp. A warp per node.
template <class S>
struct ApplyGate {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  DeviceGate<T> gate;
  const S* in = nullptr;  ///< [nodes][in_size]
  int in_size = 0;
  S* out = nullptr;  ///< [nodes][out_size]
  int out_size = 0;

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const S* x = in + std::size_t(team.index()) * in_size;
    S* y = out + std::size_t(team.index()) * out_size;
    team.each([&](int lane) {
      for (int k = 0; k < gate.scalar_count; ++k) {
        const Gate::Scalars s = gate.scalars[k];
        for (int c = lane; c < s.channels; c += warp_size) y[s.out + c] = scalar(activate(s.activation, number(x[s.in + c]))) * T(s.factor);
      }
      for (int k = 0; k < gate.gated_count; ++k) {
        const Gate::Gated b = gate.gated[k];
        for (int c = lane; c < b.channels; c += warp_size) {
          const S a = scalar(activate(gate.activation, number(x[b.gate + c]))) * gate.factor;
          for (int m = 0; m < b.rows; ++m) y[b.out + m * b.out_row + c] = a * x[b.in + m * b.in_row + c];
        }
      }
    });
  }
};

/// As gate_reverse() of gnn/kernels/gate.hpp: gin (written) from gout and the gate's input.
template <class S>
struct ReverseGate {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  DeviceGate<T> gate;
  const S *in = nullptr, *gout = nullptr;
  S* gin = nullptr;
  int in_size = 0, out_size = 0;

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const S* x = in + std::size_t(team.index()) * in_size;
    S* gx = gin + std::size_t(team.index()) * in_size;
    const S* gy = gout + std::size_t(team.index()) * out_size;
    team.each([&](int lane) {
      for (int k = 0; k < gate.scalar_count; ++k) {
        const Gate::Scalars s = gate.scalars[k];
        for (int c = lane; c < s.channels; c += warp_size) {
          NumberOf<S> y, slope;
          activate_with_slope(s.activation, number(x[s.in + c]), y, slope);
          gx[s.in + c] = scalar(slope) * T(s.factor) * gy[s.out + c];
        }
      }
      for (int k = 0; k < gate.gated_count; ++k) {
        const Gate::Gated b = gate.gated[k];
        for (int c = lane; c < b.channels; c += warp_size) {
          NumberOf<S> y, slope;
          activate_with_slope(gate.activation, number(x[b.gate + c]), y, slope);
          const S a = scalar(y) * gate.factor;
          S sum(T(0));
          for (int m = 0; m < b.rows; ++m) {
            const S go = gy[b.out + m * b.out_row + c];
            sum = fma(sum, go, x[b.in + m * b.in_row + c]);
            gx[b.in + m * b.in_row + c] = a * go;
          }
          gx[b.gate + c] = sum * scalar(slope) * gate.factor;
        }
      }
    });
  }
};

// -------------------------------------------------------------------------------------------------------------- density
/// Divides the message by 1 + rho, rho = sum of the densities of the edges. A warp per receiver.
template <class S>
struct Normalize {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  DeviceGraph g;
  const EdgeVector<S>* vectors = nullptr;
  DeviceTable<T> table;
  const S* values = nullptr;  ///< without splines: [edges][2] density and its slope
  S* inverse = nullptr;       ///< [receivers] 1 / (1 + rho)
  S* message = nullptr;
  int size = 0;

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int i = static_cast<int>(team.index());
    auto rho = team.template local<S>();
    team.each([&](int lane) {
      rho[lane] = S(T(0));
      for (int e = g.first_edge[i] + lane; e < g.first_edge[i + 1]; e += warp_size) {
        const EdgeVector<S> v = vectors[e];
        if (!is_active(v)) continue;
        S value, slope;
        density(g, table, values, i, e, v, value, slope);
        rho[lane] = rho[lane] + value;
      }
    });
    team.warps([&](const Warp& warp) {
      const S factor = T(1) / (warp.sum(rho) + T(1));
      warp.each([&](int lane) {
        if (lane == 0) inverse[i] = factor;
        for (int k = lane; k < size; k += warp_size) message[std::size_t(i) * size + k] = message[std::size_t(i) * size + k] * factor;
      });
    });
  }

  ADATOM_DEVICE static void density(const DeviceGraph& g, const DeviceTable<T>& table, const S* values, int i, int e, const EdgeVector<S>& v, S& value,
                                    S& slope) {
    if (values) {
      value = values[2 * std::size_t(e)], slope = values[2 * std::size_t(e) + 1];
      return;
    }
    S w[spline_taps], dw[spline_taps];
    const int row = table.weights(v[3], g.pair(g.species[i], g.species[g.sender[e]]), w, dw);
    value = slope = S(T(0));
    for (int n = 0; n < spline_taps; ++n) {
      const T c = table.data[std::size_t(row + n) * table.functions];
      value = fma(value, w[n], c), slope = fma(slope, dw[n], c);
    }
  }
};

/// m = raw / (1 + rho): dE/drho = -sum m dE/dm / (1 + rho), dE/draw = dE/dm / (1 + rho).
template <class S>
struct ReverseNormalize {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  DeviceGraph g;
  const EdgeVector<S>* vectors = nullptr;
  DeviceTable<T> table;
  const S* values = nullptr;
  const S *inverse = nullptr, *message = nullptr;
  S* gmessage = nullptr;
  int size = 0;
  SumOf<S>* edge_forces = nullptr;  ///< null where they are not wanted
  S* grho = nullptr;                ///< null, or [receivers] dE/drho

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int i = static_cast<int>(team.index());
    auto part = team.template local<S>();
    team.each([&](int lane) {
      part[lane] = S(T(0));
      for (int k = lane; k < size; k += warp_size) {
        S& gm = gmessage[std::size_t(i) * size + k];
        part[lane] = part[lane] - gm * message[std::size_t(i) * size + k];
        gm = gm * inverse[i];
      }
    });
    team.warps([&](const Warp& warp) {
      const S own = warp.sum(part) * inverse[i];
      warp.each([&](int lane) {
        if (grho && lane == 0) grho[i] = own;
        if (!edge_forces) return;
        for (int e = g.first_edge[i] + lane; e < g.first_edge[i + 1]; e += warp_size) {
          const EdgeVector<S> v = vectors[e];
          if (!is_active(v)) continue;
          S value, slope;
          Normalize<S>::density(g, table, values, i, e, v, value, slope);
          const S f = own * slope / v[3];
          for (int a = 0; a < 3; ++a) {
            SumOf<S>& to = edge_forces[3 * std::size_t(e) + a];
            to = to + widen(S(f * v[a]));
          }
        }
      });
    });
  }
};

// -------------------------------------------------------------------------------------------------------------- species
/// y[node] (+)= row of the node's species.
template <class S>
struct AddSpeciesRow {
  const int* species = nullptr;
  const Base<S>* rows = nullptr;  ///< [species][size]
  S* y = nullptr;                 ///< [nodes][size]
  int size = 0;
  bool accumulate = true;

  ADATOM_DEVICE void operator()(std::int64_t k) const {
    const Base<S> x = rows[std::size_t(species[k / size]) * size + k % size];
    y[k] = accumulate ? y[k] + x : S(x);
  }
};

/// Adds a bias to some columns: of a map whose bias has no matrix beside it.
template <class S>
struct AddBias {
  const Base<S>* bias = nullptr;  ///< [count]
  int offset = 0, count = 0, size = 0;
  S* y = nullptr;  ///< [nodes][size]

  ADATOM_DEVICE void operator()(std::int64_t k) const {
    S& to = y[std::size_t(k / count) * size + offset + k % count];
    to = to + bias[k % count];
  }
};

// ------------------------------------------------------------------------------------------------------------- readouts
struct ReadoutStep {
  int in, out;
  const double *weight, *bias;  ///< [in][out]; [out] or null
};

/// Adds the energy of a readout, and writes its adjoint of the features' 0e row, as readout() of gnn/cpu/update.hpp. In double: the energy of an atom is a
/// small sum of large terms. A warp per node.
template <class S>
struct ApplyReadout {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using T = Base<S>;
  using Sum = SumOf<S>;
  const int* species = nullptr;
  const double* scale = nullptr;  ///< [species]
  const ReadoutStep* steps = nullptr;
  int step_count = 0, hidden = 0;  ///< hidden: outputs of all steps
  Activation activation = Activation::silu;
  const S* h = nullptr;  ///< [nodes][size]
  S* gh = nullptr;       ///< the same; null without the reverse pass
  int size = 0, in = 0;  ///< in: offset of the 0e row
  Sum* energies = nullptr;
  // For gradients of weights, of dual scalars.
  const double* loss = nullptr;              ///< dL/dE of the atoms, in the caller's order
  const int* node = nullptr;                 ///< [nodes] number in the caller's graph
  Sum *kept_x = nullptr, *kept_g = nullptr;  ///< [nodes][kept_size], [nodes][hidden]: inputs of the steps side by side, adjoints of their outputs
  int kept_size = 0;

  static std::size_t shared(int hidden) { return 2 * shared_bytes<Sum>(hidden); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const std::size_t i = team.index();
    const ReadoutStep first = steps[0];
    const S* x = h + i * size + in;
    Sum* pre = team.template shared<Sum>(hidden);  // inputs of the activations
    Sum* adjoint = team.template shared<Sum>(hidden);
    auto sum = team.template local<Array<Sum, 1>>();
    for (int o = 0; o < first.out; ++o) {
      team.each([&](int lane) {
        sum[lane][0] = Sum(0.0);
        for (int c = lane; c < first.in; c += warp_size) sum[lane][0] = sum[lane][0] + widen(x[c]) * first.weight[std::size_t(c) * first.out + o];
      });
      team.warps([&](const Warp& warp) { warp.sum_to(sum, pre + o); });
    }
    team.each([&](int lane) {
      if (lane == 0) finish(i, pre, adjoint);
    });
    if (gh)
      team.each([&](int lane) {
        for (int c = lane; c < first.in; c += warp_size) {
          S g(T(0));
          for (int o = 0; o < first.out; ++o) g = g + narrow<S>(adjoint[o]) * static_cast<T>(first.weight[std::size_t(c) * first.out + o]);
          gh[i * size + in + c] = g;
          if (kept_x) kept_x[i * kept_size + c] = widen(x[c]);
        }
      });
  }

 private:
  /// The steps after the first, and back to it.
  ADATOM_DEVICE void finish(std::size_t i, Sum* pre, Sum* adjoint) const {
    if (steps[0].bias)
      for (int o = 0; o < steps[0].out; ++o) pre[o] = pre[o] + steps[0].bias[o];
    int at = 0;
    for (int n = 1; n < step_count; ++n) {
      const ReadoutStep l = steps[n];
      for (int o = 0; o < l.out; ++o) pre[at + l.in + o] = Sum(l.bias ? l.bias[o] : 0.0);
      for (int k = 0; k < l.in; ++k) {
        const Sum y = activate(activation, pre[at + k]);
        if (kept_x) kept_x[i * kept_size + steps[0].in + at + k] = y;
        for (int o = 0; o < l.out; ++o) pre[at + l.in + o] = pre[at + l.in + o] + y * l.weight[std::size_t(k) * l.out + o];
      }
      at += l.in;
    }
    energies[i] = energies[i] + pre[at];
    if (!gh) return;
    adjoint[at] = Sum(scale[species[i]]);
    if constexpr (is_dual<S>)
      if (loss) adjoint[at].d = scale[species[i]] * loss[node[i]];
    for (int n = step_count - 1; n > 0; --n) {
      const ReadoutStep l = steps[n];
      for (int k = 0; k < l.in; ++k) {
        Sum total(0.0), y, slope;
        for (int o = 0; o < l.out; ++o) total = total + adjoint[at + o] * l.weight[std::size_t(k) * l.out + o];
        activate_with_slope(activation, pre[at - l.in + k], y, slope);
        adjoint[at - l.in + k] = total * slope;
      }
      at -= l.in;
    }
    for (int o = 0; kept_g && o < hidden; ++o) kept_g[i * hidden + o] = adjoint[o];
  }
};

/// Energies of atoms, in the caller's order.
template <class S>
struct CollectEnergies {
  DeviceGraph g;
  const double *offset = nullptr, *scale = nullptr;  ///< [species]; null for weighted sums of features, which have neither
  const SumOf<S>* energies = nullptr;
  double* to = nullptr;

  ADATOM_DEVICE void operator()(std::int64_t i) const {
    const double e = value(energies[i]);
    to[g.node[i]] = offset ? offset[g.species[i]] + scale[g.species[i]] * e : e;
  }
};

// ------------------------------------------------------------------------------------------------------- rows of a halo
/// packed[k] = row rows[k].
template <class S>
struct PackRows {
  const int* rows = nullptr;  ///< [packed]
  const S* from = nullptr;
  S* packed = nullptr;
  int size = 0;

  ADATOM_DEVICE void operator()(std::int64_t k) const { packed[k] = from[std::size_t(rows[k / size]) * size + k % size]; }
};

/// Adds packed rows to the rows that they belong to, those of a row in their order.
template <class S>
struct AddPackedRows {
  const int *rows = nullptr, *first = nullptr, *packed_rows = nullptr;  ///< [distinct rows]; [+ 1] into packed_rows, which is [packed]
  const S* packed = nullptr;
  S* to = nullptr;
  int size = 0;

  ADATOM_DEVICE void operator()(std::int64_t k) const {
    const int n = static_cast<int>(k / size), column = static_cast<int>(k % size);
    S& own = to[std::size_t(rows[n]) * size + column];
    S sum = own;
    for (int p = first[n]; p < first[n + 1]; ++p) sum = sum + packed[std::size_t(packed_rows[p]) * size + column];
    own = sum;
  }
};

/// Rows of nodes to the caller's order, or from it.
template <class S>
struct MoveRows {
  const int* node = nullptr;  ///< [nodes] number in the caller's graph
  const S* from = nullptr;
  S* to = nullptr;
  int size = 0;
  bool to_caller = true;

  ADATOM_DEVICE void operator()(std::int64_t k) const {
    const std::size_t own = k, other = std::size_t(node[k / size]) * size + k % size;
    if (to_caller)
      to[other] = from[own];
    else
      to[own] = from[other];
  }
};

}  // namespace adatom::gnn::cuda
