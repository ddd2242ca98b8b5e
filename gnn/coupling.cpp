// SPDX-License-Identifier: MIT
#include "gnn/coupling.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace adatom::gnn {
namespace {

// ---- Wigner 3j ----

constexpr int max_degree_sum = 60;  // of l1 + l2 + l3: the integer sum below stays under 2^60

std::int64_t binomial(int n, int k) {
  if (k < 0 || k > n) return 0;
  std::int64_t value = 1;
  for (int i = 1; i <= k; ++i) value = value * (n - k + i) / i;
  return value;
}

long double factorial(int n) {
  long double value = 1;
  for (int i = 2; i <= n; ++i) value *= i;
  return value;
}

/// SU(2) Clebsch-Gordan coefficient <l1 m1 l2 m2 | l3 m1+m2> / sqrt(2 l3 + 1) by Racah's formula (Edmonds, Angular Momentum in Quantum Mechanics,
/// eq. 3.6.11). Written with binomials its alternating sum is one of integers, so nothing is lost to cancellation and zeros are exact.
double clebsch_gordan(int l1, int m1, int l2, int m2, int l3) {
  const int a = l1 + l2 - l3, b = l1 - l2 + l3, c = -l1 + l2 + l3, m3 = m1 + m2;
  std::int64_t sum = 0;
  for (int k = 0; k <= a; ++k) sum += (k % 2 ? -1 : 1) * binomial(a, k) * binomial(b, l1 - m1 - k) * binomial(c, l2 + m2 - k);
  const auto both = [](int l, int m) { return factorial(l + m) * factorial(l - m); };  // the same for m and -m to the last bit
  const long double numerator = both(l1, m1) * both(l2, m2) * both(l3, m3);
  const long double denominator = factorial(a) * factorial(b) * factorial(c) * factorial(l1 + l2 + l3 + 1);
  return static_cast<double>(sum * std::sqrt(numerator / denominator));
}

/// Row m of the unitary matrix from real to complex harmonics of degree l, in e3nn's phase (-i)^l. Its non-zero columns are |m| and -|m|.
std::complex<double> real_to_complex(int l, int m, int column) {
  using namespace std::complex_literals;
  const std::complex<double> phase[] = {1.0, -1.0i, -1.0, 1.0i};
  if (m == 0) return phase[l % 4];
  const double sign = m > 0 && m % 2 ? -1.0 : 1.0;
  const auto part = column > 0 ? std::complex<double>(1.0) : (m > 0 ? 1.0i : -1.0i);
  return phase[l % 4] * (sign * std::sqrt(0.5)) * part;
}

/// For l1 <= l2 <= l3. Sign as in e3nn 0.4: the element of m = 0, 0, 0 is positive, or where that is zero (l1 + l2 + l3 odd) the first that is not.
std::vector<double> sorted_3j(int l1, int l2, int l3) {
  const int n2 = 2 * l2 + 1, n3 = 2 * l3 + 1;
  std::vector<double> real((2 * l1 + 1) * n2 * n3);
  for (int m1 = -l1; m1 <= l1; ++m1) {
    for (int m2 = std::max(-l2, -l3 - m1); m2 <= std::min(l2, l3 - m1); ++m2) {
      const int m3 = m1 + m2;
      const double complex_3j = clebsch_gordan(l1, m1, l2, m2, l3);
      // columns +-m of each of the three changes of basis; one column where m = 0
      for (int c1 = -std::abs(m1); c1 <= std::abs(m1); c1 += std::max(1, 2 * std::abs(m1))) {
        for (int c2 = -std::abs(m2); c2 <= std::abs(m2); c2 += std::max(1, 2 * std::abs(m2))) {
          for (int c3 = -std::abs(m3); c3 <= std::abs(m3); c3 += std::max(1, 2 * std::abs(m3))) {
            const auto q = real_to_complex(l1, m1, c1) * real_to_complex(l2, m2, c2) * std::conj(real_to_complex(l3, m3, c3));
            real[((l1 + c1) * n2 + l2 + c2) * n3 + l3 + c3] += q.real() * complex_3j;  // imaginary parts add up to zero
          }
        }
      }
    }
  }
  double leading = real[(l1 * n2 + l2) * n3 + l3];
  if (leading == 0.0) leading = *std::find_if(real.begin(), real.end(), [](double x) { return x != 0.0; });
  if (leading < 0.0) std::transform(real.begin(), real.end(), real.begin(), std::negate<>());
  return real;
}

/// A permutation of the three irreps permutes the axes; an odd one also multiplies by (-1)^(l1+l2+l3).
std::vector<double> compute_3j(const std::array<int, 3>& l) {
  const int n[3] = {2 * l[0] + 1, 2 * l[1] + 1, 2 * l[2] + 1};
  std::vector<double> result(n[0] * n[1] * n[2]);
  if (l[2] < std::abs(l[0] - l[1]) || l[2] > l[0] + l[1]) return result;

  std::array<int, 3> axis{0, 1, 2};  // axis[a]: which of our axes is axis a of the sorted symbol
  std::stable_sort(axis.begin(), axis.end(), [&](int a, int b) { return l[a] < l[b]; });
  const bool odd_permutation = ((axis[0] > axis[1]) + (axis[0] > axis[2]) + (axis[1] > axis[2])) % 2;
  const double sign = odd_permutation && (l[0] + l[1] + l[2]) % 2 ? -1.0 : 1.0;
  const auto sorted = sorted_3j(l[axis[0]], l[axis[1]], l[axis[2]]);
  std::size_t element = 0;
  for (int i = 0; i < n[0]; ++i) {
    for (int j = 0; j < n[1]; ++j) {
      for (int k = 0; k < n[2]; ++k) {
        const int m[3] = {i, j, k};
        const double value = sorted[(m[axis[0]] * n[axis[1]] + m[axis[1]]) * n[axis[2]] + m[axis[2]]];
        result[element++] = value == 0.0 ? 0.0 : sign * value;  // no -0
      }
    }
  }
  return result;
}

// ---- Symmetric coupling ----

using Index = std::array<int, 4>;  ///< ascending in its first `degree` entries, zero beyond

struct Term {
  Index index{};
  double coefficient = 0.0;
};
using Polynomial = std::vector<Term>;  ///< ordered by index, no two alike

struct Path {
  Irrep ir;
  std::vector<Polynomial> components;
};

/// Adds up equal monomials and drops those that cancel. Coefficients are sums of products of 3j symbols: zero but for rounding, or far from it
/// (5e-5 and more for nu = 4 of 0e+1o+2e+3o+4e).
void merge(Polynomial& terms) {
  constexpr double rounding = 1e-12;
  std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) { return a.index < b.index; });
  std::size_t kept = 0;
  for (std::size_t t = 0; t < terms.size();) {
    Term sum{terms[t].index, 0.0};
    for (; t < terms.size() && terms[t].index == sum.index; ++t) sum.coefficient += terms[t].coefficient;
    if (std::abs(sum.coefficient) > rounding) terms[kept++] = sum;
  }
  terms.resize(kept);
}

