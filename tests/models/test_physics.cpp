// SPDX-License-Identifier: MIT
// What every model must obey, whatever its weights.
#include <adatom/neighbor_list.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "reference.hpp"

using namespace adatom;

namespace {

// One of each update, normalisation, transform and repulsion; those with several heads are covered by the reference values.
std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const ReferenceModel& m : reference_models())
    if (m.heads.size() == 1 && (m.name.rfind("mace_pair", 0) != 0 || m.name == "mace_pair_00")) all.push_back(m.name);
  return all;
}

Potential load(const std::string& name, Precision precision, bool splines, int threads = 1) {
  const ReferenceModel& m = reference_model(name);
  LoadOptions options;
  options.precision = precision;
  options.splines = splines;
  options.threads = threads;
  options.head = m.heads.begin()->first;
  return Potential::load(m.file, options);
}

/// A structure that the model has all elements of, and has reference values for.
Structure structure_of(const std::string& name, const std::string& preferred) {
  const auto& cases = reference_model(name).heads.begin()->second;
  for (const ReferenceValues& r : cases)
    if (r.structure == preferred) return reference_structures().at(preferred);
  return reference_structures().at(cases.front().structure);
}

double norm(const Vector3& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

double largest_difference(const std::vector<Vector3>& a, const std::vector<Vector3>& b) {
  REQUIRE(a.size() == b.size());
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (int k = 0; k < 3; ++k) {
      const double d = std::abs(a[i][k] - b[i][k]);
      if (!(d <= largest)) largest = std::isnan(d) ? INFINITY : d;
    }
  return largest;
}

std::vector<Vector3> random_vectors(std::size_t n, unsigned seed) {
  std::mt19937 g(seed);
  std::normal_distribution<double> normal;
  std::vector<Vector3> v(n);
  for (Vector3& row : v)
    for (double& x : row) x = normal(g);
  return v;
}

Structure moved(Structure s, const std::vector<Vector3>& v, double by) {
  for (std::size_t i = 0; i < v.size(); ++i)
    for (int a = 0; a < 3; ++a) s.positions[i][a] += by * v[i][a];
  return s;
}

double dot(const std::vector<Vector3>& a, const std::vector<Vector3>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    for (int k = 0; k < 3; ++k) sum += a[i][k] * b[i][k];
  return sum;
}

}  // namespace

TEST_CASE("forces are minus the derivative of the energy, splines on and off") {
  for (const std::string& name : names())
    for (const bool splines : {false, true}) {
      INFO(name << ", splines " << splines);
      Potential p = load(name, Precision::float64, splines, 2);
      for (const std::string preferred : {"mixed", "triclinic"}) {
        const Structure s = structure_of(name, preferred);
        const std::vector<Vector3> v = random_vectors(s.positions.size(), 3);
        const double analytic = -dot(p.evaluate(s).forces, v);
        // Richardson extrapolation: the error of the difference is of fourth order in h.
        const auto difference = [&](double h) { return (p.evaluate(moved(s, v, h)).energy - p.evaluate(moved(s, v, -h)).energy) / (2 * h); };
        const double h = 1e-4, numeric = (4 * difference(h / 2) - difference(h)) / 3;
        double scale = 0.0;
        for (const Vector3& f : p.evaluate(s).forces) scale += norm(f);
        CHECK(std::abs(numeric - analytic) <= 1e-7 * std::max(scale, 1.0));
      }
    }
}

