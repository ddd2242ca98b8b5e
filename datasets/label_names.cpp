// SPDX-License-Identifier: MIT
#include "datasets/label_names.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

constexpr std::array labels = {Label::energy, Label::forces, Label::stress, Label::virial};
constexpr std::array prefixes = {"REF_", "ref_", "dft_", "DFT_"};
constexpr std::array units = {"eV/atom", "eV/angstrom", "eV/angstrom^3", "eV/angstrom^3 (as stresses)"};
// Numbers that are printed differ in their last digits; energies with and without smearing differ by less than this in most data.
constexpr std::array same = {1e-3, 1e-3, 1e-4, 1e-4};

std::size_t index(Label label) { return static_cast<std::size_t>(label); }

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

std::string family(std::string_view name) {
  for (const std::string_view prefix : prefixes)
    if (name.substr(0, prefix.size()) == prefix) return std::string(prefix);
  return {};
}

std::string rounded(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3g", value);
  return text.data();
}

std::string frames_text(std::int64_t n) { return std::to_string(n) + (n == 1 ? " frame" : " frames"); }

void append(std::string& list, const std::string& item) { list += (list.empty() ? "" : ", ") + item; }

}  // namespace

const std::string& usual_name(Label label) {
  static const std::array<std::string, label_kinds> names = {"energy", "forces", "stress", "virial"};
  return names[index(label)];
}

const std::vector<std::string>& other_names(Label label) {
  static const auto all = [] {
    std::array<std::vector<std::string>, label_kinds> names;
    for (const std::string prefix : prefixes)
      for (const Label l : labels) {
        names[index(l)].push_back(prefix + usual_name(l));
        if (l == Label::forces) names[index(l)].push_back(prefix + "force");
        if (l == Label::virial) names[index(l)].push_back(prefix + "virials");
      }
    return names;
  }();
  return all[index(label)];
}

bool begins_as_other_names(std::string_view name) {
  return std::any_of(prefixes.begin(), prefixes.end(), [name](std::string_view prefix) { return name.substr(0, prefix.size()) == prefix; });
}

std::optional<Label> promised_label(std::string_view name) {
  const std::string word = lower(name);
  for (const char* other : {"weight", "kinetic", "cutoff"})
    if (word.find(other) != word.npos) return std::nullopt;
  static const std::pair<std::string_view, Label> endings[] = {{"energy", Label::energy},  {"energies", Label::energy}, {"forces", Label::forces},
                                                               {"force", Label::forces},   {"stress", Label::stress},   {"stresses", Label::stress},
                                                               {"virials", Label::virial}, {"virial", Label::virial}};
  for (const auto& [ending, label] : endings) {
    const bool ends = word.size() >= ending.size() && word.compare(word.size() - ending.size(), ending.size(), ending) == 0;
    const bool begins = word.size() > ending.size() && word.compare(0, ending.size(), ending) == 0 && word[ending.size()] == '_';
    if (ends || begins) return label;
  }
  return std::nullopt;
}

void LabelNotes::read(Label label, const std::string& name, std::int64_t frame) {
  Uses& uses = uses_[index(label)];
  auto found = uses.find(name);
  if (found == uses.end()) found = uses.emplace(name, Use{0, frame}).first;
  ++found->second.frames;
}

void LabelNotes::beside(Label label, const std::string& read, const std::string& other, double difference, std::int64_t frame) {
  Beside& pair = beside_[index(label)][other];
  if (!(difference > same[index(label)])) return;
  if (pair.frames++ == 0) pair.first = frame;
  if (difference > pair.difference) pair.difference = difference, pair.read = read;
}

void LabelNotes::charge(double charge, bool alone) {
  if (!(std::abs(charge) > 1e-6)) return;
  ++charged_;
  ions_ += alone;
  if (std::abs(charge) > std::abs(largest_)) largest_ = charge;
}

void LabelNotes::spin(double spin) {
  if (!spins_) spins_ = {spin, spin};
  spins_ = {std::min(spins_->first, spin), std::max(spins_->second, spin)};
}

