// SPDX-License-Identifier: MIT
// The threads that work through the loops of an evaluation.
//
// OpenMP would do, but for three things that its runtimes do not offer. A process that was forked (multiprocessing in Python) waits for ever in GCC's, whose
// threads are gone. A thread that waits spins for milliseconds, also where another process needs the core: two threads then take 2.6 times as long as one.
// And a loop ends when every thread has come, also one that has not been given a core since the loop began. Here a helper that comes too late is not waited
// for, those that wait sleep soon, sooner where a core is contended, and helpers are made anew after a fork.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <type_traits>

namespace adatom::gnn {

/// Backends are shared objects that the core loads: they see its threads through this.
class Threads {
 public:
  /// Of a loop where none is given: OMP_NUM_THREADS, else as many as the CPUs that this process may use.
  virtual int usual() const = 0;

  /// Calls work(context, k) for k = 0 in this thread, and for some or all of 0 < k < most at the same time in others; returns when none is at work. Which
  /// of them come, and when, is open: they share out the work themselves. Inside of `work` there are no further threads. `work` must not throw.
  virtual void run(int most, void (*work)(void*, int), void* context) = 0;

  /// Calls the check of an InterruptScope of this thread, if there is one and it was not called for a twentieth of a second; throws what that throws.
  virtual void heed() = 0;

 protected:
  ~Threads() = default;
};

/// Those of the library that this function is linked into.
Threads& threads();

/// While it lives, long work of this thread calls `check` about twenty times a second; what that throws ends the work.
class InterruptScope {
 public:
  explicit InterruptScope(const std::function<void()>& check);  // which must outlive it
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  const std::function<void()>* before_;
};

/// Calls body(begin, end, thread) for pieces of 0 .. n-1 of `grain` numbers each, by up to `most` threads, each of which takes the next piece when it has
/// done one; `thread` is below `most`. The first exception ends the loop and is thrown.
template <class Body>
void parallel_for(Threads& team, int most, std::int64_t n, std::int64_t grain, Body&& body) {
  if (most <= 1 || n <= grain) {
    for (std::int64_t begin = 0; begin < n; begin += grain) {
      team.heed();
      body(begin, std::min(n, begin + grain), 0);
    }
    return;
  }
  struct Loop {
    std::remove_reference_t<Body>& body;
    Threads& team;
    std::int64_t n, grain;
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure{};

    void work(int thread) {
      try {
        for (std::int64_t begin; !failed.load(std::memory_order_relaxed) && (begin = next.fetch_add(grain, std::memory_order_relaxed)) < n;) {
          if (thread == 0) team.heed();
          body(begin, std::min(n, begin + grain), thread);
        }
      } catch (...) {
        if (!failed.exchange(true)) failure = std::current_exception();
      }
    }
  } loop{body, team, n, grain};
  const int useful = static_cast<int>(std::min<std::int64_t>(most, (n + grain - 1) / grain));
  team.run(
      useful, [](void* l, int thread) { static_cast<Loop*>(l)->work(thread); }, &loop);
  if (loop.failure) std::rethrow_exception(loop.failure);
}

/// The same for loops of many small steps, in pieces of equal size.
template <class Body>
void parallel_for_each(Threads& team, int most, std::int64_t n, Body&& body) {
  constexpr std::int64_t smallest = 64;
  const std::int64_t grain = most <= 1 ? std::max<std::int64_t>(n, 1) : std::max(smallest, (n + 4 * most - 1) / (4 * most));
  parallel_for(team, most, n, grain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t k = begin; k < end; ++k) body(k);
  });
}

}  // namespace adatom::gnn
