// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gnn/coupling.hpp"

using namespace adatom::gnn;
using Vector = std::vector<double>;

namespace {

nlohmann::json reference(const std::string& name) {
  std::ifstream file(std::string(ADATOM_REFERENCE_DATA) + "/" + name);
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

std::vector<Irrep> irreps(const std::string& text) {
  std::vector<Irrep> list;
  for (const auto& entry : Irreps::parse(text)) list.push_back(entry.ir);
  return list;
}

Vector random_vector(std::size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  Vector x(n);
  for (auto& value : x) value = std::uniform_real_distribution<double>(-1, 1)(engine);
  return x;
}

/// Square matrix, row major.
struct Matrix {
  int n;
  Vector elements;
  explicit Matrix(int n_) : n(n_), elements(n_ * n_) {}
  double& operator()(int i, int j) { return elements[i * n + j]; }
  double operator()(int i, int j) const { return elements[i * n + j]; }
};

Matrix operator*(const Matrix& a, const Matrix& b) {
  Matrix c(a.n);
  for (int i = 0; i < a.n; ++i) {
    for (int k = 0; k < a.n; ++k) {
      for (int j = 0; j < a.n; ++j) c(i, j) += a(i, k) * b(k, j);
    }
  }
  return c;
}

double distance(const Matrix& a, const Matrix& b) {
  double largest = 0;
  for (int i = 0; i < a.n * a.n; ++i) largest = std::max(largest, std::abs(a.elements[i] - b.elements[i]));
  return largest;
}

/// Rotation about a random axis (Rodrigues), acting on (x, y, z).
Matrix random_rotation(unsigned seed) {
  const auto random = random_vector(4, seed);
  const double norm = std::hypot(random[0], random[1], random[2]);
  const double u[3] = {random[0] / norm, random[1] / norm, random[2] / norm}, c = std::cos(3 * random[3]), s = std::sin(3 * random[3]);
  const double cross[3][3] = {{0, -u[2], u[1]}, {u[2], 0, -u[0]}, {-u[1], u[0], 0}};
  Matrix R(3);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) R(i, j) = (i == j) * c + s * cross[i][j] + (1 - c) * u[i] * u[j];
  }
  return R;
}

/// Real harmonics as polynomials of x, y, z, written out from their definition with e3nn's axes (its polar axis is y), component normalised.
Vector harmonics(int l, double x, double y, double z) {
  const double r2 = x * x + y * y + z * z, s3 = std::sqrt(3.0), s5 = std::sqrt(5.0), s7 = std::sqrt(7.0), s15 = std::sqrt(15.0);
  if (l == 0) return {1};
  if (l == 1) return {s3 * x, s3 * y, s3 * z};
  if (l == 2) return {s15 * x * z, s15 * x * y, s5 * (y * y - (x * x + z * z) / 2), s15 * y * z, s15 / 2 * (z * z - x * x)};
  const double a = s7 * std::sqrt(10.0) / 4, b = s7 * std::sqrt(15.0), c = s7 * std::sqrt(6.0) / 4;
  return {a * x * (3 * z * z - x * x), b * x * y * z,
          c * x * (5 * y * y - r2),    s7 / 2 * y * (5 * y * y - 3 * r2),
          c * z * (5 * y * y - r2),    b / 2 * y * (z * z - x * x),
          a * z * (z * z - 3 * x * x)};
}

/// D of degree 0..lmax with Y(R r) = D Y(r). D of l+1 is the part of D1 x Dl that the 3j symbol of (1, l, l+1) picks out; harmonics of l = 1 are
/// the vector itself.
std::vector<Matrix> wigner_D(const Matrix& R, int lmax) {
  std::vector<Matrix> D{Matrix(1), R};
  D[0](0, 0) = 1;
  for (int l = 1; l < lmax; ++l) {
    const auto& w3j = wigner_3j(1, l, l + 1);
    const int n = 2 * l + 1, n_out = 2 * l + 3;
    const auto C = [&](int i, int j, int k) { return w3j[(i * n + j) * n_out + k]; };
    Matrix next(n_out);
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < n; ++j) {
        for (int k = 0; k < n_out; ++k) {
          if (C(i, j, k) == 0) continue;
          for (int i2 = 0; i2 < 3; ++i2) {
            for (int j2 = 0; j2 < n; ++j2) {
              for (int k2 = 0; k2 < n_out; ++k2) next(k, k2) += n_out * C(i, j, k) * R(i, i2) * D[l](j, j2) * C(i2, j2, k2);
            }
          }
        }
      }
    }
    D.push_back(next);
  }
  return D;
}