/// `index` with one more factor x[lm].
Index times(Index index, int degree, int lm) {
  int slot = degree;
  for (; slot > 0 && index[slot - 1] > lm; --slot) index[slot] = index[slot - 1];
  index[slot] = lm;
  return index;
}

/// sum over m1, m2 of sqrt(2 l + 1) w3j(l, l_left, l_ir)[m, m1, m2] left[m1] x[offset + m2], for polynomials `left` of the given degree.
Path couple(const Path& left, int degree, Irrep ir, int offset, Irrep out) {
  Path result{out, std::vector<Polynomial>(out.dim())};
  const auto& w3j = wigner_3j(out.l, left.ir.l, ir.l);
  const double norm = std::sqrt(static_cast<double>(out.dim()));
  auto w = w3j.begin();
  for (auto& terms : result.components) {
    for (const auto& factor : left.components) {
      for (int m = 0; m < ir.dim(); ++m, ++w) {
        if (*w == 0.0) continue;
        for (const auto& [index, coefficient] : factor) terms.push_back({times(index, degree, offset + m), norm * *w * coefficient});
      }
    }
    merge(terms);
  }
  return result;
}

/// The paths of degree one: x itself.
std::vector<Path> inputs(const std::vector<Irrep>& in) {
  std::vector<Path> paths;
  int lm = 0;
  for (const auto& ir : in) {
    Path path{ir, {}};
    for (int m = 0; m < ir.dim(); ++m) path.components.push_back({Term{Index{lm++}, 1.0}});
    paths.push_back(std::move(path));
  }
  return paths;
}

/// mace's restriction of every coupling of order four: parity (-1)^l and l < 12.
bool allowed(Irrep ir, int nu) { return nu < 4 || (ir.l < 12 && ir.p == (ir.l % 2 ? -1 : 1)); }

