// SPDX-License-Identifier: MIT
// Every kernel body: the reverse pass against finite differences of the forward pass, dual numbers against finite differences, vector widths against
// each other, and guards around what it writes.
#include <catch2/catch.hpp>
#include <functional>
#include <random>

#include "gnn/cpu/weights.hpp"
#include "gnn/kernels/contract.hpp"
#include "gnn/kernels/convolve.hpp"
#include "gnn/kernels/element_convolve.hpp"
#include "gnn/kernels/gate.hpp"
#include "gnn/kernels/linear.hpp"
#include "gnn/kernels/spherical_harmonics.hpp"
#include "gnn/kernels/spline.hpp"

using namespace adatom::gnn;

namespace {

using Vector = std::vector<double>;

Vector random_vector(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  Vector x(n);
  for (double& v : x) v = normal(generator);
  return x;
}

double dot(const Vector& a, const Vector& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  REQUIRE(std::isfinite(sum));
  return sum;
}

/// Checks g . (df/dx v) from finite differences against (reverse(x, g)) . v.
void check_gradient(const std::function<Vector(const Vector&)>& f, const std::function<Vector(const Vector&, const Vector&)>& reverse, const Vector& x) {
  const Vector v = random_vector(x.size(), 101);
  const double h = 1e-5;
  Vector plus = x, minus = x;
  for (std::size_t i = 0; i < x.size(); ++i) plus[i] += h * v[i], minus[i] -= h * v[i];
  const Vector fp = f(plus), fm = f(minus);
  const Vector g = random_vector(fp.size(), 102);
  Vector difference(fp.size());
  for (std::size_t i = 0; i < fp.size(); ++i) difference[i] = (fp[i] - fm[i]) / (2 * h);
  const double expected = dot(g, difference), got = dot(reverse(x, g), v);
  CHECK(got == Approx(expected).epsilon(1e-7).margin(1e-7));
}

/// Checks the tangent of f in dual numbers against finite differences.
void check_dual(const std::function<Vector(const Vector&)>& f, const std::function<std::vector<Dual<double>>(const std::vector<Dual<double>>&)>& f_dual,
                const Vector& x) {
  const Vector v = random_vector(x.size(), 103);
  const double h = 1e-5;
  Vector plus = x, minus = x;
  std::vector<Dual<double>> dual(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) plus[i] += h * v[i], minus[i] -= h * v[i], dual[i] = {x[i], v[i]};
  const Vector f0 = f(x), fp = f(plus), fm = f(minus);
  const std::vector<Dual<double>> y = f_dual(dual);
  REQUIRE(y.size() == f0.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    CHECK(y[i].v == Approx(f0[i]).epsilon(1e-13).margin(1e-13));
    CHECK(y[i].d == Approx((fp[i] - fm[i]) / (2 * h)).epsilon(1e-6).margin(1e-6));
  }
}

/// A tile of two nodes with three and four edges, made from random numbers: only the wiring of the convolution matters here.
struct TestTile {
  std::vector<int> first_edge{0, 3, 7}, sender{0, 1, 2, 2, 1, 0, 3}, slot{0, 1, 2, 2, 1, 0, 3}, knot{0, 16, 32, 48, 16, 0, 32}, runs{0, 2, 3, 6, 7};
  static constexpr int nodes = 4, edges = 7, channels = 32;

  template <class S>
  EdgeTile<S> view(const std::vector<S>& record, int record_size, std::vector<S>& adjoint, int adjoint_size) const {
    return {2, first_edge.data(), sender.data(), slot.data(), knot.data(), record.data(), record_size, adjoint.data(), adjoint_size};
  }
};

template <class S>
std::vector<S> copy_as(const Vector& x) {
  return std::vector<S>(x.begin(), x.end());
}

}  // namespace

