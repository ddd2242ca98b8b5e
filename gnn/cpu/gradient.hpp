// SPDX-License-Identifier: MIT
// Where gradients of weights are summed.
//
// Chunks of receivers are dealt out to a fixed number of groups; a thread works through a whole group and adds into the group's buffer, and the buffers are
// summed in order at the end: the same bits for any number of threads.
#pragma once
#include "gnn/cpu/weights.hpp"
#include "gnn/cpu/workspace.hpp"
#include "gnn/threads.hpp"

namespace adatom::gnn::cpu {

template <class T>
class GradientBuffers {
 public:
  static constexpr int groups = 8;

  explicit GradientBuffers(const Network& network) : network_(network) {
    for (const std::size_t size : network.array_sizes) {
      offset_.push_back(size_);
      size_ += padded(static_cast<int>(size));
    }
  }

  void clear() { values_.assign(groups * size_, T(0)); }
  T* group(int g) { return values_.data() + g * size_; }
  std::size_t offset(int id) const { return offset_[id]; }

  /// Sums of all groups, in the order of the network's arrays.
  void collect(ArrayGradients& gradient, Threads& team, int threads) const {
    gradient.resize(offset_.size());
    for (std::size_t id = 0; id < offset_.size(); ++id) gradient[id].resize(network_.array_sizes[id]);
    parallel_for(team, threads, static_cast<std::int64_t>(offset_.size()), 1, [&](std::int64_t id, std::int64_t, int) {
      for (std::size_t k = 0; k < gradient[id].size(); ++k) {
        double sum = 0.0;
        for (int g = 0; g < groups; ++g) sum += values_[g * size_ + offset_[id] + k];
        gradient[id][k] = sum;
      }
    });
    for (const Layer& layer : network_.layers) {
      for (const SplineTable* table : {&layer.table, &layer.density_table})
        if (table->id >= 0) unpack_table(*table, gradient[table->id]);
      for (const ContractionComponent& c : layer.contraction.components)
        for (const int id : c.ids) unpack_blocks(c.value.coefficients, layer.contraction.channels, gradient[id]);
    }
  }

  std::size_t bytes() const { return bytes_of(values_); }

 private:
  /// [block of 16][rows][16] -> [rows][channels]
  static void unpack_blocks(int rows, int channels, std::vector<double>& x) {
    const std::vector<double> packed = x;
    for (int k = 0; k < channels; ++k)
      for (int i = 0; i < rows; ++i) x[std::size_t(i) * channels + k] = packed[(std::size_t(k / 16) * rows + i) * 16 + k % 16];
  }
  /// [block of 16][pair][rows][16] -> [pair][rows][functions]
  static void unpack_table(const SplineTable& table, std::vector<double>& x) {
    unpack_blocks(static_cast<int>(table.coefficients.size()) * table.rows, table.functions, x);
  }

  const Network& network_;
  std::vector<std::size_t> offset_;
  std::size_t size_ = 0;
  AlignedVector<T> values_;
};

}  // namespace adatom::gnn::cpu
