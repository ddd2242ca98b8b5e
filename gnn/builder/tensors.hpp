// SPDX-License-Identifier: MIT
#pragma once
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "gnn/evaluator.hpp"

namespace adatom::gnn {

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error("model: " + what); }

inline std::string shape_string(const std::vector<std::size_t>& shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

/// Hands out tensors, checks their shapes, and knows which were never asked for.
class Weights {
 public:
  explicit Weights(const Tensors& tensors) : tensors_(tensors) {
    for (const auto& [name, tensor] : tensors) count_ += tensor.data.size();
  }

  /// Numbers in all tensors.
  std::size_t count() const { return count_; }

  const Tensor* find(const std::string& name) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) return nullptr;
    used_.insert(name);
    return &it->second;
  }
  const Tensor& get(const std::string& name) {
    const Tensor* t = find(name);
    if (!t) fail("tensor '" + name + "' is missing although the architecture calls for it");
    return *t;
  }
  const Tensor& get(const std::string& name, const std::vector<std::size_t>& shape) {
    const Tensor& t = get(name);
    if (t.shape != shape) fail("tensor '" + name + "' has shape " + shape_string(t.shape) + ", expected " + shape_string(shape));
    return t;
  }
  /// First axis `count`, or 1 for "the same for all".
  const Tensor& get_per(const std::string& name, std::size_t count, std::size_t a, std::size_t b) {
    const Tensor& t = get(name);
    if (t.shape.size() != 3 || (t.shape[0] != count && t.shape[0] != 1) || t.shape[1] != a || t.shape[2] != b)
      fail("tensor '" + name + "' has shape " + shape_string(t.shape) + ", expected " + shape_string({count, a, b}) + " or " + shape_string({1, a, b}));
    return t;
  }
  void check_all_used() const {
    for (const auto& [name, tensor] : tensors_)
      if (!used_.count(name)) fail("tensor '" + name + "' is not used by the architecture; the file was written for something this version does not know");
  }

 private:
  const Tensors& tensors_;
  std::size_t count_ = 0;
  std::set<std::string> used_;
};

}  // namespace adatom::gnn
