// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>

namespace adatom::training {

/// The processes that train one model together.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const { return 0; }
  virtual int size() const { return 1; }
  /// Sums over all processes, on all of them.
  virtual void sum(double*, std::size_t) {}
  /// The values of process 0, on all of them.
  virtual void broadcast(double*, std::size_t) {}
};

}  // namespace adatom::training
