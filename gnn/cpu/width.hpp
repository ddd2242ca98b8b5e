// SPDX-License-Identifier: MIT
// What the instruction set that a file is compiled for offers.
#pragma once

namespace adatom::gnn::cpu {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, linear_rows = 12;  // 32 registers
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32, linear_rows = 6;  // 16 registers
#else
inline constexpr int vector_bytes = 16, linear_rows = 6;
#endif

}  // namespace adatom::gnn::cpu