TEST_CASE("spherical harmonics are component normalised, and their reverse pass is their gradient") {
  Vector x = random_vector(3, 1);
  const double r = std::sqrt(dot(x, x));
  for (double& v : x) v /= r;
  double Y[16];
  spherical_harmonics(3, x[0], x[1], x[2], Y);
  for (int l = 0; l <= 3; ++l) {
    double sum = 0.0;
    for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm) sum += Y[lm] * Y[lm];
    CHECK(sum == Approx(2 * l + 1).epsilon(1e-14));
  }
  for (int l_max = 0; l_max <= 3; ++l_max) {
    const int n = (l_max + 1) * (l_max + 1);
    const auto f = [&](const Vector& v) {
      Vector y(n);
      spherical_harmonics(l_max, v[0], v[1], v[2], y.data());
      return y;
    };
    check_gradient(
        f,
        [&](const Vector& v, const Vector& g) {
          double out[3];
          spherical_harmonics_reverse(l_max, v[0], v[1], v[2], g.data(), out);
          return Vector(out, out + 3);
        },
        x);
    check_dual(
        f,
        [&](const std::vector<Dual<double>>& v) {
          std::vector<Dual<double>> y(n);
          spherical_harmonics(l_max, v[0], v[1], v[2], y.data());
          return y;
        },
        x);
  }
}

TEST_CASE("spherical harmonics are orthogonal over the sphere") {
  // Product quadrature: exact for polynomials of degree <= 7 with a uniform grid in phi and Gauss-Legendre nodes in cos(theta).
  const double nodes[4] = {-0.86113631159405258, -0.33998104358485626, 0.33998104358485626, 0.86113631159405258};
  const double weights[4] = {0.34785484513745386, 0.65214515486254614, 0.65214515486254614, 0.34785484513745386};
  double overlap[16][16] = {};
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 8; ++k) {
      const double phi = 2 * M_PI * k / 8, s = std::sqrt(1 - nodes[i] * nodes[i]);
      double Y[16];
      spherical_harmonics(3, s * std::sin(phi), nodes[i], s * std::cos(phi), Y);
      for (int a = 0; a < 16; ++a)
        for (int b = 0; b < 16; ++b) overlap[a][b] += weights[i] / 2 / 8 * Y[a] * Y[b];
    }
  for (int a = 0; a < 16; ++a)
    for (int b = 0; b < 16; ++b) CHECK(overlap[a][b] == Approx(a == b).margin(1e-12));
}

TEST_CASE("spline weights sum to one, reproduce lines, and their slopes are their derivatives") {
  for (const double t : {0.0, 0.3, 0.99}) {
    double w[spline_taps], dw[spline_taps], wp[spline_taps], wm[spline_taps], unused[spline_taps];
    const double inverse_h = 4.0, e = 1e-6;
    spline_weights(t, inverse_h, w, dw);
    spline_weights(t + e, inverse_h, wp, unused);
    spline_weights(t - e, inverse_h, wm, unused);
    double sum = 0.0, first = 0.0;
    for (int n = 0; n < spline_taps; ++n) {
      sum += w[n];
      first += w[n] * (n - 2);
      CHECK(dw[n] == Approx((wp[n] - wm[n]) / (2 * e) * inverse_h).epsilon(1e-8).margin(1e-8));
    }
    CHECK(sum == Approx(1.0).epsilon(1e-14));
    CHECK(first == Approx(t).margin(1e-14));
  }
}

TEMPLATE_TEST_CASE_SIG("sums over lanes", "", ((int W), W), 4, 8, 16) {
  const auto check = [](auto count) {
    constexpr int n = decltype(count)::value;
    Vec<float, W> x[n];
    float expected[n] = {}, got[n];
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < W; ++k) {
        x[i].v[k] = static_cast<float>((i * 7 + k * 3) % 11 - 5);  // small integers: sums are exact in any order
        expected[i] += x[i].v[k];
      }
    sum_over_lanes(x, got);
    for (int i = 0; i < n; ++i) CHECK(got[i] == expected[i]);
  };
  check(std::integral_constant<int, 1>{});
  check(std::integral_constant<int, 2>{});
  check(std::integral_constant<int, 6>{});
  check(std::integral_constant<int, 8>{});
  check(std::integral_constant<int, 16>{});
  check(std::integral_constant<int, 17>{});
  check(std::integral_constant<int, 50>{});
}