void LabelNotes::note_choice(std::vector<ReadingNote>& found, std::int64_t frames, const LabelKeys& keys) const {
  std::string list;
  std::set<std::string> families;
  bool other = false;
  for (const Label label : labels) {
    if (keys.named.count(usual_name(label))) continue;
    for (const auto& [name, use] : uses_[index(label)]) {
      families.insert(family(name));
      other = other || !family(name).empty();
      append(list, usual_name(label) + " from " + in_quotes(name) + " (" + std::to_string(use.frames) + " of " + frames_text(frames) + ")");
    }
  }
  if (!other) return;
  if (families.size() > 1)
    found.push_back({ReadingNote::Kind::warning, "label-names-mixed", "labels are read under names of different kinds: " + list,
                     "if they are not of one calculation, name the keys of those that are; naming them also ends this warning"});
  else
    found.push_back({ReadingNote::Kind::choice, "label-names", "labels are read under names other than the usual ones: " + list,
                     "right for most files; name the keys to read others"});
}

/// One label under several names in different frames of one file.
void LabelNotes::note_mixtures(std::vector<ReadingNote>& found) const {
  for (const Label label : labels) {
    std::string list;
    std::set<std::string> kinds;
    for (const auto& [name, use] : uses_[index(label)]) {
      kinds.insert(name == "free_energy" ? name : family(name));
      append(list, in_quotes(name) + " in " + frames_text(use.frames) + ", first frame " + std::to_string(use.first));
    }
    if (kinds.size() > 1)
      found.push_back({ReadingNote::Kind::warning, "label-mixed", "the " + usual_name(label) + " stands under several names: " + list,
                       "make sure that they are of one level of theory, or name the key of the one to read"});
  }
}

void LabelNotes::note_differences(std::vector<ReadingNote>& found) const {
  for (const Label label : labels)
    for (const auto& [other, pair] : beside_[index(label)]) {
      if (pair.frames == 0) continue;
      std::string advice = "name the key of the one to read; naming it also ends this warning";
      if (pair.read == "free_energy")
        advice = "forces are the derivative of the free energy, which is right if it is the electronic one; name the key 'energy' to read the other";
      found.push_back({ReadingNote::Kind::warning, "labels-differ",
                       in_quotes(pair.read) + " is read, and " + in_quotes(other) + " beside it differs in " + frames_text(pair.frames) + ", by up to " +
                           rounded(pair.difference) + " " + units[index(label)] + "; the first is frame " + std::to_string(pair.first),
                       advice});
    }
}

void LabelNotes::note_charges(std::vector<ReadingNote>& found, std::int64_t frames) const {
  const bool spins = spins_ && spins_->first != spins_->second;
  if (charged_ == 0 && !spins) return;
  std::string message;
  if (charged_ > 0)
    message =
        std::to_string(charged_) + " of " + frames_text(frames) + (charged_ == 1 ? " is" : " are") + " not neutral (charges up to " + rounded(largest_) + ")";
  if (spins) message += (message.empty() ? "" : ", ") + std::string("spins are from ") + rounded(spins_->first) + " to " + rounded(spins_->second);
  message += ": charges and spins are not part of the model";
  if (ions_ > 0)
    message += "; " + std::to_string(ions_) + " of them " + (ions_ == 1 ? "is an isolated ion" : "are isolated ions") + ", not taken for atomic energies";
  found.push_back({ReadingNote::Kind::warning, "charged", message, "train on frames of one charge and spin, or give each a head of its own"});
}

std::vector<ReadingNote> LabelNotes::notes(std::int64_t frames, const std::vector<const std::map<std::string, std::int64_t>*>& names,
                                           const LabelKeys& keys) const {
  std::vector<ReadingNote> found;
  note_choice(found, frames, keys);
  note_mixtures(found);
  note_differences(found);
  note_charges(found, frames);
  std::string unread;
  for (const auto* of : names)
    for (const auto& [name, count] : *of) {
      const bool used = std::any_of(std::begin(uses_), std::end(uses_), [&, key = std::string_view(name)](const Uses& uses) { return uses.count(key) > 0; });
      const bool charge = name == "charge" || name == "spin" || name == "total_charge" || name == "total_spin" || name == "multiplicity";
      if (used || name == keys.config_type || name == keys.group || name == keys.head || name == keys.charges) continue;
      if (charge || promised_label(name)) append(unread, in_quotes(name) + " (" + std::to_string(count) + " of " + frames_text(frames) + ")");
    }
  if (!unread.empty())
    found.push_back({ReadingNote::Kind::unread, "labels-not-read", "entries and columns that look like labels and are not read: " + unread,
                     "nothing to do if they are something else; name their key to read them"});
  return found;
}

}  // namespace adatom::datasets
