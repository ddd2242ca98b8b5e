// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>
#include <string_view>

namespace adatom::training {

/// Random numbers of the unit normal distribution, the same for a seed and a name on every machine. A name has its own sequence, so that what one
/// tensor starts with does not depend on which others there are, or on their order.
///
/// Integers are those of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014); normals follow by the ratio of uniforms (Kinderman, Monahan, ACM TOMS 3, 257
/// (1977)), whose values need nothing but divisions: the logarithm, which math libraries round differently, only accepts or rejects.
class RandomNormals {
 public:
  RandomNormals(std::uint64_t seed, std::string_view name);
  double next();

 private:
  double uniform();  ///< within (0, 1)
  std::uint64_t state_;
};

}  // namespace adatom::training
