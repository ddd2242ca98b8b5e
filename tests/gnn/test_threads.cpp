// SPDX-License-Identifier: MIT
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gnn/threads.hpp"

using namespace adatom::gnn;

namespace {

/// Whether a loop of n pieces by `most` threads calls its body once for each number, with thread numbers in range.
bool covers(int most, std::int64_t n, std::int64_t grain) {
  std::vector<int> count(n, 0);
  std::atomic<bool> in_range{true};
  parallel_for(threads(), most, n, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
    if (thread < 0 || thread >= most || end - begin > grain) in_range = false;
    for (std::int64_t k = begin; k < end; ++k) ++count[k];
  });
  return in_range && std::all_of(count.begin(), count.end(), [](int c) { return c == 1; });
}

}  // namespace

TEST_CASE("A loop does each of its pieces once, by any number of threads") {
  for (const int most : {1, 2, 3, 8})
    for (const std::int64_t n : {0, 1, 7, 1000}) {
      INFO("threads " << most << ", pieces " << n);
      CHECK(covers(most, n, 1));
      CHECK(covers(most, n, 16));
    }
  for (int repeat = 0; repeat < 20000; ++repeat) REQUIRE(covers(3, 5, 1));  // short loops, one right after the other
}

TEST_CASE("Helpers work at the same time as the thread that they help") {
  std::atomic<int> here{0};
  parallel_for(threads(), 2, 2, 1, [&](std::int64_t, std::int64_t, int) {
    ++here;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (here < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  });
  CHECK(here == 2);
}

TEST_CASE("An exception of a loop reaches its caller, and the next loop works") {
  for (const int most : {1, 4}) {
    CHECK_THROWS_WITH(parallel_for(threads(), most, 100, 1,
                                   [](std::int64_t begin, std::int64_t, int) {
                                     if (begin == 37) throw std::runtime_error("at 37");
                                   }),
                      "at 37");
    CHECK(covers(most, 100, 1));
  }
}

TEST_CASE("A loop inside of a loop runs in its thread") {
  std::vector<int> count(64, 0);
  parallel_for(threads(), 4, 8, 1, [&](std::int64_t outer, std::int64_t, int) {
    parallel_for(threads(), 4, 8, 1, [&](std::int64_t inner, std::int64_t, int) { ++count[8 * outer + inner]; });
  });
  CHECK(std::count(count.begin(), count.end(), 1) == 64);
}

TEST_CASE("Several threads have loops at the same time") {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int k = 0; k < 4; ++k)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat)
        if (!covers(3, 50, 1)) ++wrong;
    });
  for (std::thread& t : callers) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("A forked process has helpers of its own") {
  REQUIRE(covers(3, 100, 1));
  const pid_t child = fork();
  if (child == 0) {
    alarm(30);  // a child that hangs ends by it
    std::atomic<int> here{0};
    parallel_for(threads(), 2, 2, 1, [&](std::int64_t, std::int64_t, int) {
      ++here;
      while (here < 2) std::this_thread::yield();
    });
    _exit(covers(3, 100, 1) ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(covers(3, 100, 1));
}

TEST_CASE("A check of interrupts ends a loop, in the thread that asked for it only") {
  for (const int most : {1, 3}) {
    int calls = 0;
    const std::function<void()> check = [&] {
      if (++calls == 2) throw std::runtime_error("interrupted");
    };
    const auto wait = [](std::int64_t, std::int64_t, int) { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
    {
      const InterruptScope scope(check);
      CHECK_THROWS_WITH(parallel_for(threads(), most, 10000, 1, wait), "interrupted");
      std::thread([&] { parallel_for(threads(), most, 40, 1, wait); }).join();
    }
    CHECK(calls == 2);
    parallel_for(threads(), most, 40, 1, wait);  // the scope has ended
    CHECK(calls == 2);
  }
}
