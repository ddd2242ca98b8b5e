// SPDX-License-Identifier: MIT
#include "datasets/checks.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "adatom/elements.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

constexpr double same_energy = 1e-3;     // eV per atom, between copies of one structure
constexpr double alike_energy = 5e-3;    // eV per atom, between near-duplicates
constexpr double least_distance = 0.5;   // angstrom; H2 has 0.74
constexpr double most_net_force = 0.05;  // eV/angstrom, median over frames; converged DFT has 0.01
constexpr double same_isolated = 1e-3;   // eV, between isolated atoms of one element

std::string frames(std::size_t n) { return std::to_string(n) + (n == 1 ? " frame" : " frames"); }

class Checker {
 public:
  explicit Checker(const Report& report) : report_(report) {}

  std::vector<Finding> run() {
    if (report_.frames == 0) add(Severity::error, "empty", "there are no frames", "give files that have some");
    check_defects();
    check_missing();
    check_duplicates();
    check_structures();
    for (Finding& finding : check_labels(report_)) found_.push_back(std::move(finding));
    for (const auto& [name, head] : report_.heads) {
      in_head_ = report_.heads.size() > 1 ? " in head '" + name + "'" : "";
      check_outliers(head);
      check_net_force(head);
      check_atomic_energies(head);
    }
    std::stable_sort(found_.begin(), found_.end(), [](const Finding& a, const Finding& b) { return a.severity > b.severity; });
    return std::move(found_);
  }

 private:
  void add(Severity severity, const char* code, const std::string& message, const std::string& advice, std::vector<FrameReference> list = {}) {
    found_.push_back({severity, code, message, advice, std::move(list)});
  }

  void check_defects() {
    if (report_.defective.empty()) return;
    std::vector<FrameReference> list;
    for (const Defect& defect : report_.defective)
      if (list.empty() || list.back().source != defect.frame.source || list.back().index != defect.frame.index) list.push_back(defect.frame);
    const Defect& first = report_.defective.front();
    add(Severity::error, "defect", frames(list.size()) + " cannot be used; the first: " + text(first.frame, report_) + ": " + first.what,
        "mend them, or leave them out with `adatom data convert --drop-defective`", list);
  }

  void check_missing() {
    const auto good = report_.frames - static_cast<std::int64_t>(report_.defective.size());
    std::int64_t energies = 0, forces = 0, stresses = 0;
    for (const auto& [name, head] : report_.heads) energies += head.with_energy, forces += head.with_forces, stresses += head.with_stress;
    if (good > 0 && energies == 0 && forces == 0) {
      add(Severity::error, "no-labels", "no frame has an energy or forces",
          "name them with --energy-key and --forces-key; `adatom data stats` lists the keys of the files");
      return;
    }
    const auto missing = [&](const std::vector<FrameReference>& list, std::int64_t with, const char* code, const std::string& what, Severity some) {
      if (list.empty() || good == 0) return;
      if (with == 0)
        add(what == "stress" ? Severity::note : Severity::error, code, "no frame has " + std::string(what == "energy" ? "an " : "a ") + what + " label",
            what == "stress" ? "leave stress out of the loss, or name its key"
                             : "name its key (`adatom data stats` lists those of the files); training without needs loss." +
                                   std::string(what == "energy" ? "energy" : "forces") + " = 0",
            {});
      else
        add(some, code,
            frames(list.size()) + " without " + (what == "energy" ? "an " : "a ") + what + " label, where " + std::to_string(with) +
                " have one; the first: " + text(list.front(), report_) + (what == "energy" ? isolated_atoms_without() : ""),
            "label them or leave them out", list);
    };
    missing(report_.without_energy, energies, "missing-energy", "energy", Severity::error);
    missing(report_.without_forces, forces, "missing-forces", "force", Severity::error);
    missing(report_.without_stress, stresses, "missing-stress", "stress", Severity::warning);
  }

  std::string isolated_atoms_without() const {
    const auto n = report_.isolated_without_energy;
    return n == 0 ? ""
                  : "; " + std::to_string(n) + " of them " + (n == 1 ? "is an isolated atom" : "are isolated atoms") +
                        ", which give no atomic energies then: has their energy another key?";
  }

