// SPDX-License-Identifier: MIT
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  __builtin_cpu_init();
  const char* level = std::getenv("ADATOM_CPU");
  if (level && std::string(level) == "v4" && !__builtin_cpu_supports("avx512vl")) {
    std::cout << "skipped: this machine has no AVX-512\n";
    return 77;
  }
  if (level && std::string(level) == "v3" && !__builtin_cpu_supports("avx2")) {
    std::cout << "skipped: this machine has no AVX2\n";
    return 77;
  }
  return Catch::Session().run(argc, argv);
}