TEMPLATE_TEST_CASE_SIG("vector exp is accurate and saturates", "", ((class T, int W), T, W), (float, 8), (double, 4)) {
  const double limit = sizeof(T) == 4 ? 86.0 : 700.0;
  for (double x = -limit; x <= limit; x += limit / 997) {
    const Vec<T, W> y = exp(Vec<T, W>(static_cast<T>(x)));
    CHECK(y[0] == Approx(std::exp(static_cast<double>(static_cast<T>(x)))).epsilon(sizeof(T) == 4 ? 3e-7 : 5e-16));
  }
  CHECK(std::isfinite(exp(Vec<T, W>(T(1e30)))[0]));
  CHECK(exp(Vec<T, W>(T(-1e30)))[0] < T(1e-30));
}

TEST_CASE("dual loads and stores keep order") {
  std::vector<Dual<double>> x(8), y(8);
  for (int i = 0; i < 8; ++i) x[i] = {double(i), 10.0 + i};
  Lane<Dual<double>, 4>::store(y.data(), Lane<Dual<double>, 4>::load(x.data()));
  Lane<Dual<double>, 2>::store(y.data() + 4, Lane<Dual<double>, 2>::load(x.data() + 4));
  Lane<Dual<double>, 2>::store(y.data() + 6, Lane<Dual<double>, 2>::load(x.data() + 6));
  for (int i = 0; i < 8; ++i) {
    CHECK(y[i].v == x[i].v);
    CHECK(y[i].d == x[i].d);
  }
}

TEMPLATE_TEST_CASE_SIG("convolution of a path", "", ((int L1, int L3, int W), L1, L3, W), (0, 0, 2), (0, 3, 2), (0, 2, 8), (1, 0, 2), (1, 2, 4), (2, 3, 2),
                       (3, 3, 2)) {
  const TestTile t;
  constexpr int n1 = 2 * L1 + 1, n3 = 2 * L3 + 1, c = TestTile::channels;
  const int record_size = 2 * spline_taps + n1 * n3, adjoint_size = n1 * n3 + 1, h_size = n1 * c, A_size = n3 * c;
  const Vector table = random_vector(2 * (16 * 9), 5);
  const SplineRows<double> rows{table.data(), 16 * 9};
  const std::size_t n_record = std::size_t(t.edges) * record_size, n_h = std::size_t(t.nodes) * h_size;

  const auto forward = [&](auto scalar, const auto& x) {
    using S = decltype(scalar);
    std::vector<S> record(x.begin(), x.begin() + n_record), h(x.begin() + n_record, x.end()), A(2 * A_size + 1, S(0.0)), adjoint;
    A.back() = S(77.0);
    PathRows<S> p{h.data(), h_size, c, A.data(), A_size, c, nullptr, 0, c, 2 * spline_taps, 0, n1 * n3};
    convolve<S, W, L1, L3, (c % (2 * W) == 0 ? 2 : 1)>(t.view(record, record_size, adjoint, 0), p, rows);
    CHECK(value(A.back()) == 77.0);
    A.pop_back();
    return A;
  };
  const auto f = [&](const Vector& x) { return forward(0.0, x); };
  const Vector x = random_vector(n_record + n_h, 6);
  check_dual(
      f, [&](const std::vector<Dual<double>>& d) { return forward(Dual<double>(), d); }, x);

  // Weights and slopes are independent numbers for the kernel: dE/dr is the sum that belongs to a shift of the weights along the slopes.
  const auto reverse = [&](const Vector& in, const Vector& g) {
    Vector record(in.begin(), in.begin() + n_record), h(in.begin() + n_record, in.end()), G = g, gh(n_h + 1, 0.0), adjoint(t.edges * adjoint_size + 1, 0.0);
    gh.back() = adjoint.back() = 77.0;
    PathRows<double> p{h.data(), h_size, c, G.data(), A_size, c, gh.data(), h_size, c, 2 * spline_taps, 0, n1 * n3};
    convolve_reverse<double, W, L1, L3>(t.view(record, record_size, adjoint, adjoint_size), p, rows);
    CHECK(gh.back() == 77.0);
    CHECK(adjoint.back() == 77.0);
    gh.pop_back();
    return std::make_pair(adjoint, gh);
  };
  // Along directions that move r (weights by slopes), Z and h.
  Vector direction = random_vector(x.size(), 7), moved_plus = x, moved_minus = x;
  Vector dr = random_vector(t.edges, 8);
  const double h = 1e-5;
  for (int e = 0; e < t.edges; ++e)
    for (int n = 0; n < spline_taps; ++n) {
      direction[e * record_size + n] = dr[e] * x[e * record_size + spline_taps + n];
      direction[e * record_size + spline_taps + n] = 0.0;
    }
  for (std::size_t i = 0; i < x.size(); ++i) moved_plus[i] += h * direction[i], moved_minus[i] -= h * direction[i];
  const Vector fp = f(moved_plus), fm = f(moved_minus), g = random_vector(fp.size(), 9);
  double expected = 0.0, got = 0.0;
  for (std::size_t i = 0; i < fp.size(); ++i) expected += g[i] * (fp[i] - fm[i]) / (2 * h);
  const auto [adjoint, gh] = reverse(x, g);
  for (int e = 0; e < t.edges; ++e) {
    for (int z = 0; z < n1 * n3; ++z) got += adjoint[e * adjoint_size + z] * direction[e * record_size + 2 * spline_taps + z];
    got += adjoint[e * adjoint_size + n1 * n3] * dr[e];
  }
  for (std::size_t i = 0; i < n_h; ++i) got += gh[i] * direction[n_record + i];
  CHECK(got == Approx(expected).epsilon(1e-7));
}

