// SPDX-License-Identifier: MIT
// A steady step allocates nothing: once an evaluation has grown its buffers for a neighbour list, further ones on that list with other positions
// take no memory from the heap, on any thread.
//
// This executable replaces malloc and its relatives by ones that count and hand on to glibc's, so that everything is seen: operator new, OpenMP, and
// the backend that is loaded at run time. Under the address sanitizer, which has its own malloc, operator new is replaced instead.
#include <execinfo.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <new>
#include <random>

#include <adatom/neighbor_list.hpp>

#include "reference.hpp"

using namespace adatom;

namespace {

std::atomic<bool> counting{false};
std::atomic<int> allocations{0};
void* first_stack[48];
std::atomic<int> first_depth{0};

void count() {
  if (!counting.load(std::memory_order_relaxed)) return;
  if (allocations.fetch_add(1) != 0) return;
  counting = false;  // backtrace() may allocate
  first_depth = backtrace(first_stack, 48);
  counting = true;
}

/// Number of allocations of all threads while f runs.
template <class F>
int allocations_of(F f) {
  allocations = 0;
  counting = true;
  f();
  counting = false;
  return allocations;
}

/// Writes where the first allocation came from, for the one who has to find it.
void print_first_stack() { backtrace_symbols_fd(first_stack, first_depth, STDERR_FILENO); }

}  // namespace

#ifndef __SANITIZE_ADDRESS__
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) { return count(), __libc_malloc(size); }
void* calloc(std::size_t n, std::size_t size) { return count(), __libc_calloc(n, size); }
void* realloc(void* p, std::size_t size) { return count(), __libc_realloc(p, size); }
void* memalign(std::size_t alignment, std::size_t size) { return count(), __libc_memalign(alignment, size); }
void* aligned_alloc(std::size_t alignment, std::size_t size) { return count(), __libc_memalign(alignment, size); }
int posix_memalign(void** p, std::size_t alignment, std::size_t size) {
  count();
  *p = __libc_memalign(alignment, size);
  return *p ? 0 : 12;  // ENOMEM
}
}
#else
void* operator new(std::size_t size) {
  count();
  if (void* p = std::malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  count();
  const auto a = static_cast<std::size_t>(alignment);
  if (void* p = std::aligned_alloc(a, (size + a) / a * a)) return p;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  count();
  return std::malloc(size ? size : 1);
}
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif

namespace {

/// 108 atoms of a disordered crystal of two of the model's elements.
Structure crystal(const ModelInfo& info) {
  std::mt19937 random(5);
  std::normal_distribution<double> noise(0.0, 0.05);
  std::bernoulli_distribution coin(0.3);
  Structure s;
  constexpr double a = 3.9;
  constexpr int repeat = 3;
  s.cell = {{{repeat * a, 0, 0}, {0, repeat * a, 0}, {0, 0, repeat * a}}};
  s.pbc = {true, true, true};
  for (int x = 0; x < repeat; ++x)
    for (int y = 0; y < repeat; ++y)
      for (int z = 0; z < repeat; ++z)
        for (const Vector3& site : {Vector3{0, 0, 0}, Vector3{0, 0.5, 0.5}, Vector3{0.5, 0, 0.5}, Vector3{0.5, 0.5, 0}}) {
          s.positions.push_back({(x + site[0]) * a + noise(random), (y + site[1]) * a + noise(random), (z + site[2]) * a + noise(random)});
          s.numbers.push_back(coin(random) ? info.elements.back() : info.elements.front());
        }
  return s;
}

constexpr double skin = 0.5;  // angstrom

/// Moves every atom within the skin, by as much as lets many pairs enter and leave the cutoff.
void shake(const std::vector<Vector3>& rest, std::vector<Vector3>& positions, std::mt19937& random) {
  std::uniform_real_distribution<double> shift(-0.14, 0.14);  // 0.14 sqrt(3) < skin / 2
  for (std::size_t i = 0; i < rest.size(); ++i)
    for (int a = 0; a < 3; ++a) positions[i][a] = rest[i][a] + shift(random);
}

/// The model's own name, so that a case can be run alone: test_allocations -c mace_small
const char* const models[] = {"mace_small", "mace_large", "mace_density", "mace_pair_02", "sevennet_l3", "sevennet_fcn", "sevennet_modal_bias"};

}  // namespace

TEST_CASE("allocations are seen") {
  CHECK(allocations_of([] { std::free(std::malloc(100)); }) <= 1);
  int* volatile p = nullptr;
  CHECK(allocations_of([&] { p = new int(3); }) == 1);
  delete p;
  // Also those of the libraries: loading a model needs many.
  CHECK(allocations_of([] { Potential::load(reference_model("mace_small").file); }) > 100);
}

TEST_CASE("a steady evaluation of a graph allocates nothing") {
  for (const char* name : models)
    for (const Precision precision : {Precision::float32, Precision::float64})
      for (const int threads : {1, 2})
        for (const bool splines : {true, false}) {
          INFO(name << ", " << (precision == Precision::float32 ? "float" : "double") << ", threads " << threads << ", splines " << splines);
          const ReferenceModel& model = reference_model(name);
          LoadOptions options;
          options.precision = precision;
          options.threads = threads;
          options.splines = splines;
          options.head = model.heads.begin()->first;
          Potential potential = Potential::load(model.file, options);

          const Structure s = crystal(potential.info());
          NeighborList list(potential.cutoff(), skin);
          list.update(s, threads);
          std::vector<int> species;
          for (const int z : s.numbers) species.push_back(potential.species(z));
          std::vector<Vector3> positions = s.positions, forces(positions.size());
          std::vector<double> energies(positions.size());
          std::vector<std::array<double, 9>> virials(positions.size());
          Graph graph;
          graph.revision = list.revision();
          graph.n_receivers = graph.n_nodes = static_cast<int>(positions.size());
          graph.species = species.data();
          graph.first_edge = list.first_edge().data();
          graph.sender = list.sender().data();
          graph.shift = list.shift().data();
          graph.shifts = list.shifts().front().data();
          graph.positions = positions.front().data();
          GraphResult result;
          result.energies = energies.data();
          result.forces = forces.front().data();
          result.want_virial = true;
          result.atom_virials = virials.front().data();

          std::mt19937 random(6);
          potential.evaluate(graph, result);
          for (int step = 0; step < 8; ++step) {
            shake(s.positions, positions, random);
            const int found = allocations_of([&] { potential.evaluate(graph, result); });
            INFO("step " << step);
            if (found) print_first_stack();
            CHECK(found == 0);
          }
          CHECK(result.energy != 0.0);
        }
}

TEST_CASE("a steady evaluation of a structure allocates its result and nothing else") {
  const int threads = GENERATE(1, 2);
  LoadOptions options;
  options.threads = threads;
  Potential potential = Potential::load(reference_model("mace_small").file, options);
  Structure s = crystal(potential.info());
  const std::vector<Vector3> rest = s.positions;
  potential.evaluate(s);  // makes the list
  std::mt19937 random(7);
  for (int step = 0; step < 8; ++step) {
    shake(rest, s.positions, random);
    CHECK(allocations_of([&] { potential.evaluate(s); }) == 2);  // energies and forces
  }
}
