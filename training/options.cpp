// SPDX-License-Identifier: MIT
#include "training/options.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "gnn/brief.hpp"

namespace adatom::training {

using nlohmann::json;

namespace {

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string range(int least, int most) {
  if (most == std::numeric_limits<int>::max()) return "a whole number from " + std::to_string(least);
  return "a whole number, " + std::to_string(least) + " to " + std::to_string(most);
}

}  // namespace

Options::Options(const json& table, std::string where) : table_(table), where_(std::move(where)) {
  if (!table.is_object()) throw std::invalid_argument(where_ + ": expected a table of options, got " + gnn::brief(table));
}

void Options::refuse(const std::string& key, const std::string& what) const {
  std::string value;
  if (table_.contains(key))
    value = " = " + gnn::brief(table_.at(key));
  else if (resolved_.contains(key))
    value = " = " + gnn::brief(resolved_.at(key)) + " (the default)";
  throw std::invalid_argument(where_ + ": " + key + value + ": " + what);
}

const json* Options::find(const std::string& key) {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.push_back(key);
  const auto it = table_.find(key);
  return it == table_.end() ? nullptr : &*it;
}

int Options::checked(const std::string& key, const json& value, int least, int most) const {
  if (!value.is_number_integer() || value.get<std::int64_t>() < least || value.get<std::int64_t>() > most) refuse(key, "expected " + range(least, most));
  return value.get<int>();
}

int Options::integer(const std::string& key, int standard, int least, int most) {
  const json* value = find(key);
  const int result = value ? checked(key, *value, least, most) : standard;
  resolved_[key] = result;
  return result;
}

double Options::number(const std::string& key, double standard, double above) {
  const json* value = find(key);
  if (value && (!value->is_number() || !(value->get<double>() > above) || !std::isfinite(value->get<double>())))
    refuse(key, "expected a number greater than " + json(above).dump());
  const double result = value ? value->get<double>() : standard;
  resolved_[key] = result;
  return result;
}

bool Options::flag(const std::string& key, bool standard) {
  const json* value = find(key);
  if (value && !value->is_boolean()) refuse(key, "expected true or false");
  const bool result = value ? value->get<bool>() : standard;
  resolved_[key] = result;
  return result;
}

std::string Options::text(const std::string& key, const std::string& standard) {
  const json* value = find(key);
  if (value && !value->is_string()) refuse(key, "expected a text");
  const std::string result = value ? value->get<std::string>() : standard;
  resolved_[key] = result;
  return result;
}

std::string Options::choice(const std::string& key, const std::string& standard, const std::vector<std::string>& allowed) {
  const json* value = find(key);
  if (value && (!value->is_string() || std::find(allowed.begin(), allowed.end(), value->get<std::string>()) == allowed.end()))
    refuse(key, "expected one of " + join(allowed));
  const std::string result = value ? value->get<std::string>() : standard;
  resolved_[key] = result;
  return result;
}

std::vector<int> Options::integers(const std::string& key, const std::vector<int>& standard, int least) {
  const json* value = find(key);
  std::vector<int> result = standard;
  if (value) {
    const int most = most_width;
    if (!value->is_array()) refuse(key, "expected a list, each " + range(least, most));
    result.clear();
    for (const json& entry : *value) result.push_back(checked(key, entry, least, most));
  }
  resolved_[key] = result;
  return result;
}

std::vector<int> Options::integers_of_layers(const std::string& key, int standard, int count, int least, int most) {
  const json* value = find(key);
  std::vector<int> result;
  if (value && value->is_array()) {
    for (const json& entry : *value) result.push_back(checked(key, entry, least, most));
    if (result.size() != std::size_t(count)) refuse(key, "expected one value for all layers, or a list of " + std::to_string(count) + ", one for each layer");
  } else {
    result.assign(count, value ? checked(key, *value, least, most) : standard);
  }
  resolved_[key] = result;
  return result;
}

std::vector<std::string> Options::choices_of_layers(const std::string& key, const std::string& standard, int count, const std::vector<std::string>& allowed) {
  const json* value = find(key);
  if (!value || !value->is_array()) {
    const std::vector<std::string> result(count, choice(key, standard, allowed));
    resolved_[key] = result;
    return result;
  }
  std::vector<std::string> result;
  for (const json& entry : *value) {
    if (!entry.is_string() || std::find(allowed.begin(), allowed.end(), entry.get<std::string>()) == allowed.end())
      refuse(key, "expected one of " + join(allowed) + " for each layer");
    result.push_back(entry.get<std::string>());
  }
  if (result.size() != std::size_t(count)) refuse(key, "expected one value for all layers, or a list of " + std::to_string(count) + ", one for each layer");
  resolved_[key] = result;
  return result;
}

std::optional<std::vector<std::string>> Options::texts(const std::string& key) {
  const json* value = find(key);
  if (!value) return std::nullopt;
  std::vector<std::string> result;
  if (!value->is_array()) refuse(key, "expected a list of texts");
  for (const json& entry : *value) {
    if (!entry.is_string()) refuse(key, "expected a list of texts");
    result.push_back(entry.get<std::string>());
  }
  resolved_[key] = result;
  return result;
}

void Options::finish(const std::map<std::string, std::string>& hints) const {
  for (const auto& [key, value] : table_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    const auto hint = hints.find(key);
    refuse(key, "no such option" + (hint == hints.end() ? "" : " (it is " + hint->second + " here)") + ": allowed are " + join(known_));
  }
}

}  // namespace adatom::training
