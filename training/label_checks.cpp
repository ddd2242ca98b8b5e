// SPDX-License-Identifier: MIT
#include "training/label_checks.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "adatom/elements.hpp"
#include "datasets/atomic_energies.hpp"
#include "datasets/checks.hpp"
#include "datasets/statistics.hpp"
#include "datasets/text.hpp"

namespace adatom::training {
namespace {

using datasets::Frame;

/// Frames that train and frames that validate, in the order of their files: some signs are in the differences of neighbours.
struct Examined {
  struct Entry {
    const FrameSet* set;
    std::size_t number;  // in the set
    datasets::FrameReference at;
  };
  std::vector<std::shared_ptr<FrameFile>> files;
  std::vector<Entry> entries;
  std::size_t trains = 0;  // files that training reads; those behind it are of data.valid

  explicit Examined(const RunData& data) {
    for (const FrameSet* set : {&data.train, &data.valid}) {
      std::vector<int> sources;                // of the set's files, in `files`
      for (const auto& file : set->files()) {  // those that were split are the same
        const auto known = std::find(files.begin(), files.end(), file);
        sources.push_back(static_cast<int>(known - files.begin()));
        if (known == files.end()) files.push_back(file);
      }
      for (std::size_t k = 0; k < set->size(); ++k) entries.push_back({set, k, {sources[set->info(k).file], static_cast<std::int64_t>(set->info(k).index)}});
      if (set == &data.train) trains = files.size();
    }
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return std::pair(a.at.source, a.at.index) < std::pair(b.at.source, b.at.index); });
  }

  /// The files of a finding's frames, as the configuration names them.
  std::string name(const datasets::Finding& finding) const {
    return !finding.frames.empty() && static_cast<std::size_t>(finding.frames.front().source) >= trains ? "data.valid" : "data.train";
  }
};

/// Of large sets runs of neighbours are looked at.
datasets::Report examine(const Examined& all, const IsolatedAtoms& isolated) {
  constexpr std::size_t run = 100, most = 10000;
  const std::size_t n = all.entries.size(), stride = std::max(run, (n / most + 1) * run);
  datasets::StatisticsOptions options;
  options.near_duplicates = false;
  options.symmetry_frames = 0;
  datasets::Statistics statistics(options);
  for (const auto& file : all.files) statistics.add_source(file->path);
  for (const auto& [head, energies] : isolated)
    for (const auto& [z, energy] : energies) {
      Frame atom;
      atom.structure.numbers = {z}, atom.structure.positions = {{}};
      atom.energy = energy, atom.head = head;
      statistics.add(atom, {});
    }
  Frame space;
  for (std::size_t k = 0; k < n; ++k)
    if (n <= most || k % stride < run) statistics.add(all.entries[k].set->get(all.entries[k].number, space), all.entries[k].at);
  return statistics.finish();
}

/// Names the frame of a message as its file has it: those in memory are numbered without isolated atoms.
std::string with_origin(std::string message, const datasets::Finding& finding, const datasets::Report& report, const Examined& all) {
  if (finding.frames.empty()) return message;
  const datasets::FrameReference& frame = finding.frames.front();
  const FrameFile& file = *all.files.at(static_cast<std::size_t>(frame.source));
  const std::string name = text(frame, report);
  const auto at = message.find(name);
  if (!file.cache && at != message.npos) message.replace(at, name.size(), file.origins.at(static_cast<std::size_t>(frame.index)));
  return message;
}

const datasets::HeadSummary* find_head(const datasets::Report& report, const std::string& head) {
  const auto found = report.heads.find(head == "Default" && !report.heads.count(head) ? "" : head);
  return found == report.heads.end() ? nullptr : &found->second;
}

void refuse_contradiction(const RunData& data, const DataOptions& options) {
  for (const auto& [head, atoms] : data.isolated)
    for (const auto& [symbol, energy] : options.atomic_energy_of)
      if (const auto found = atoms.find(atomic_number(symbol)); found != atoms.end() && std::abs(found->second - energy) > datasets::isolated_contradiction)
        throw std::invalid_argument("data.atomic_energy_of." + symbol + " is " + datasets::number_text(energy) + " eV, but the isolated atom of " + symbol +
                                    (head.empty() ? "" : " of the head '" + head + "'") + " in the data has " + datasets::number_text(found->second) +
                                    " eV: keep the one of the level of theory of the configurations");
}

/// Whether a head's atomic energies are those of atoms, and not what fits its configurations best.
bool of_atoms(const RunData& data, const std::string& head, const DataOptions& options) {
  if (options.atomic_energies == "least_squares") return false;
  if (options.atomic_energies != "auto" || !options.atomic_energy_of.empty()) return true;
  return !isolated_atoms(data, head).empty();
}

void suspect_energies(const RunConfig& config, const datasets::Report& report, RunData& data) {
  if (config.data.atomic_energies == "model") return;
  if (config.model.contains("file") && config.data.atomic_energies == "auto" && config.data.atomic_energy_of.empty()) return;  // the model's are kept
  if (std::none_of(data.heads.begin(), data.heads.end(), [&](const std::string& head) { return of_atoms(data, head, config.data); })) return;
  const auto rows = atomic_energies(data, config.data);
  for (std::size_t h = 0; h < data.heads.size(); ++h) {
    const datasets::HeadSummary* head = find_head(report, data.heads[h]);
    if (!head || !of_atoms(data, data.heads[h], config.data)) continue;
    std::map<int, double> energies;
    for (std::size_t z = 0; z < data.elements.size(); ++z) energies[data.elements[z]] = rows[h][z];
    const std::string reason = datasets::suspect_atomic_energies(energies, head->compositions);
    if (!reason.empty())
      data.warnings.push_back(
          "the atomic energies do not belong to data.train" + (data.heads.size() > 1 ? ", head '" + data.heads[h] + "'" : "") + ": " + reason +
          ". Are they of the same level of theory, code and unit, and all energies totals? data.atomic_energies = " + "\"least_squares\" does without them");
  }
}

}  // namespace

void keep_isolated(IsolatedAtoms& isolated, const Frame& atom, const std::string& where) {
  const int z = atom.structure.numbers.at(0);
  const auto [kept, is_new] = isolated[atom.head].emplace(z, *atom.energy);
  if (!is_new && std::abs(kept->second - *atom.energy) > datasets::isolated_contradiction)
    throw datasets::DataError(where + ": this isolated atom of " + element_symbol(z) + " has an energy of " + datasets::number_text(*atom.energy) +
                              " eV, another one of the data has " + datasets::number_text(kept->second) +
                              " eV: keep the one in its ground state, of the level of theory of the configurations");
}

void check_labels(const RunConfig& config, RunData& data) {
  refuse_contradiction(data, config.data);
  const Examined all(data);
  const datasets::Report report = examine(all, data.isolated);
  for (const auto& [name, head] : report.heads)
    for (const datasets::UnitSuspicion& s : head.units)
      data.warnings.push_back("the " + s.quantity + " of data.train" + (name.empty() ? "" : ", head '" + name + "',") + " may be in " + s.unit + ": " +
                              s.reason + ". Adatom expects eV and angstrom; `adatom data check` tells more");
  for (const datasets::Finding& finding : datasets::check_labels(report))
    if (finding.code != "units") data.warnings.push_back(all.name(finding) + ": " + with_origin(finding.message, finding, report, all) + ": " + finding.advice);
  suspect_energies(config, report, data);
}

}  // namespace adatom::training