/// Trilinear form of a 3j symbol.
double contract(int l1, int l2, int l3, const Vector& a, const Vector& b, const Vector& c) {
  double sum = 0;
  auto w = wigner_3j(l1, l2, l3).begin();
  for (const double ai : a) {
    for (const double bj : b) {
      for (const double ck : c) sum += *w++ * ai * bj * ck;
    }
  }
  return sum;
}

Vector apply(const Matrix& D, const double* x) {
  Vector y(D.n);
  for (int i = 0; i < D.n; ++i) {
    for (int j = 0; j < D.n; ++j) y[i] += D(i, j) * x[j];
  }
  return y;
}

/// Values of the polynomials, [component][path].
std::vector<Vector> evaluate(const SymmetricCoupling& coupling, int nu, const Vector& x) {
  std::vector<Vector> values;
  for (const auto& monomials : coupling.components) {
    values.emplace_back(coupling.paths);
    for (const auto& monomial : monomials) {
      double term = monomial.coefficient;
      for (int i = 0; i < nu; ++i) term *= x.at(monomial.index[i]);
      values.back().at(monomial.path) += term;
    }
  }
  return values;
}

template <class Function>
void for_all_triples(int lmax, Function function) {
  for (int l1 = 0; l1 <= lmax; ++l1) {
    for (int l2 = 0; l2 <= lmax; ++l2) {
      for (int l3 = 0; l3 <= lmax; ++l3) function(l1, l2, l3);
    }
  }
}

bool is_triangle(int l1, int l2, int l3) { return std::abs(l1 - l2) <= l3 && l3 <= l1 + l2; }

}  // namespace

TEST_CASE("3j: values of e3nn", "[coupling]") {
  const auto data = reference("e3nn_wigner_3j.json");
  const auto vectors = data["vectors"].get<std::vector<std::vector<Vector>>>();
  std::set<std::array<int, 3>> seen;
  for (const auto& row : data["trilinear"]) {
    const int l1 = row[0], l2 = row[1], l3 = row[2];
    INFO(l1 << " " << l2 << " " << l3);
    seen.insert({l1, l2, l3});
    CHECK(contract(l1, l2, l3, vectors[l1][0], vectors[l2][1], vectors[l3][2]) == Approx(row[3].get<double>()).epsilon(0).margin(1e-13));
  }
  for_all_triples(6, [&](int l1, int l2, int l3) { CHECK(seen.count({l1, l2, l3}) == is_triangle(l1, l2, l3)); });

  REQUIRE(data["elements"].size() > 0);
  for (const auto& symbol : data["elements"]) {
    const auto l = symbol["l"].get<std::array<int, 3>>();
    INFO(l[0] << " " << l[1] << " " << l[2]);
    Vector expected((2 * l[0] + 1) * (2 * l[1] + 1) * (2 * l[2] + 1));
    for (const auto& row : symbol["elements"]) {
      expected[(row[0].get<int>() * (2 * l[1] + 1) + row[1].get<int>()) * (2 * l[2] + 1) + row[2].get<int>()] = row[3];
    }
    const auto& w3j = wigner_3j(l[0], l[1], l[2]);
    REQUIRE(w3j.size() == expected.size());
    for (std::size_t i = 0; i < w3j.size(); ++i) CHECK(std::abs(w3j[i] - expected[i]) < 1e-14);
  }
}

TEST_CASE("3j: orthogonality, exact zeros, permutations", "[coupling]") {
  for_all_triples(8, [](int l1, int l2, int l3) {
    INFO(l1 << " " << l2 << " " << l3);
    const auto& w3j = wigner_3j(l1, l2, l3);
    const int n2 = 2 * l2 + 1, n3 = 2 * l3 + 1;
    REQUIRE(w3j.size() == static_cast<std::size_t>((2 * l1 + 1) * n2 * n3));
    const bool triangle = is_triangle(l1, l2, l3);
    Matrix gram(n3), expected(n3);  // sum over m1, m2
    for (std::size_t row = 0; row < w3j.size(); row += n3) {
      for (int k = 0; k < n3; ++k) {
        for (int k2 = 0; k2 < n3; ++k2) gram(k, k2) += w3j[row + k] * w3j[row + k2];
      }
    }
    for (int k = 0; k < n3; ++k) expected(k, k) = triangle ? 1.0 / n3 : 0.0;
    CHECK(distance(gram, expected) < 1e-15);
    CHECK(std::none_of(w3j.begin(), w3j.end(), [](double w) { return w != 0 && std::abs(w) < 1e-6; }));

    const double sign = (l1 + l2 + l3) % 2 ? -1 : 1;
    const auto &swapped = wigner_3j(l2, l1, l3), &cycled = wigner_3j(l2, l3, l1);
    bool same = true;
    for (int i = 0; i <= 2 * l1; ++i) {
      for (int j = 0; j < n2; ++j) {
        for (int k = 0; k < n3; ++k) {
          const double w = w3j[(i * n2 + j) * n3 + k];
          same = same && swapped[(j * (2 * l1 + 1) + i) * n3 + k] == sign * w && cycled[(j * n3 + k) * (2 * l1 + 1) + i] == w;
        }
      }
    }
    CHECK(same);
  });
}