TEST_CASE("the virial is minus the derivative of the energy with respect to strain") {
  for (const std::string& name : names()) {
    INFO(name);
    Potential p = load(name, Precision::float64, true);
    const Structure s = structure_of(name, "triclinic");
    const Result r = p.evaluate(s, {false, true, true, true});
    const auto strained = [&](int a, int b, double e) {
      Structure x = s;
      for (Vector3& v : x.positions) v[a] += e * v[b];
      for (std::size_t k = 0; k < 3; ++k) x.cell[k][a] += e * s.cell[k][b];
      for (std::size_t i = 0; i < x.positions.size(); ++i) x.positions[i][a] = s.positions[i][a] + e * s.positions[i][b];
      return p.evaluate(x).energy;
    };
    double scale = 1.0;
    for (const double w : r.virial) scale = std::max(scale, std::abs(w));
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        const double h = 1e-4, numeric = (4 * (strained(a, b, h / 2) - strained(a, b, -h / 2)) / h - (strained(a, b, h) - strained(a, b, -h)) / (2 * h)) / 3;
        CHECK(std::abs(r.virial[3 * a + b] + numeric) <= 1e-6 * scale);
      }
    std::array<double, 9> sum{};
    for (const auto& v : r.virials)
      for (int k = 0; k < 9; ++k) sum[k] += v[k];
    for (int k = 0; k < 9; ++k) CHECK(0.5 * (sum[k] + sum[k % 3 * 3 + k / 3]) == Approx(r.virial[k]).epsilon(1e-10).margin(1e-10));
  }
}

TEST_CASE("Hessian-vector products: symmetric, and the derivative of the forces") {
  for (const std::string& name : names())
    for (const bool splines : {false, true}) {
      INFO(name << ", splines " << splines);
      Potential p = load(name, Precision::float64, splines);
      const Structure s = structure_of(name, "triclinic");
      const auto v = random_vectors(s.positions.size(), 5), w = random_vectors(s.positions.size(), 6);
      const auto Hv = p.hessian_vector(s, v), Hw = p.hessian_vector(s, w);
      double scale = 1.0;
      for (const Vector3& x : Hv) scale = std::max(scale, norm(x));
      CHECK(std::abs(dot(w, Hv) - dot(v, Hw)) <= 1e-8 * scale);
      const double h = 1e-4;
      const auto plus = p.evaluate(moved(s, v, h)).forces, minus = p.evaluate(moved(s, v, -h)).forces;
      std::vector<Vector3> numeric = plus;
      for (std::size_t i = 0; i < plus.size(); ++i)
        for (int a = 0; a < 3; ++a) numeric[i][a] = -(plus[i][a] - minus[i][a]) / (2 * h);
      // The third derivative of a spline jumps at its knots: there the difference is of first order only.
      CHECK(largest_difference(Hv, numeric) <= (splines ? 1e-3 : 1e-5) * scale);
    }
}

TEST_CASE("translation, rotation, reflection, permutation") {
  for (const std::string& name : names()) {
    INFO(name);
    Potential p = load(name, Precision::float64, true);
    const Structure s = structure_of(name, "triclinic");
    const Result r = p.evaluate(s);

    Structure shifted = s;
    for (Vector3& x : shifted.positions) x[0] += 1.7, x[1] -= 20.3, x[2] += 0.4;
    const Result t = p.evaluate(shifted);
    CHECK(t.energy == Approx(r.energy).epsilon(1e-11));
    CHECK(largest_difference(t.forces, r.forces) < 1e-9);

    // Rotation about (1, 2, 3), then inversion.
    const double c = std::cos(0.7), sn = std::sin(0.7), n = std::sqrt(14.0), u[3] = {1 / n, 2 / n, 3 / n};
    double R[3][3];
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        const int k = 3 - a - b;
        const double cross = a == b ? 0.0 : ((a + 1) % 3 == b ? -u[k] : u[k]);
        R[a][b] = u[a] * u[b] * (1 - c) + (a == b ? c : 0.0) + sn * cross;
      }
    const auto turn = [&](const Vector3& x, double sign) {
      Vector3 y{};
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) y[a] += sign * R[a][b] * x[b];
      return y;
    };
    for (const double sign : {1.0, -1.0}) {
      if (sign < 0 && name.find("so3") != std::string::npos) continue;
      Structure turned = s;
      for (Vector3& x : turned.positions) x = turn(x, sign);
      for (Vector3& x : turned.cell) x = turn(x, sign);
      const Result q = p.evaluate(turned);
      std::vector<Vector3> expected;
      for (const Vector3& f : r.forces) expected.push_back(turn(f, sign));
      const bool without_parity = sign < 0 && name.rfind("sevennet", 0) == 0;  // SO(3) models need not be even under inversion
      if (!without_parity) {
        CHECK(q.energy == Approx(r.energy).epsilon(1e-11));
        CHECK(largest_difference(q.forces, expected) < 1e-9);
      }
    }

    Structure reversed = s;
    std::reverse(reversed.positions.begin(), reversed.positions.end());
    std::reverse(reversed.numbers.begin(), reversed.numbers.end());
    Result b = p.evaluate(reversed);
    std::reverse(b.forces.begin(), b.forces.end());
    CHECK(b.energy == Approx(r.energy).epsilon(1e-11));
    CHECK(largest_difference(b.forces, r.forces) < 1e-9);
  }
}