void check_symmetric(const std::vector<Irrep>& in, Irrep out, int nu) {
  if (!in.empty() && nu >= 1 && nu <= 4) return;
  throw std::invalid_argument("symmetric_coupling of " + std::to_string(in.size()) + " irreps to " + out.str() + " with correlation " + std::to_string(nu) +
                              ": expected at least one irrep and a correlation of 1, 2, 3 or 4");
}

/// One coupling of all `paths` of the given degree with all of `in`, ordered as mace orders them.
/// Of the results only `*only` is computed if `only` is not null.
std::vector<Path> couple_all(const std::vector<Path>& paths, int degree, const std::vector<Irrep>& in, int nu, const Irrep* only) {
  std::vector<Path> results;
  for (const auto& left : paths) {
    int offset = 0;
    for (const auto& ir : in) {
      for (const auto& out : product(left.ir, ir)) {
        if (allowed(out, nu) && (!only || out == *only)) results.push_back(couple(left, degree, ir, offset, out));
      }
      offset += ir.dim();
    }
  }
  std::stable_sort(results.begin(), results.end(), [](const Path& a, const Path& b) { return a.ir < b.ir; });
  return results;
}

}  // namespace

const std::vector<double>& wigner_3j(int l1, int l2, int l3) {
  if (std::min({l1, l2, l3}) < 0 || l1 + l2 + l3 > max_degree_sum) {
    throw std::invalid_argument("wigner_3j(" + std::to_string(l1) + ", " + std::to_string(l2) + ", " + std::to_string(l3) +
                                "): degrees must not be negative, and their sum must not exceed " + std::to_string(max_degree_sum));
  }
  static std::mutex mutex;
  static std::map<std::array<int, 3>, std::vector<double>> cache;  // references to its elements stay valid
  const std::lock_guard lock(mutex);
  auto& symbol = cache[{l1, l2, l3}];
  if (symbol.empty()) symbol = compute_3j({l1, l2, l3});
  return symbol;
}

std::size_t symmetric_paths(const std::vector<Irrep>& in, Irrep out, int nu) {
  check_symmetric(in, out, nu);
  if (nu == 1) {
    const auto last = std::find(in.rbegin(), in.rend(), out);
    return std::max<std::size_t>(1, static_cast<std::size_t>(std::find_if(last, in.rend(), [&](Irrep ir) { return !(ir == out); }) - last));
  }
  std::map<Irrep, std::size_t> paths;  // of the degree so far, by their irrep
  for (const Irrep ir : in) ++paths[ir];
  for (int degree = 1; degree < nu; ++degree) {
    std::map<Irrep, std::size_t> next;
    for (const auto& [left, count] : paths)
      for (const Irrep ir : in)
        for (const Irrep result : product(left, ir))
          if (allowed(result, nu)) next[result] += count;
    paths = std::move(next);
  }
  return std::max<std::size_t>(1, paths[out]);
}

SymmetricCoupling symmetric_coupling(const std::vector<Irrep>& in, Irrep out, int nu) {
  check_symmetric(in, out, nu);
  auto paths = inputs(in);
  for (int degree = 1; degree < nu; ++degree) paths = couple_all(paths, degree, in, nu, degree + 1 == nu ? &out : nullptr);
  if (nu == 1) {  // nothing was selected nor sorted yet: of the runs of adjacent `out` mace takes the last
    const auto is_out = [&](const Path& path) { return path.ir == out; };
    const auto last = std::find_if(paths.rbegin(), paths.rend(), is_out);
    paths = std::vector<Path>(std::find_if_not(last, paths.rend(), is_out).base(), last.base());
  }

  SymmetricCoupling coupling;
  coupling.paths = std::max<int>(1, paths.size());
  coupling.components.resize(out.dim());
  for (std::size_t p = 0; p < paths.size(); ++p) {
    for (int m = 0; m < out.dim(); ++m) {
      for (const auto& [index, coefficient] : paths[p].components[m]) {
        coupling.components[m].push_back({index, static_cast<int>(p), coefficient});
      }
    }
  }
  for (auto& monomials : coupling.components) {
    std::stable_sort(monomials.begin(), monomials.end(), [](const Monomial& a, const Monomial& b) { return a.index < b.index; });
  }
  return coupling;
}

}  // namespace adatom::gnn