TEST_CASE("3j: invariance under rotation", "[coupling]") {
  constexpr int lmax = 6;
  const auto R = random_rotation(1), S = random_rotation(2);
  const auto D = wigner_D(R, lmax), D_S = wigner_D(S, lmax), D_RS = wigner_D(R * S, lmax);
  for (int l = 0; l <= lmax; ++l) {
    INFO(l);
    CHECK(distance(D[l] * D_S[l], D_RS[l]) < 1e-13);
    if (l > 3) continue;
    const auto r = random_vector(3, 3);
    const auto Rr = apply(R, r.data());
    const auto Y = harmonics(l, r[0], r[1], r[2]), Y_R = harmonics(l, Rr[0], Rr[1], Rr[2]), DY = apply(D[l], Y.data());
    for (int m = 0; m <= 2 * l; ++m) CHECK(DY[m] == Approx(Y_R[m]).epsilon(0).margin(1e-13));
  }
  for_all_triples(lmax, [&](int l1, int l2, int l3) {
    if (!is_triangle(l1, l2, l3)) return;
    INFO(l1 << " " << l2 << " " << l3);
    const auto a = random_vector(2 * l1 + 1, 4), b = random_vector(2 * l2 + 1, 5), c = random_vector(2 * l3 + 1, 6);
    const double rotated = contract(l1, l2, l3, apply(D[l1], a.data()), apply(D[l2], b.data()), apply(D[l3], c.data()));
    CHECK(rotated == Approx(contract(l1, l2, l3, a, b, c)).epsilon(0).margin(1e-13));
  });
}

TEST_CASE("3j: degrees out of range, many threads", "[coupling]") {
  CHECK_THROWS_AS(wigner_3j(-1, 1, 1), std::invalid_argument);
  CHECK_THROWS_WITH(wigner_3j(21, 20, 20), Catch::Contains("wigner_3j(21, 20, 20)"));
  double norm = 0;
  for (const double w : wigner_3j(20, 20, 20)) norm += w * w;
  CHECK(norm == Approx(1).epsilon(1e-13));

  std::vector<const Vector*> symbols(8);
  std::vector<std::thread> threads;
  for (auto& symbol : symbols) threads.emplace_back([&symbol] { symbol = &wigner_3j(7, 9, 10); });
  for (auto& thread : threads) thread.join();
  for (const auto* symbol : symbols) CHECK(symbol == &wigner_3j(7, 9, 10));
}

TEST_CASE("symmetric coupling: polynomials of mace", "[coupling]") {
  const auto data = reference("mace_symmetric_coupling.json");
  const auto x = data["x"].get<Vector>();
  REQUIRE(data["couplings"].size() > 100);
  for (const auto& expected : data["couplings"]) {
    const std::string in = expected["in"], out = expected["out"];
    const int nu = expected["nu"];
    INFO(in << " to " << out << ", correlation " << nu);
    const auto coupling = symmetric_coupling(irreps(in), Irrep::parse(out), nu);
    const auto values = evaluate(coupling, nu, x);
    REQUIRE(coupling.paths == expected["paths"]);
    REQUIRE(coupling.components.size() == expected["components"].size());
    for (std::size_t m = 0; m < coupling.components.size(); ++m) {
      const auto& component = expected["components"][m];
      CHECK(coupling.components[m].size() == component["monomials"]);
      REQUIRE(values[m].size() == component["values"].size());
      for (int p = 0; p < coupling.paths; ++p) {
        INFO("component " << m << ", path " << p);
        CHECK(values[m][p] == Approx(component["values"][p].get<double>()).epsilon(1e-12).margin(1e-12));
      }
    }
  }
}

