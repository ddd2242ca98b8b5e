// SPDX-License-Identifier: MIT
// Symmetric contraction; the polynomial is that of gnn/kernels/contract.hpp. A warp has 32 channels of four nodes of one species, so that a coefficient is
// read once for four nodes. The terms of a row are nested,
//
//     r_i = c_i + sum over a of x_a (c_ia + sum over b of c_iab x_b),
//
// so that each costs a multiply-add, one read of x_b from shared memory (four nodes at once) and one of the coefficient, and no products have to be kept.
#pragma once
#include "gnn/cuda/portable.hpp"

namespace adatom::gnn::cuda {

/// Rows of a component as a list of numbers: rows; for each row: input, groups; for each group: a, terms, then b of each term. Coefficients in the order of
/// the list: one of the row, one of each group, one of each term.
template <class T>
struct ContractionProgram {
  const int* list;
  const T* coefficients;  ///< [species or 1][count][channels]
  int count;
  bool per_species;
};

template <class T>
struct ContractionPart {
  int out;  ///< offset of the row in the contraction's output
  ContractionProgram<T> value, gradient;
};

/// Up to four neighbouring nodes of one species.
struct NodeGroup {
  int first, count;
};
inline constexpr int nodes_per_group = 4;

template <class S>
struct ContractionInput {
  using T = Base<S>;
  const NodeGroup* groups = nullptr;
  const int* species = nullptr;  ///< [nodes]
  const ContractionPart<T>* parts = nullptr;
  const int* inputs = nullptr;  ///< offset in the message of each x_i's row
  int part_count = 0, input_count = 0, channels = 0, in_size = 0, out_size = 0;
  const S* message = nullptr;  ///< [nodes][in_size]

  using Four = Pack<S, nodes_per_group>;
  ADATOM_DEVICE int channel_blocks() const { return (channels + warp_size - 1) / warp_size; }

  /// Loads x of this thread's channel.
  ADATOM_DEVICE void load_inputs(const NodeGroup& group, int lane, int channel, Four* x) const {
    for (int i = 0; i < input_count; ++i) {
      Four four;
      ADATOM_UNROLL
      for (int q = 0; q < nodes_per_group; ++q) four[q] = q < group.count ? message[std::size_t(group.first + q) * in_size + inputs[i] + channel] : S(T(0));
      x[i * warp_size + lane] = four;
    }
  }
  /// Calls body(i, r_i) for the rows of a program.
  template <class Body>
  ADATOM_DEVICE void rows(const ContractionProgram<T>& program, int z, int lane, int channel, const Four* x, Body body) const {
    const T* c = program.coefficients + std::size_t(program.per_species ? z : 0) * program.count * channels + channel;
    const int* list = program.list;
    const int count = *list++;
    for (int row = 0; row < count; ++row) {
      const int input = *list++, sums = *list++;
      Four r;
      ADATOM_UNROLL
      for (int q = 0; q < nodes_per_group; ++q) r[q] = S(*c);
      c += channels;
      for (int group = 0; group < sums; ++group) {
        const int a = *list++, terms = *list++;
        Four s;
        ADATOM_UNROLL
        for (int q = 0; q < nodes_per_group; ++q) s[q] = S(*c);
        c += channels;
        for (int term = 0; term < terms; ++term, c += channels) {
          const Four xb = x[*list++ * warp_size + lane];
          const T w = *c;
          ADATOM_UNROLL
          for (int q = 0; q < nodes_per_group; ++q) s[q] = fma(s[q], xb[q], w);
        }
        const Four xa = x[a * warp_size + lane];
        ADATOM_UNROLL
        for (int q = 0; q < nodes_per_group; ++q) r[q] = fma(r[q], xa[q], s[q]);
      }
      body(input, r);
    }
  }
};

template <class S>
struct Contract {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using In = ContractionInput<S>;
  In in;
  S* out = nullptr;  ///< [nodes][out_size]

  static std::size_t shared(int inputs) { return shared_bytes<typename In::Four>(inputs * warp_size); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int blocks = in.channel_blocks();
    const NodeGroup group = in.groups[team.index() / blocks];
    const int first_channel = static_cast<int>(team.index() % blocks) * warp_size, z = in.species[group.first];
    auto* x = team.template shared<typename In::Four>(in.input_count * warp_size);
    team.each([&](int lane) {
      const int channel = first_channel + lane;
      if (channel >= in.channels) return;
      in.load_inputs(group, lane, channel, x);
      for (int p = 0; p < in.part_count; ++p) {
        typename In::Four sum;
        ADATOM_UNROLL
        for (int q = 0; q < nodes_per_group; ++q) sum[q] = S(Base<S>(0));
        in.rows(in.parts[p].value, z, lane, channel, x, [&](int i, const typename In::Four& r) {
          const typename In::Four xi = x[i * warp_size + lane];
          ADATOM_UNROLL
          for (int q = 0; q < nodes_per_group; ++q) sum[q] = fma(sum[q], xi[q], r[q]);
        });
        for (int q = 0; q < group.count; ++q) out[std::size_t(group.first + q) * in.out_size + in.parts[p].out + channel] = sum[q];
      }
    });
  }
};

/// gmessage (written) from the adjoint of the output.
template <class S>
struct ContractReverse {
  static constexpr bool one_warp = true;
  static constexpr int most_threads = 128;
  using In = ContractionInput<S>;
  In in;
  const S* gout = nullptr;  ///< [nodes][out_size]
  S* gmessage = nullptr;    ///< [nodes][in_size]

  static std::size_t shared(int inputs) { return 2 * shared_bytes<typename In::Four>(inputs * warp_size); }

  ADATOM_DEVICE void operator()(WarpTeam& team) const {
    const int blocks = in.channel_blocks();
    const NodeGroup group = in.groups[team.index() / blocks];
    const int first_channel = static_cast<int>(team.index() % blocks) * warp_size, z = in.species[group.first];
    auto* x = team.template shared<typename In::Four>(in.input_count * warp_size);
    auto* gx = team.template shared<typename In::Four>(in.input_count * warp_size);
    team.each([&](int lane) {
      const int channel = first_channel + lane;
      if (channel >= in.channels) return;
      in.load_inputs(group, lane, channel, x);
      for (int i = 0; i < in.input_count; ++i) ADATOM_UNROLL
      for (int q = 0; q < nodes_per_group; ++q) gx[i * warp_size + lane][q] = S(Base<S>(0));
      for (int p = 0; p < in.part_count; ++p) {
        typename In::Four g;
        ADATOM_UNROLL
        for (int q = 0; q < nodes_per_group; ++q)
          g[q] = q < group.count ? gout[std::size_t(group.first + q) * in.out_size + in.parts[p].out + channel] : S(Base<S>(0));
        in.rows(in.parts[p].gradient, z, lane, channel, x, [&](int i, const typename In::Four& r) {
          typename In::Four& to = gx[i * warp_size + lane];
          ADATOM_UNROLL
          for (int q = 0; q < nodes_per_group; ++q) to[q] = fma(to[q], g[q], r[q]);
        });
      }
      for (int i = 0; i < in.input_count; ++i)
        for (int q = 0; q < group.count; ++q) gmessage[std::size_t(group.first + q) * in.in_size + in.inputs[i] + channel] = gx[i * warp_size + lane][q];
    });
  }
};

}  // namespace adatom::gnn::cuda
