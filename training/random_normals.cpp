// SPDX-License-Identifier: MIT
#include "training/random_normals.hpp"

#include <cmath>

namespace adatom::training {
namespace {

/// The output function of SplitMix64: a bijection whose every input bit changes half of the output's.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace

RandomNormals::RandomNormals(std::uint64_t seed, std::string_view name) : state_(mix(mix(seed + 0x9e3779b97f4a7c15u) ^ fnv1a(name))) {}

double RandomNormals::uniform() {
  state_ += 0x9e3779b97f4a7c15u;
  return (static_cast<double>(mix(state_) >> 12) + 0.5) * 0x1p-52;
}

double RandomNormals::next() {
  constexpr double sqrt_8_over_e = 1.7155277699214135;
  for (;;) {
    const double u = uniform(), v = uniform();
    const double x = sqrt_8_over_e * (v - 0.5) / u;
    if (x * x <= -4.0 * std::log(u)) return x;
  }
}

}  // namespace adatom::training