TEST_CASE("features: products with their Jacobian, and rotations") {
  for (const std::string& name : names()) {
    INFO(name);
    Potential p = load(name, Precision::float64, false);
    const Structure s = structure_of(name, "triclinic");
    const std::size_t n = s.positions.size(), width = p.info().features;
    REQUIRE(width > 0);
    const auto v = random_vectors(n, 7);
    const Request only_features{false, false, false, false, true};
    const std::vector<double> tangents = p.feature_tangents(s, v);
    const double h = 1e-5;
    const auto plus = p.evaluate(moved(s, v, h), only_features).features, minus = p.evaluate(moved(s, v, -h), only_features).features;
    REQUIRE(plus.size() == n * width);
    REQUIRE(tangents.size() == n * width);
    double scale = 1.0;
    for (const double x : tangents) scale = std::max(scale, std::abs(x));
    for (std::size_t k = 0; k < n * width; ++k) CHECK(std::abs((plus[k] - minus[k]) / (2 * h) - tangents[k]) < 1e-6 * scale);

    std::mt19937 generator(8);
    std::normal_distribution<double> normal;
    std::vector<double> weights(n * width);
    for (double& x : weights) x = normal(generator);
    const auto features = p.evaluate(s, only_features).features;
    double energy = 0.0, along = 0.0;
    for (std::size_t k = 0; k < n * width; ++k) energy += weights[k] * features[k], along += weights[k] * tangents[k];
    const Result weighted = p.feature_forces(s, weights, {true, true, true, false, false});
    CHECK(weighted.energy == Approx(energy).epsilon(1e-12).margin(1e-12));
    CHECK(-dot(weighted.forces, v) == Approx(along).epsilon(1e-9).margin(1e-9 * scale));
    CHECK_THROWS_WITH(p.feature_forces(s, {1.0}), Catch::Contains("weights of features"));
    CHECK_THROWS_WITH(p.feature_tangents(s, {}), Catch::Contains("0 rows"));

    Structure turned = s;  // x y z -> y z x
    for (Vector3& x : turned.positions) x = {x[1], x[2], x[0]};
    for (Vector3& x : turned.cell) x = {x[1], x[2], x[0]};
    std::swap(turned.pbc[0], turned.pbc[1]), std::swap(turned.pbc[1], turned.pbc[2]);
    const auto rotated = p.evaluate(turned, only_features).features;
    for (std::size_t k = 0; k < n * width; ++k) CHECK(rotated[k] == Approx(features[k]).epsilon(1e-9).margin(1e-10));
  }
}

TEST_CASE("the same bits for any number of threads") {
  for (const Precision precision : {Precision::float32, Precision::float64})
    for (const std::string& name : names()) {
      INFO(name);
      const Structure s = structure_of(name, "mixed");
      const Result one = load(name, precision, true, 1).evaluate(s, {true, true, true, true, true});
      for (const int threads : {2, 3, 5}) {
        Potential p = load(name, precision, true, threads);
        for (int repeat = 0; repeat < 2; ++repeat) {
          const Result many = p.evaluate(s, {true, true, true, true, true});
          CHECK(many.energy == one.energy);
          CHECK(many.energies == one.energies);
          CHECK(many.forces == one.forces);
          CHECK(many.virial == one.virial);
          CHECK(many.virials == one.virials);
          CHECK(many.features == one.features);
        }
      }
    }
}