TEMPLATE_TEST_CASE_SIG("convolution of the first layer", "", ((int LMAX, int W), LMAX, W), (0, 2), (2, 4), (3, 2), (3, 8)) {
  const TestTile t;
  constexpr int lms = (LMAX + 1) * (LMAX + 1), functions = 16;
  const int record_size = 2 * spline_taps + lms, adjoint_size = lms + 1;
  const Vector table = random_vector(16 * 9, 15);
  const SplineRows<double> rows{table.data(), 16 * 9};
  const EdgeRuns runs{4, t.runs.data()};
  const std::size_t n_record = std::size_t(t.edges) * record_size;
  const auto forward = [&](auto scalar, const auto& x) {
    using S = decltype(scalar);
    std::vector<S> record(x.begin(), x.end()), adjoint, B(4 * lms * functions);
    element_convolve<S, W, LMAX>(t.view(record, record_size, adjoint, 0), runs, rows, functions, B.data());
    return B;
  };
  const auto f = [&](const Vector& x) { return forward(0.0, x); };
  const Vector x = random_vector(n_record, 16), dr = random_vector(t.edges, 17);
  check_dual(
      f, [&](const std::vector<Dual<double>>& d) { return forward(Dual<double>(), d); }, x);
  Vector direction = random_vector(n_record, 18), plus = x, minus = x;
  for (int e = 0; e < t.edges; ++e)
    for (int n = 0; n < spline_taps; ++n) {
      direction[e * record_size + n] = dr[e] * x[e * record_size + spline_taps + n];
      direction[e * record_size + spline_taps + n] = 0.0;
    }
  const double h = 1e-5;
  for (std::size_t i = 0; i < x.size(); ++i) plus[i] += h * direction[i], minus[i] -= h * direction[i];
  const Vector fp = f(plus), fm = f(minus), g = random_vector(fp.size(), 19);
  double expected = 0.0, got = 0.0;
  for (std::size_t i = 0; i < fp.size(); ++i) expected += g[i] * (fp[i] - fm[i]) / (2 * h);
  Vector adjoint(t.edges * adjoint_size, 0.0);
  element_convolve_reverse<double, W, LMAX>(t.view(x, record_size, adjoint, adjoint_size), runs, rows, functions, g.data(), lms);
  for (int e = 0; e < t.edges; ++e) {
    for (int lm = 0; lm < lms; ++lm) got += adjoint[e * adjoint_size + lm] * direction[e * record_size + 2 * spline_taps + lm];
    got += adjoint[e * adjoint_size + lms] * dr[e];
  }
  CHECK(got == Approx(expected).epsilon(1e-7));
}

