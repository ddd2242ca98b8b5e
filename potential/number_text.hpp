// SPDX-License-Identifier: MIT
#pragma once
#include <cstdio>
#include <string>

namespace adatom {

/// A number for a message, six digits of it: std::to_string writes 300 for 1e300, and 0.000000 for 1e-9.
inline std::string number_text(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", x);
  return text;
}

}  // namespace adatom
