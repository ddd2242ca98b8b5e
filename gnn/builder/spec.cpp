// SPDX-License-Identifier: MIT
#include "gnn/builder/spec.hpp"

#include <algorithm>
#include <stdexcept>

#include "gnn/brief.hpp"
#include "gnn/builder/tensors.hpp"

namespace adatom::gnn {

namespace {

std::string range(const json& low, const json& high) { return low.dump() + " to " + high.dump(); }

bool is_whole(const json& value, int low, int high) {
  // As double, since the integers of JSON can be beyond int, which get() would silently wrap.
  return value.is_number_integer() && value.get<double>() >= low && value.get<double>() <= high;
}

}  // namespace

int whole_number(const json& value, int low, int high, const std::string& what) {
  if (!is_whole(value, low, high)) fail(what + " is " + brief(value) + ", expected a whole number from " + range(low, high));
  return value.get<int>();
}

Spec::Spec(const json& value, std::string name) : value_(&value), name_(std::move(name)) {
  if (!value.is_object()) fail(name_ + " is " + brief(value) + ", expected an object");
}

void Spec::wrong(const std::string& key, const std::string& expected) const {
  fail("'" + key + "' of " + name_ + " is " + brief(value_->at(key)) + ", expected " + expected);
}

const json& Spec::at(const std::string& key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) fail(name_ + " lacks '" + key + "'; the file is damaged, or from another version");
  used_->insert(key);
  return *found;
}

double Spec::number(const std::string& key, double low, double high) const {
  const json& value = at(key);
  if (!value.is_number() || !(value.get<double>() >= low) || !(value.get<double>() <= high)) wrong(key, "a number from " + range(low, high));
  return value.get<double>();
}

int Spec::integer(const std::string& key, int low, int high) const {
  if (!is_whole(at(key), low, high)) wrong(key, "a whole number from " + range(low, high));
  return value_->at(key).get<int>();
}

bool Spec::flag(const std::string& key) const {
  if (!at(key).is_boolean()) wrong(key, "true or false");
  return value_->at(key).get<bool>();
}

std::string Spec::text(const std::string& key) const {
  if (!at(key).is_string()) wrong(key, "a text");
  return value_->at(key).get<std::string>();
}

std::string Spec::choice(const std::string& key, const std::vector<std::string>& choices) const {
  const std::string value = text(key);
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return value;
  std::string all;
  for (const auto& c : choices) all += (all.empty() ? "" : ", ") + c;
  wrong(key, "one of " + all);
}

Irrep Spec::irrep(const std::string& key) const {
  try {
    return Irrep::parse(text(key));
  } catch (const std::invalid_argument&) {
    wrong(key, "an irrep such as 1o");
  }
}

Irreps Spec::irreps(const std::string& key, int max_degree, std::size_t max_channels) const {
  constexpr std::size_t max_entries = 1000;
  Irreps irreps;
  try {
    irreps = Irreps::parse(text(key));
  } catch (const std::invalid_argument&) {
    wrong(key, "irreps such as 32x0e+32x1o");
  }
  std::size_t channels = 0;
  bool fits = irreps.size() > 0 && irreps.size() <= max_entries;
  for (const MulIrrep& e : irreps) {
    fits = fits && e.mul > 0 && e.ir.l <= max_degree;
    channels += static_cast<std::size_t>(e.mul);
  }
  if (!fits) wrong(key, "1 to " + std::to_string(max_entries) + " irreps with at least one channel each and degrees up to " + std::to_string(max_degree));
  // Every channel has a weight of its own at least: more of them than that would be memory that a damaged number asks for.
  if (channels > max_channels) wrong(key, "at most as many channels as the file has weights, " + std::to_string(max_channels));
  return irreps;
}

Spec Spec::object(const std::string& key) const {
  if (!at(key).is_object()) wrong(key, "an object");
  return {value_->at(key), name_ == "architecture" ? key : name_ + "." + key};
}

const json& Spec::list(const std::string& key, std::size_t low, std::size_t high) const {
  const json& value = at(key);
  if (!value.is_array() || value.size() < low || value.size() > high) wrong(key, "a list of " + range(low, high) + " entries");
  return value;
}

void Spec::check_all_used() const {
  for (const auto& item : value_->items())
    if (!used_->contains(item.key()))
      fail("'" + item.key() + "' of " + name_ + " is not used by the architecture; the file was written for something this version does not know");
}

}  // namespace adatom::gnn