TEMPLATE_TEST_CASE_SIG("linear maps of any number of rows", "", ((int W, int RB), W, RB), (2, 6), (4, 12), (8, 3)) {
  Matrix m(32, 48);
  m.weight = random_vector(m.weight.size(), 21);
  const PackedMatrix<double> forward = pack<double>(m, false), transposed = pack<double>(m, true);
  for (const int rows : {1, 2, 5, 13, 25}) {
    const Vector x = random_vector(std::size_t(rows) * 32, 22), y0 = random_vector(std::size_t(rows) * 48, 23);
    Vector y = y0, z = random_vector(std::size_t(rows) * 32, 24);
    std::vector<const double*> px, py_in;
    std::vector<double*> py, pz;
    for (int r = 0; r < rows; ++r) px.push_back(&x[r * 32]), py.push_back(&y[r * 48]), py_in.push_back(&y0[r * 48]), pz.push_back(&z[r * 32]);
    linear<double, W, RB>(rows, px.data(), 0, py.data(), 0, forward, true);
    linear<double, W, RB>(rows, py_in.data(), 0, pz.data(), 0, transposed, false);
    for (int r = 0; r < rows; ++r) {
      for (int o = 0; o < 48; ++o) {
        double sum = y0[r * 48 + o];
        for (int i = 0; i < 32; ++i) sum += x[r * 32 + i] * m(i, o);
        CHECK(y[r * 48 + o] == Approx(sum).epsilon(1e-12).margin(1e-12));
      }
      for (int i = 0; i < 32; ++i) {
        double sum = 0.0;
        for (int o = 0; o < 48; ++o) sum += y0[r * 48 + o] * m(i, o);
        CHECK(z[r * 32 + i] == Approx(sum).epsilon(1e-12).margin(1e-12));
      }
    }
  }
}

TEST_CASE("symmetric contraction is its polynomial, and its reverse pass the gradient") {
  // b = c0 x0 + c1 x0 x1 + c2 x0 x1 x1 + c3 x1 x2 x2 + c4 x2 x2 x2
  Contraction c;
  const int channels = 16;
  c.channels = channels;
  c.inputs = {0, channels, 2 * channels};
  c.products = {{1, 1}, {2, 2}, {0, 1}, {1, 2}};
  const ContractionRows value{{{0, 1, 1}, {1, 1, 2}, {2, 1, 3}}, {1}, {0, 1, 1}, 7};
  const ContractionRows gradient{{{0, 1, 1}, {1, 2, 3}, {2, 2, 5}}, {1, 0}, {0, 2, 1, 3, 1}, 10};
  const Vector w = random_vector(5 * channels, 31), x = random_vector(3 * channels, 32);
  Vector value_w(7 * channels, 0.0), gradient_w(10 * channels, 0.0);
  for (int k = 0; k < channels; ++k) {
    const auto W = [&](int i) { return w[i * channels + k]; };
    const double of_value[7] = {W(0), W(1), W(2), 0, W(3), 0, W(4)};
    const double of_gradient[10] = {W(0), W(1), W(2), 0, W(1), 2 * W(2), W(3), 0, 2 * W(3), 3 * W(4)};
    for (int i = 0; i < 7; ++i) value_w[i * channels + k] = of_value[i];
    for (int i = 0; i < 10; ++i) gradient_w[i * channels + k] = of_gradient[i];
  }
  const auto forward = [&](auto scalar, const auto& in) {
    using S = decltype(scalar);
    std::vector<S> out(channels);
    for (int k = 0; k < channels; k += 4) {
      const S* px[1] = {in.data() + k};
      S* po[1] = {out.data() + k};
      contract<S, 4, 1>(ContractionInputs<S, 4, 1>(c, px), value, value_w.data() + k, po);
    }
    return out;
  };
  const auto f = [&](const Vector& in) { return forward(0.0, in); };
  const Vector y = f(x);
  for (int k = 0; k < channels; ++k) {
    const double x0 = x[k], x1 = x[channels + k], x2 = x[2 * channels + k];
    const auto W = [&](int i) { return w[i * channels + k]; };
    CHECK(y[k] == Approx(W(0) * x0 + W(1) * x0 * x1 + W(2) * x0 * x1 * x1 + W(3) * x1 * x2 * x2 + W(4) * x2 * x2 * x2).epsilon(1e-12));
  }
  check_dual(
      f, [&](const std::vector<Dual<double>>& d) { return forward(Dual<double>(), d); }, x);
  const auto reverse = [&](const Vector& in, const Vector& g) {
    Vector gx(in.size(), 0.0), r(in.size());
    for (int k = 0; k < channels; k += 4) {
      const double *px[1] = {in.data() + k}, *pg[1] = {g.data() + k};
      double *to[1] = {gx.data() + k}, *rows[1] = {r.data() + k};
      const ContractionInputs<double, 4, 1> inputs(c, px);
      contract_reverse<double, 4, 1>(inputs, gradient, gradient_w.data() + k, c.inputs.data(), pg, to);
      contract_gradient<double, 4, 1>(inputs, gradient, gradient_w.data() + k, c.inputs.data(), rows);
    }
    for (std::size_t i = 0; i < r.size(); ++i) CHECK(gx[i] == Approx(g[i % channels] * r[i]).epsilon(1e-13).margin(1e-13));
    return gx;
  };
  check_gradient(f, reverse, x);
}