TEST_CASE("a batch is its structures") {
  for (const std::string& name : names()) {
    INFO(name);
    Potential p = load(name, Precision::float64, true, 2);
    std::vector<Structure> all;
    for (const ReferenceValues& r : reference_model(name).heads.begin()->second) all.push_back(reference_structures().at(r.structure));
    const auto results = p.evaluate(all, {true, true, true, true, true});
    REQUIRE(results.size() == all.size());
    for (std::size_t k = 0; k < all.size(); ++k) {
      const Result single = p.evaluate(all[k], {true, true, true, true, true});
      CHECK(results[k].energy == Approx(single.energy).epsilon(1e-12).margin(1e-12));
      CHECK(largest_difference(results[k].forces, single.forces) < 1e-10);
      for (int a = 0; a < 9; ++a) CHECK(results[k].virial[a] == Approx(single.virial[a]).epsilon(1e-9).margin(1e-9));
      REQUIRE(results[k].features.size() == single.features.size());
      for (std::size_t x = 0; x < single.features.size(); ++x) CHECK(results[k].features[x] == Approx(single.features[x]).epsilon(1e-9).margin(1e-9));
    }
  }
}

TEST_CASE("energies go smoothly to those of isolated atoms at the cutoff") {
  for (const std::string& name : names()) {
    INFO(name);
    Potential p = load(name, Precision::float64, true);
    const int z = p.info().elements.front();
    const auto pair = [&](double r) {
      Structure s;
      s.numbers = {z, z};
      s.positions = {{0, 0, 0}, {r, 0, 0}};
      return p.evaluate(s);
    };
    Structure lone;
    lone.numbers = {z};
    lone.positions = {{0, 0, 0}};
    const Result alone = p.evaluate(lone);
    const double rc = p.cutoff(), apart = 2 * alone.energy;
    CHECK(norm(alone.forces[0]) == 0.0);
    CHECK(pair(rc + 1e-9).energy == Approx(apart).epsilon(1e-14));
    CHECK(pair(rc - 1e-4).energy == Approx(apart).epsilon(1e-7).margin(1e-7));
    CHECK(std::abs(pair(rc - 1e-5).forces[0][0]) < 1e-2);
    CHECK(pair(rc - 1e-5).forces[0][0] == Approx(-pair(rc - 1e-5).forces[1][0]).margin(1e-12));
  }
}

TEST_CASE("no energy drift in constant-energy dynamics, float") {
  // 108 Cu atoms as a harmonic-scale test of the integrator with exact forces; the long run is in the LAMMPS tests.
  Potential p = load("mace_medium", Precision::float32, true, 2);
  Structure s;
  const double a = 3.8;
  s.pbc = {true, true, true};
  for (int k = 0; k < 3; ++k) s.cell[k][k] = 3 * a;
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y)
      for (int z = 0; z < 3; ++z)
        for (const Vector3& b : {Vector3{0, 0, 0}, {0, .5, .5}, {.5, 0, .5}, {.5, .5, 0}}) {
          s.positions.push_back({(x + b[0]) * a, (y + b[1]) * a, (z + b[2]) * a});
          s.numbers.push_back(29);
        }
  const std::size_t n = s.positions.size();
  std::vector<Vector3> v = random_vectors(n, 9);
  const double mass = 63.5 * 103.642696, dt = 0.5;  // eV fs^2/angstrom^2; fs
  for (Vector3& x : v)
    for (double& c : x) c *= std::sqrt(8.617e-5 * 300 / mass);
  Result r = p.evaluate(s);
  const auto total = [&] { return r.energy + 0.5 * mass * dot(v, v); };
  const double start = total();
  double largest = 0.0;
  for (int step = 0; step < 200; ++step) {
    for (std::size_t i = 0; i < n; ++i)
      for (int k = 0; k < 3; ++k) {
        v[i][k] += 0.5 * dt * r.forces[i][k] / mass;
        s.positions[i][k] += dt * v[i][k];
      }
    r = p.evaluate(s);
    for (std::size_t i = 0; i < n; ++i)
      for (int k = 0; k < 3; ++k) v[i][k] += 0.5 * dt * r.forces[i][k] / mass;
    largest = std::max(largest, std::abs(total() - start));
  }
  CHECK(largest / static_cast<double>(n) < 1e-4);
}
