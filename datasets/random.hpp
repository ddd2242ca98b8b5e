// SPDX-License-Identifier: MIT
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

/// Random numbers that are the same on every machine and with every compiler: integers only, and none of <random>'s distributions, whose results the
/// standard leaves open.
namespace adatom::datasets {

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection that scatters its argument.
constexpr std::uint64_t scatter(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
  x = (x ^ x >> 27) * 0x94D049BB133111EB;
  return x ^ x >> 31;
}

/// xoshiro256** 1.0 (Blackman, Vigna, ACM Trans. Math. Softw. 47, 36, 2021), its state filled by SplitMix64 as its authors recommend.
class Random {
 public:
  explicit Random(std::uint64_t seed) {
    for (std::uint64_t& word : state_) word = scatter(seed), seed += 0x9E3779B97F4A7C15;
  }

  std::uint64_t next() {
    const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9, t = state_[1] << 17;
    state_[2] ^= state_[0], state_[3] ^= state_[1], state_[1] ^= state_[2], state_[0] ^= state_[3], state_[2] ^= t;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  /// Uniform in 0 .. n-1, without bias: numbers of the incomplete last cycle are drawn again.
  std::uint64_t below(std::uint64_t n) {
    const std::uint64_t incomplete = (0 - n) % n;  // 2^64 mod n
    for (;;)
      if (const std::uint64_t x = next(); x >= incomplete) return x % n;
  }

 private:
  std::uint64_t state_[4];
};

/// Fisher-Yates.
template <class T>
void shuffle(std::vector<T>& values, Random& random) {
  for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

/// The numbers 0 .. n-1 in random order; the order of an epoch's frames is shuffled(n, seed + epoch).
inline std::vector<std::size_t> shuffled(std::size_t n, std::uint64_t seed) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  Random random(seed);
  shuffle(order, random);
  return order;
}

}  // namespace adatom::datasets
