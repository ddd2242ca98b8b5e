// SPDX-License-Identifier: MIT
// The host executor itself: what it is there to find, it finds.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "gnn/cuda/runtime.hpp"

using namespace adatom::gnn;
using namespace adatom::gnn::cuda;

namespace {

/// Sums of 64 numbers by two warps; `barrier`: between writing and reading.
struct SumOfNumbers {
  static constexpr bool one_warp = false;
  static constexpr int most_threads = 64;
  const double* from;
  double* to;  ///< [team][2]: forwards, and of the neighbour's number
  bool barrier;

  void operator()(BlockTeam& team) const {
    double* shared = team.shared<double>(team.size());
    double* sums = team.shared<double>(2);
    auto x = team.local<Array<double, 1>>();
    auto neighbour = team.local<double>();
    const auto write = [&](int t) { shared[t] = from[team.index() * 64 + t]; };
    const auto read = [&](int t) { neighbour[t] = shared[(t + 1) % 64]; };
    if (barrier) {
      team.each(write);
      team.each(read);
    } else {
      team.each([&](int t) { write(t), read(t); });
    }
    team.each([&](int t) { x[t][0] = neighbour[t]; });
    team.warps([&](const Warp& warp) { warp.sum_to(x, sums + warp.first() / warp_size); });
    team.each([&](int t) {
      if (t < 2) to[team.index() * 2 + t] = sums[t];
    });
  }
  static std::size_t shared() { return shared_bytes<double>(64) + shared_bytes<double>(2); }
};

std::vector<double> run(bool barrier, bool reverse) {
  std::vector<double> from(128), to(4);
  for (int k = 0; k < 128; ++k) from[k] = k;
  if (reverse) setenv("ADATOM_HOST_ORDER", "reverse", 1);
  Stream().teams(SumOfNumbers{from.data(), to.data(), barrier}, 2, SumOfNumbers::shared(), 64);
  unsetenv("ADATOM_HOST_ORDER");
  return to;
}

}  // namespace

TEST_CASE("phases, sums over warps, blocks") {
  const std::vector<double> expected{(32 * 33) / 2.0, 63 * 64 / 2.0 - (32 * 33) / 2.0, 32 * 64 + (32 * 33) / 2.0, 32 * 64 + 63 * 64 / 2.0 - (32 * 33) / 2.0};
  CHECK(run(true, false) == expected);
  CHECK(run(true, true) == expected);
}

TEST_CASE("a step that is recorded is done again with the arguments that it had, until its key changes") {
  double from[3] = {1, 2, 3}, other[3] = {10, 20, 30}, to[3] = {};
  Stream stream;
  const double* source = from;
  const auto step = [&] { stream.upload(to, source, sizeof to); };
  for (int k = 0; k < 2; ++k) {  // done, then recorded
    stream.replay(1, step);
    CHECK(to[1] == 2);
  }
  source = other;
  from[1] = 4;
  stream.replay(1, step);
  CHECK(to[1] == 4);
  stream.replay(2, step);
  CHECK(to[1] == 20);
  stream.replay(3, step);
  CHECK_THROWS_AS(stream.replay(3, [&] { stream.synchronize(); }), std::logic_error);
  stream.synchronize();
}

TEST_CASE("a barrier that is missing shows") {
  for (const double x : run(false, false)) CHECK(std::isnan(x));  // each thread reads before its neighbour has written
  CHECK_FALSE(std::isnan(run(false, true)[0]));
}

TEST_CASE("a launch with too little shared memory, or of a wrong size, is an error") {
  std::vector<double> from(64), to(2);
  const SumOfNumbers kernel{from.data(), to.data(), true};
  CHECK_THROWS_AS(Stream().teams(kernel, 1, SumOfNumbers::shared() - 16, 64), std::logic_error);
  CHECK_THROWS_AS(Stream().teams(kernel, 1, SumOfNumbers::shared(), 96), std::logic_error);
  CHECK_THROWS_AS(Stream().teams(kernel, 1, SumOfNumbers::shared(), 40), std::logic_error);
}
