// SPDX-License-Identifier: MIT
#pragma once
#include <functional>
#include <memory>

#include "adatom/export.hpp"

namespace adatom {

/// While it lives, evaluations that this thread has called for call `check` about twenty times a second. What it throws ends the evaluation; the potential
/// can be used again afterwards, and gives the same numbers as before.
class ADATOM_EXPORT InterruptScope {
 public:
  explicit InterruptScope(std::function<void()> check);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct ADATOM_NO_EXPORT Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace adatom