TEST_CASE("symmetric coupling: equivariance", "[coupling]") {
  const auto list = GENERATE(as<std::string>{}, "0e+1o+2e+3o", "0e+1o+2e+3o+4e", "0e+0o+1o+1e+2e+2o", "2e+1o+0e+1o");
  const auto in = irreps(list);
  const auto D = wigner_D(random_rotation(7), 4);
  const bool inversion = GENERATE(false, true);
  int dim = 0;
  for (const auto& ir : in) dim += ir.dim();
  const auto x = random_vector(dim, 8);
  Vector Dx;
  for (const auto& ir : in) {
    for (const double component : apply(D[ir.l], x.data() + Dx.size())) Dx.push_back(inversion ? ir.p * component : component);
  }
  for (int nu = 1; nu <= 3; ++nu) {
    for (const Irrep out : {Irrep{0, 1}, Irrep{0, -1}, Irrep{1, -1}, Irrep{1, 1}, Irrep{2, 1}, Irrep{3, -1}}) {
      INFO(list << " to " << out.str() << ", correlation " << nu << ", inversion " << inversion);
      const auto coupling = symmetric_coupling(in, out, nu);
      const auto values = evaluate(coupling, nu, x), rotated = evaluate(coupling, nu, Dx);
      double error = 0;
      for (int p = 0; p < coupling.paths; ++p) {
        for (int m = 0; m < out.dim(); ++m) {
          double expected = 0;
          for (int m2 = 0; m2 < out.dim(); ++m2) expected += (inversion ? out.p : 1) * D[out.l](m, m2) * values[m2][p];
          error = std::max(error, std::abs(expected - rotated[m][p]));
        }
      }
      CHECK(error < 1e-12);
    }
  }
}

TEST_CASE("symmetric coupling: form of the monomials", "[coupling]") {
  const auto in = irreps("0e+1o+2e");
  for (int nu = 1; nu <= 4; ++nu) {
    const auto coupling = symmetric_coupling(in, {1, -1}, nu);
    for (const auto& monomials : coupling.components) {
      REQUIRE_FALSE(monomials.empty());
      for (std::size_t i = 0; i < monomials.size(); ++i) {
        const auto& [index, path, coefficient] = monomials[i];
        CHECK(std::is_sorted(index.begin(), index.begin() + nu));
        CHECK(std::all_of(index.begin() + nu, index.end(), [](int lm) { return lm == 0; }));
        CHECK((index[0] >= 0 && index[nu - 1] < 9 && path >= 0 && path < coupling.paths));
        CHECK(std::abs(coefficient) > 1e-6);
        if (i > 0) CHECK(std::pair(monomials[i - 1].index, monomials[i - 1].path) < std::pair(index, path));
      }
    }
  }
}

TEST_CASE("symmetric coupling: scalars of correlation 2 are the norms of the irreps", "[coupling]") {
  // the 3j symbol of (0, l, l) is +-1/sqrt(2l+1) times the identity
  const auto in = irreps("0e+1o+2e+3o");
  const auto coupling = symmetric_coupling(in, {0, 1}, 2);
  REQUIRE(coupling.paths == 4);
  const auto x = random_vector(16, 9);
  const auto values = evaluate(coupling, 2, x);
  for (int l = 0, lm = 0; l < 4; ++l) {
    double norm = 0;
    for (int m = 0; m <= 2 * l; ++m, ++lm) norm += x[lm] * x[lm];
    CHECK(std::abs(values[0][l]) == Approx(norm / std::sqrt(2 * l + 1)));
  }
}

TEST_CASE("symmetric coupling: number of independent cubic scalars", "[coupling]") {
  // 1o and 2e, a vector and a traceless symmetric matrix, have two: v.Mv and tr M^3.
  const auto cubic = symmetric_coupling(irreps("1o+2e"), {0, 1}, 3);
  std::vector<Vector> columns;
  for (unsigned seed = 20; seed < 30; ++seed) columns.push_back(evaluate(cubic, 3, random_vector(8, seed))[0]);
  int rank = 0;  // Gram-Schmidt over paths
  std::vector<Vector> basis;
  for (int p = 0; p < cubic.paths; ++p) {
    Vector v;
    for (const auto& column : columns) v.push_back(column[p]);
    for (const auto& b : basis) {
      double dot = 0;
      for (std::size_t i = 0; i < v.size(); ++i) dot += b[i] * v[i];
      for (std::size_t i = 0; i < v.size(); ++i) v[i] -= dot * b[i];
    }
    double norm = 0;
    for (const double value : v) norm += value * value;
    if (norm < 1e-20) continue;
    for (auto& value : v) value /= std::sqrt(norm);
    basis.push_back(v);
    ++rank;
  }
  CHECK(rank == 2);
}

TEST_CASE("symmetric coupling: nothing to couple", "[coupling]") {
  const auto zero = symmetric_coupling(irreps("0e+1o"), {2, 1}, 1);
  CHECK(zero.paths == 1);
  REQUIRE(zero.components.size() == 5);
  for (const auto& monomials : zero.components) CHECK(monomials.empty());
  CHECK_THROWS_AS(symmetric_coupling({}, {0, 1}, 2), std::invalid_argument);
  CHECK_THROWS_AS(symmetric_coupling(irreps("0e"), {0, 1}, 0), std::invalid_argument);
  CHECK_THROWS_WITH(symmetric_coupling(irreps("0e"), {0, 1}, 5), Catch::Contains("correlation 5"));
}
