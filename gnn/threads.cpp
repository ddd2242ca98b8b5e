// SPDX-License-Identifier: MIT
#include "gnn/threads.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

namespace adatom::gnn {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// How long a thread spins before it sleeps. To wake it takes 5 to 50 us; the next loop of an evaluation follows after some us, the next evaluation of
// dynamics after some 10 to 100.
constexpr auto helper_spins = microseconds(1000), caller_spins = microseconds(200), contended_spins = microseconds(5);
// A thread that wants to run and does not for so long has lost its core to another process. For a while then threads spin less, and there is one helper
// fewer where a loop had to wait: for longer the more was lost and if it happens again, since it is a hiccup of the system or a process that stays.
constexpr auto lost_core = microseconds(100);
constexpr Clock::duration longest_rest = milliseconds(200);
constexpr int rest_per_loss = 4;

std::atomic<Clock::rep> contended_until{0};

bool contended(Clock::time_point now) { return now.time_since_epoch().count() < contended_until.load(std::memory_order_relaxed); }
void contend(Clock::time_point until) { contended_until.store(until.time_since_epoch().count(), std::memory_order_relaxed); }

/// What this thread has run so far.
Clock::duration cpu_time() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
}

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Spins until `done()`, or in vain for `limit`.
template <class Done>
void spin(Done done, Clock::duration limit) {
  constexpr int looks = 16;  // between two looks at the clock
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;
  const Clock::duration most = contended(start) ? contended_spins : limit;
  for (;;) {
    for (int k = 0; k < looks; ++k) {
      if (done()) return;
      pause();
    }
    const Clock::time_point now = Clock::now();
    if (const Clock::duration lost = now - last; lost > lost_core) {
      contend(now + std::min(rest_per_loss * lost, longest_rest));
      return;
    }
    if (now - start > most) return;
    last = now;
  }
}

/// How many helpers stay away: they would take turns with others on a core, and a loop would wait for its slowest turn.
class Resting {
 public:
  int helpers() {
    if (helpers_ == 0) return 0;
    if (const Clock::time_point now = Clock::now(); now > ends_) --helpers_, ends_ = now + length_;
    return helpers_;
  }

  /// A loop of `most` threads took so much longer because one of them had no core.
  void after(Clock::duration lost, int most) {
    const Clock::time_point now = Clock::now();
    const bool again = now - ends_ < 4 * length_;
    length_ = std::min(std::max(rest_per_loss * lost, again ? 2 * length_ : Clock::duration(0)), longest_rest);
    ends_ = now + length_;
    helpers_ = std::min(helpers_ + 1, most - 1);
    contend(ends_);
  }

 private:
  int helpers_ = 0;
  Clock::duration length_{};
  Clock::time_point ends_{};
};

/// Tells how long the thread that made it has been without a core since.
class CoreWatch {
 public:
  Clock::duration lost() const { return (Clock::now() - start_) - (cpu_time() - ran_); }

 private:
  Clock::time_point start_ = Clock::now();
  Clock::duration ran_ = cpu_time();
};

// A fork takes only the thread that called it along.
std::atomic<unsigned> forks{0};

/// Whether an OpenMP runtime in this process (LAMMPS brings one) may have bound its threads to cores.
bool binds_threads() {
  for (const char* name : {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"})
    if (std::getenv(name)) return true;
  return false;
}

/// The CPUs of this thread; where OpenMP has bound it, all that the runtime deals out: helpers would inherit a single core.
cpu_set_t usable_cpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  sched_getaffinity(0, sizeof cpus, &cpus);
  if (!binds_threads()) return cpus;
  void* runtime = nullptr;
  for (const char* name : {"libgomp.so.1", "libomp.so", "libomp.so.5", "libiomp5.so"})
    if (!runtime) runtime = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
  const auto find = [&](const char* name) {
    void* symbol = dlsym(RTLD_DEFAULT, name);
    return symbol || !runtime ? symbol : dlsym(runtime, name);
  };
  const auto places = reinterpret_cast<int (*)()>(find("omp_get_num_places"));
  const auto count = reinterpret_cast<int (*)(int)>(find("omp_get_place_num_procs"));
  const auto ids = reinterpret_cast<void (*)(int, int*)>(find("omp_get_place_proc_ids"));
  if (!places || !count || !ids) return cpus;
  for (int place = 0; place < places(); ++place) {
    std::vector<int> of_place(count(place));
    ids(place, of_place.data());
    for (const int cpu : of_place)
      if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &cpus);
  }
  return cpus;
}

/// The number at the beginning of an environment variable such as OMP_NUM_THREADS=8 or =8,2; 0 if there is none.
int number_in(const char* name) {
  const char* text = std::getenv(name);
  const long value = text ? std::strtol(text, nullptr, 10) : 0;
  return value > 0 && value < 1 << 20 ? static_cast<int>(value) : 0;
}

/// The helpers of one thread.
class Team {
 public:
  using Work = void (*)(void*, int);

  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  ~Team() {
    stop_ = true;
    loop_.fetch_add(2);
    loop_.notify_all();
    for (std::thread& t : helpers_) t.join();
  }

