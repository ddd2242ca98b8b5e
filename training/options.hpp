// SPDX-License-Identifier: MIT
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace adatom::training {

// Beyond these no model fits a machine, and sizes that are computed from them still fit their integers.
inline constexpr int most_width = 100'000, most_layers = 100;

/// Reads the keys of a table of options, one after the other, and remembers which it was asked for. Throws std::invalid_argument that names the key,
/// its value and what is allowed.
class Options {
 public:
  /// `where` is for messages, e.g. "model". `table` must outlive this.
  Options(const nlohmann::json& table, std::string where);

  bool has(const std::string& key) const { return table_.contains(key); }
  int integer(const std::string& key, int standard, int least, int most);
  double number(const std::string& key, double standard, double above);  ///< any number > `above`
  bool flag(const std::string& key, bool standard);
  std::string text(const std::string& key, const std::string& standard);
  std::string choice(const std::string& key, const std::string& standard, const std::vector<std::string>& allowed);
  std::vector<int> integers(const std::string& key, const std::vector<int>& standard, int least);  ///< a list
  /// A value for each of `count` layers: a list, or one value for all.
  std::vector<int> integers_of_layers(const std::string& key, int standard, int count, int least, int most);
  std::vector<std::string> choices_of_layers(const std::string& key, const std::string& standard, int count, const std::vector<std::string>& allowed);
  std::optional<std::vector<std::string>> texts(const std::string& key);  ///< a list; none if absent

  /// "model: KEY = VALUE: WHAT"
  [[noreturn]] void refuse(const std::string& key, const std::string& what) const;

  /// To be called when all was read: refuses keys that nothing asked for. `hints`: names that other programs have for a key.
  void finish(const std::map<std::string, std::string>& hints = {}) const;

  /// All keys with their values, defaults filled in, in the order in which they were asked for.
  const nlohmann::ordered_json& resolved() const { return resolved_; }

 private:
  const nlohmann::json* find(const std::string& key);
  int checked(const std::string& key, const nlohmann::json& value, int least, int most) const;
  const nlohmann::json& table_;
  std::string where_;
  std::vector<std::string> known_;
  nlohmann::ordered_json resolved_ = nlohmann::ordered_json::object();
};

}  // namespace adatom::training