  void check_duplicates() {
    const auto judge = [this](const std::vector<DuplicateSet>& sets, bool near) {
      std::size_t copies = 0, across = 0, contradicting = 0;
      const DuplicateSet *first_across = nullptr, *worst = nullptr;
      std::vector<FrameReference> all, of_across, of_contradicting;
      for (const DuplicateSet& set : sets) {
        copies += set.frames.size() - 1;
        all.insert(all.end(), set.frames.begin() + 1, set.frames.end());
        if (set.several_sources) {
          ++across;
          of_across.insert(of_across.end(), set.frames.begin(), set.frames.end());
          if (!first_across) first_across = &set;
        }
        if (set.energy_spread > (near ? alike_energy : same_energy)) {
          ++contradicting;
          of_contradicting.insert(of_contradicting.end(), set.frames.begin(), set.frames.end());
          if (!worst || set.energy_spread > worst->energy_spread) worst = &set;
        }
      }
      const std::string kind = near ? "near-duplicate" : "duplicate", alike = near ? "nearly the same structure" : "the same structure";
      const auto two = [this](const DuplicateSet& set, const FrameReference& b) { return text(set.frames.front(), report_) + " and " + text(b, report_); };
      if (copies)
        add(near ? Severity::note : Severity::warning, near ? "near-duplicates" : "duplicates",
            frames(copies) + " repeat another (" + kind + "s); the first: " + two(sets.front(), sets.front().frames[1]),
            "`adatom data split` keeps them on one side" + std::string(near ? " with --near-duplicates" : ""), all);
      if (across) {
        const auto other = std::find_if(first_across->frames.begin(), first_across->frames.end(),
                                        [&](const FrameReference& f) { return f.source != first_across->frames.front().source; });
        add(Severity::warning, near ? "near-duplicates-across" : "duplicates-across",
            std::to_string(across) + (across == 1 ? " structure stands" : " structures stand") + " in several files (" + kind +
                "s); the first: " + two(*first_across, *other),
            "if one file is for testing, leave those frames out of it: their errors say nothing", of_across);
      }
      if (contradicting)
        add(near ? Severity::note : Severity::warning, near ? "near-duplicate-labels" : "duplicate-labels",
            std::to_string(contradicting) + " times " + alike + " has other energies, by up to " + short_number(worst->energy_spread) +
                " eV/atom: " + two(*worst, worst->frames[1]),
            "are they of different levels of theory, spins or settings? Give each its head, or keep one", of_contradicting);
    };
    judge(report_.duplicates, false);
    judge(report_.near_duplicates, true);
  }

  void check_structures() {
    if (report_.nearest_distance.count && report_.nearest_distance.min < least_distance)
      add(Severity::warning, "close-atoms",
          "two atoms are " + short_number(report_.nearest_distance.min) + " angstrom apart in " + text(report_.nearest_frame, report_),
          "are the positions in angstrom (not nanometres or fractions of the cell)? Is an atom there twice?", {report_.nearest_frame});
    if (!report_.stress_not_periodic.empty())
      add(Severity::warning, "stress-not-periodic",
          frames(report_.stress_not_periodic.size()) +
              " with a stress, but a cell that is not periodic along all vectors; the first: " + text(report_.stress_not_periodic.front(), report_),
          "their stress depends on the vacuum: set the stress weight of these frames to 0, or correct pbc", report_.stress_not_periodic);
  }

  void check_outliers(const HeadSummary& head) {
    const auto judge = [&](const std::vector<Outlier>& outliers, const char* code, const std::string& what) {
      if (outliers.empty()) return;
      std::vector<FrameReference> list;
      for (const Outlier& outlier : outliers) list.push_back(outlier.frame);
      add(Severity::warning, code,
          frames(list.size()) + in_head_ + " with " + what + " far from all others; the farthest: " + text(list.front(), report_) + " with " +
              short_number(outliers.front().value) + " (robust z " + short_number(outliers.front().z) + ")",
          "look at them: a calculation that did not converge, another level of theory, or the rare event that you want", list);
    };
    judge(head.energy_outliers, "energy-outliers", "an energy per atom, less its composition's,");
    judge(head.force_outliers, "force-outliers", "a largest force (eV/angstrom)");
  }

