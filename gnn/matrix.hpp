// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <vector>

namespace adatom::gnn {

/// Channels of a row are padded to a multiple of this, so that every vector width divides it. Padded channels are zero throughout.
inline constexpr int channel_block = 16;
constexpr int padded(int channels) { return (channels + channel_block - 1) / channel_block * channel_block; }

/// A dense matrix [in][out], in and out padded. Here and below, `id`: number of the array in a network that is assembled for training
/// (Network::array_sizes), where its gradient goes; -1 in others.
struct Matrix {
  int in = 0, out = 0;
  std::vector<double> weight;
  int id = -1;
  Matrix() = default;
  Matrix(int in_, int out_) : in(in_), out(out_), weight(std::size_t(in_) * out_) {}
  double& operator()(int i, int o) { return weight[std::size_t(i) * out + o]; }
  double operator()(int i, int o) const { return weight[std::size_t(i) * out + o]; }
};

}  // namespace adatom::gnn
