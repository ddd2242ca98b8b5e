// SPDX-License-Identifier: MIT
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "gnn/irreps.hpp"

namespace adatom::gnn {

using nlohmann::json;

/// An object of the architecture. It hands out values whose type and range it has checked, and knows which keys were never asked for. All members throw
/// std::runtime_error that names key, object, value and what was expected.
class Spec {
 public:
  /// `name`: of the object in messages, such as "layers.0.update". `value` has to outlive this.
  Spec(const json& value, std::string name);

  const std::string& name() const { return name_; }
  bool has(const std::string& key) const { return value_->contains(key); }
  const json& at(const std::string& key) const;
  double number(const std::string& key, double low, double high) const;
  int integer(const std::string& key, int low, int high) const;
  bool flag(const std::string& key) const;
  std::string text(const std::string& key) const;
  /// One of `choices`.
  std::string choice(const std::string& key, const std::vector<std::string>& choices) const;
  Irrep irrep(const std::string& key) const;
  /// At least one entry, each with at least one channel and a degree up to `max_degree`, `max_channels` over all.
  Irreps irreps(const std::string& key, int max_degree, std::size_t max_channels) const;
  Spec object(const std::string& key) const;
  /// A list of `low` to `high` values.
  const json& list(const std::string& key, std::size_t low, std::size_t high) const;
  bool is_null(const std::string& key) const { return at(key).is_null(); }
  /// Refuses keys that nobody asked for.
  void check_all_used() const;

  [[noreturn]] void wrong(const std::string& key, const std::string& expected) const;

 private:
  const json* value_;
  std::string name_;
  std::shared_ptr<std::set<std::string>> used_ = std::make_shared<std::set<std::string>>();
};

/// A whole number within the range of int, whatever its type in JSON; `what` names it in messages. Throws std::runtime_error.
int whole_number(const json& value, int low, int high, const std::string& what);

}  // namespace adatom::gnn