  void check_net_force(const HeadSummary& head) {
    const bool zeroed = 2 * static_cast<std::int64_t>(head.zeros.atoms.size()) > head.with_forces;  // which is why they do not add up
    if (head.median_net_force > most_net_force && !zeroed)
      add(Severity::warning, "net-force",
          "the forces of a frame" + in_head_ + " do not add up to zero: " + short_number(head.median_net_force) + " eV/angstrom (median of the sum's norm)",
          "a model has no net force, so this is noise that it cannot fit: a denser grid or the code's correction of it helps");
  }

  void check_atomic_energies(const HeadSummary& head) {
    std::map<int, Range> isolated;
    for (const IsolatedAtom& atom : head.isolated_atoms) isolated[atom.element].add(atom.energy);
    for (const auto& [z, energy] : isolated)
      if (energy.max - energy.min > same_isolated)
        add(energy.max - energy.min > isolated_contradiction ? Severity::error : Severity::warning, "isolated-atoms",
            "isolated atoms of " + element_names({z}) + in_head_ + " have energies from " + number_text(energy.min) + " to " + number_text(energy.max) +
                " eV; the first is used",
            "keep the one in its ground state (spin)");
    if (head.with_energy == 0) return;
    std::map<int, double> known;
    for (const auto& [z, entry] : head.atomic_energies.elements)
      if (entry.origin == AtomicEnergies::Origin::isolated_atom) known[z] = entry.energy;
    if (const std::string reason = suspect_atomic_energies(known, head.compositions); !reason.empty())
      add(Severity::warning, "atomic-energies", "the energies of the isolated atoms" + in_head_ + " do not belong to the others: " + reason,
          "are they of the same level of theory, code and unit, and all energies totals?");
    std::vector<int> without;
    for (const auto& [z, element] : head.elements)
      if (!isolated.count(z)) without.push_back(z);
    if (!without.empty() && !isolated.empty())
      add(Severity::warning, "isolated-atoms-missing", "some elements" + in_head_ + " have isolated atoms, but not " + element_names(without),
          "add frames of one atom with config_type=IsolatedAtom, or take all atomic energies by least squares");
    else if (!without.empty())
      add(Severity::note, "isolated-atoms-missing", "there are no isolated atoms" + in_head_ + "; atomic energies come from least squares",
          "add frames of one atom with config_type=IsolatedAtom if the potential should know dissociation");
    const AtomicEnergies& energies = head.atomic_energies;
    if (energies.rank < energies.fitted)
      add(Severity::note, "atomic-energies-rank",
          "the compositions" + in_head_ + " determine " + std::to_string(energies.rank) + " combinations of the " + std::to_string(energies.fitted) +
              " atomic energies that least squares must find; the smallest solution is taken",
          "fine for these compositions; add isolated atoms before using the potential for others");
  }

  const Report& report_;
  std::vector<Finding> found_;
  std::string in_head_;
};

}  // namespace

std::vector<Finding> check(const Report& report) { return Checker(report).run(); }

std::string to_json(const std::vector<Finding>& findings, const Report& report, std::size_t longest) {
  using Json = nlohmann::ordered_json;
  constexpr const char* names[] = {"note", "warning", "error"};
  Json list = Json::array();
  for (const Finding& finding : findings) {
    Json first = Json::array();
    for (std::size_t i = 0; i < std::min(finding.frames.size(), longest); ++i)
      first.push_back({{"file", report.sources.at(static_cast<std::size_t>(finding.frames[i].source)).name}, {"frame", finding.frames[i].index}});
    list.push_back({{"severity", names[static_cast<int>(finding.severity)]},
                    {"code", finding.code},
                    {"message", finding.message},
                    {"advice", finding.advice},
                    {"frames", {{"count", finding.frames.size()}, {"first", first}}}});
  }
  return list.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace adatom::datasets