TEST_CASE("gate: reverse pass and dual numbers, for every activation") {
  for (const Activation a : {Activation::silu, Activation::shifted_softplus, Activation::tanh, Activation::sigmoid, Activation::identity}) {
    Gate g;
    g.scalars = {{0, 0, 16, a, 1.3}};
    g.gated = {{16, 32, 16, 3, 16, 16, 16}};
    g.activation = a;
    g.factor = 0.7;
    const Vector x = random_vector(80, 41);
    const auto f = [&](const Vector& in) {
      Vector out(64);
      gate<double, 4>(g, in.data(), out.data());
      return out;
    };
    check_gradient(
        f,
        [&](const Vector& in, const Vector& go) {
          Vector gi(in.size());
          gate_reverse<double, 4>(g, in.data(), go.data(), gi.data());
          return gi;
        },
        x);
    check_dual(
        f,
        [&](const std::vector<Dual<double>>& in) {
          std::vector<Dual<double>> out(64);
          gate<Dual<double>, 4>(g, in.data(), out.data());
          return out;
        },
        x);
  }
}

TEST_CASE("radial functions: dual numbers against finite differences, ends of the cutoff functions") {
  Radial radial;
  radial.basis.parameters = {0.6, 1.2, 1.8};
  radial.cutoff.r_max = 5.0;
  for (const auto basis : {RadialBasis::Type::bessel, RadialBasis::Type::gaussian, RadialBasis::Type::chebyshev})
    for (const auto transform : {DistanceTransform::Type::none, DistanceTransform::Type::agnesi, DistanceTransform::Type::soft})
      for (const auto cutoff : {CutoffFunction::Type::polynomial, CutoffFunction::Type::xplor}) {
        radial.basis.type = basis;
        radial.basis.factor = basis == RadialBasis::Type::gaussian ? -0.4 : 0.5;
        radial.transform = {transform, 0.9183, 4.5791, 1.0805, 4.0};
        radial.cutoff.type = cutoff;
        radial.cutoff.r_on = 4.0;
        const auto f = [&](const Vector& r) {
          Vector out(3);
          radial_basis(radial, r[0], 2.5, out.data());
          return out;
        };
        for (const double r : {1.7, 4.6})
          check_dual(f,
                     [&](const std::vector<Dual<double>>& x) {
                       std::vector<Dual<double>> out(3);
                       radial_basis(radial, x[0], Dual<double>(2.5), out.data());
                       return out;
                     },
                     {r});
        CHECK(cutoff_function(radial.cutoff, 5.0) == Approx(0.0).margin(1e-12));
        CHECK(cutoff_function(radial.cutoff, 1e-9) == Approx(1.0));
      }
}
