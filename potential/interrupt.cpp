// SPDX-License-Identifier: MIT
#include "adatom/interrupt.hpp"

#include <utility>

#include "gnn/threads.hpp"

namespace adatom {

struct InterruptScope::Implementation {
  explicit Implementation(std::function<void()> given) : check(std::move(given)), scope(check) {}
  const std::function<void()> check;
  gnn::InterruptScope scope;
};

InterruptScope::InterruptScope(std::function<void()> check) : implementation_(std::make_unique<Implementation>(std::move(check))) {}
InterruptScope::~InterruptScope() = default;

}  // namespace adatom
