// SPDX-License-Identifier: MIT
#include "gnn/assembly.hpp"

#include <algorithm>

namespace adatom::gnn {

void SpeciesStep::forward(const double* tensors) {
  for (std::size_t z = 0; z < y.size(); ++z) {
    const double* x = tensors + embedding[z];
    std::fill_n(y[z], size, 0.0);
    for (const LinearPart& part : map.parts) {
      if (!of_scalars(part)) continue;
      const Matrix& m = matrix(part, z);
      for (std::size_t i = 0; i < channels.size(); ++i)
        for (int o = 0; o < m.out; ++o) y[z][part.out + o] += x[i] * m(channels[i], o);
    }
    for (std::size_t k = 0; k < map.bias.size(); ++k) y[z][map.bias_offset + k] += map.bias[k];
  }
}

void SpeciesStep::reverse(const double* tensors, ArrayGradients& arrays, double* gradient) const {
  for (std::size_t z = 0; z < y.size(); ++z) {
    const double *x = tensors + embedding[z], *g = &arrays[id][z * size];
    for (const LinearPart& part : map.parts) {
      if (!of_scalars(part)) continue;
      const Matrix& m = matrix(part, z);
      std::vector<double>& g_matrix = arrays[m.id];
      for (std::size_t i = 0; i < channels.size(); ++i) {
        double sum = 0.0;
        for (int o = 0; o < m.out; ++o) {
          sum += g[part.out + o] * m(channels[i], o);
          g_matrix[std::size_t(channels[i]) * m.out + o] += x[i] * g[part.out + o];
        }
        gradient[embedding[z] + i] += sum;
      }
    }
    for (std::size_t k = 0; k < map.bias.size(); ++k) arrays[map.bias_id][k] += g[map.bias_offset + k];
  }
}

}  // namespace adatom::gnn