  void run(int most, Work work, void* context) {
    if (most <= 1 || running_) return work(context, 0);
    running_ = true;
    while (static_cast<int>(helpers_.size()) < most - 1 && add_helper()) {
    }
    work_ = work, context_ = context, most_ = std::max(1, most - resting_.helpers());
    lost_core_.store(false, std::memory_order_relaxed);  // in a loop that nobody waited in
    const unsigned open = loop_.load(std::memory_order_relaxed) + 1;
    loop_.store(open);
    loop_.notify_all();
    const CoreWatch watch;
    work(context, 0);
    Clock::duration lost = watch.lost();
    // Closed: who has not come yet stays away. A helper first counts itself, then looks whether the loop is still open; here it is the other way round, so
    // that one of the two sees the other.
    loop_.store(open + 1);
    if (inside_.load() != 0) {
      const Clock::duration waited = wait_for_helpers();
      if (lost_core_) lost = std::max(lost, waited);
    }
    if (lost > lost_core && most_ > 1) resting_.after(lost, most);
    running_ = false;
  }

 private:
  /// False where the system allows no further thread: the loop runs on those that there are.
  bool add_helper() {
    const int k = static_cast<int>(helpers_.size()) + 1;
    sigset_t all, before;  // signals are for the threads of the program
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      helpers_.emplace_back([this, k, seen = loop_.load()] { help(k, seen); });
    } catch (const std::system_error&) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      return false;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_setname_np(helpers_.back().native_handle(), "adatom");
    if (binds_threads()) {
      const cpu_set_t cpus = usable_cpus();
      pthread_setaffinity_np(helpers_.back().native_handle(), sizeof cpus, &cpus);
    }
    return true;
  }

  void help(int k, unsigned seen);

  Clock::duration wait_for_helpers() {
    const Clock::time_point begin = Clock::now();
    for (int inside; (inside = inside_.load()) != 0;) {
      spin([&] { return inside_.load(std::memory_order_relaxed) == 0; }, caller_spins);
      inside = inside_.load();
      if (inside != 0) inside_.wait(inside);
    }
    return Clock::now() - begin;
  }

  std::vector<std::thread> helpers_;
  bool running_ = false;
  Work work_ = nullptr;  // what a loop is stays as it is while helpers are inside
  void* context_ = nullptr;
  int most_ = 0;
  Resting resting_;
  std::atomic<bool> stop_{false}, lost_core_{false};
  alignas(64) std::atomic<unsigned> loop_{0};  // odd: a loop is open
  alignas(64) std::atomic<int> inside_{0};     // helpers at work
};

struct OfThread {
  std::unique_ptr<Team> team;
  unsigned forks = 0;
  const std::function<void()>* check = nullptr;
  Clock::time_point next_check{};
};
thread_local OfThread mine;
thread_local bool helps = false;  // it is a helper itself; apart from `mine`, whose destructor would be registered, and need memory, in each helper

void Team::help(int k, unsigned seen) {
  helps = true;
  for (;;) {
    spin([&] { return loop_.load(std::memory_order_relaxed) != seen; }, helper_spins);
    loop_.wait(seen);
    seen = loop_.load();
    if (stop_) return;
    if (seen % 2 == 0) continue;
    inside_.fetch_add(1);
    if (loop_.load() == seen && k < most_) {
      const CoreWatch watch;
      work_(context_, k);
      if (watch.lost() > lost_core) lost_core_ = true;
    }
    inside_.fetch_sub(1);
    inside_.notify_all();
  }
}

class CoreThreads final : public Threads {
 public:
  CoreThreads() {
    pthread_atfork(nullptr, nullptr, [] { ++forks; });
  }

  int usual() const override {
    static const int number = [] {
      const cpu_set_t cpus = usable_cpus();
      const int wanted = number_in("OMP_NUM_THREADS"), limit = number_in("OMP_THREAD_LIMIT"), most = wanted ? wanted : std::max(1, CPU_COUNT(&cpus));
      return limit ? std::min(limit, most) : most;
    }();
    return number;
  }

  void run(int most, void (*work)(void*, int), void* context) override {
    if (most <= 1 || helps) return work(context, 0);
    if (mine.forks != forks) {
      (void)mine.team.release();  // its threads are in the other process: nothing can be joined
      mine.forks = forks;
    }
    if (!mine.team) mine.team = std::make_unique<Team>();
    mine.team->run(most, work, context);
  }

  void heed() override {
    if (!mine.check) return;
    const Clock::time_point now = Clock::now();
    if (now < mine.next_check) return;
    mine.next_check = now + milliseconds(50);
    (*mine.check)();
  }
};

}  // namespace

Threads& threads() {
  static CoreThreads* all = new CoreThreads;  // never destroyed: threads may still run at the end of the program
  return *all;
}

InterruptScope::InterruptScope(const std::function<void()>& check) : before_(mine.check) {
  mine.check = check ? &check : nullptr;
  mine.next_check = Clock::now() + milliseconds(50);
}

InterruptScope::~InterruptScope() { mine.check = before_; }

}  // namespace adatom::gnn
