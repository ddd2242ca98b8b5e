// SPDX-License-Identifier: MIT
#pragma once
#include <algorithm>
#include <vector>

#include "gnn/kernels/linear.hpp"

namespace adatom::gnn::cpu {

/// c (+)= a b, row major; see cpu_multiply in gnn/evaluator.hpp. By the kernel of linear maps, whose matrices have whole panels of 16 columns.
template <int W, int RB>
void multiply(int m, int k, int n, const double* a, const double* b, double* c, bool accumulate) {
  const int columns = (n + 15) / 16 * 16;
  PackedMatrix<double> packed;
  packed.in = k, packed.out = columns;
  packed.panels.assign(std::size_t(k) * columns, 0.0);
  for (int i = 0; i < k; ++i)
    for (int o = 0; o < n; ++o) packed.panels[(std::size_t(o / 16) * k + i) * 16 + o % 16] = b[std::size_t(i) * n + o];
  std::vector<double> sums(std::size_t(m) * columns);
  std::vector<const double*> x(m);
  std::vector<double*> y(m);
  for (int r = 0; r < m; ++r) x[r] = a + std::size_t(r) * k, y[r] = sums.data() + std::size_t(r) * columns;
  linear<double, W, RB>(m, x.data(), 0, y.data(), 0, packed, false);
  for (int r = 0; r < m; ++r)
    for (int o = 0; o < n; ++o) {
      double& to = c[std::size_t(r) * n + o];
      to = accumulate ? to + y[r][o] : y[r][o];
    }
}

}  // namespace adatom::gnn::cpu
