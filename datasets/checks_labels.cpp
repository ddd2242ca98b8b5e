// SPDX-License-Identifier: MIT
// Checks: labels that are not what training takes them for.
#include <algorithm>
#include <cmath>

#include "datasets/checks.hpp"
#include "datasets/text.hpp"

namespace adatom::datasets {
namespace {

constexpr std::int64_t least_pairs = 10;
constexpr double most_mismatch = 0.4;     // right labels: 0.02 to 0.15
constexpr double opposite_stress = -0.4;  // right labels: 0.65 to 1
constexpr double unrelated_stress = 0.05;
constexpr double opposite_volumes = -0.7;  // right labels: 0.2 to 0.8
constexpr std::int64_t least_volumes = 20;

std::string frames(std::size_t n) { return std::to_string(n) + (n == 1 ? " frame" : " frames"); }

class LabelChecker {
 public:
  LabelChecker(const Report& report, const HeadSummary& head, const std::string& in_head, std::vector<Finding>& found)
      : report_(report), head_(head), in_head_(in_head), found_(found) {}

  void run() {
    for (const UnitSuspicion& suspicion : head_.units)
      add(Severity::warning, "units", suspicion.quantity + in_head_ + " may be in other units (" + suspicion.unit + "): " + suspicion.reason,
          "convert to eV, eV/angstrom, eV/angstrom^3 if so");
    check_zeros();
    check_absurd_forces();
    check_pairs();
    check_stress();
  }

 private:
  void add(Severity severity, const char* code, const std::string& message, const std::string& advice, std::vector<FrameReference> list = {}) {
    found_.push_back({severity, code, message, advice, std::move(list)});
  }

  void check_zeros() {
    const ZeroLabels& zeros = head_.zeros;
    const auto judge = [&](const std::vector<FrameReference>& list, const char* code, const std::string& what, const std::string& option) {
      if (list.empty()) return;
      add(Severity::error, code,
          frames(list.size()) + in_head_ + (list.size() == 1 ? " has " : " have ") + what + "; the first: " + text(list.front(), report_),
          "a number that was never read or calculated? Name the key with " + option + ", remove it, or give it the weight 0", list);
    };
    const bool all = head_.with_forces > 1 && head_.force.max == 0 && head_.force.min == 0 && head_.atoms > head_.frames;
    if (all)
      add(Severity::error, "zero-forces", "all forces" + in_head_ + " are zero", "were they read? Name their key with --forces-key");
    else
      judge(zeros.forces, "zero-forces", "forces that are all exactly zero, where atoms are on no sites of such symmetry", "--forces-key");
    judge(zeros.stress, "zero-stress", "a stress of exactly zero", "--stress-key");
    judge(zeros.energy, "zero-energy", "an energy of exactly zero", "--energy-key");
    if (!zeros.atoms.empty())
      add(Severity::warning, "zeroed-forces",
          std::to_string(zeros.count) + " of " + std::to_string(zeros.of) + " atoms of " + frames(zeros.atoms.size()) + in_head_ +
              " have a force of exactly zero, and no symmetry that makes it so; the first: " + text(zeros.atoms.front(), report_),
          "atoms that were held fixed? Write what the calculation gives: atoms.get_forces(apply_constraint=False) in ASE", zeros.atoms);
  }

  void check_absurd_forces() {
    if (head_.absurd_forces.empty()) return;
    std::vector<FrameReference> list;
    for (const Outlier& outlier : head_.absurd_forces) list.push_back(outlier.frame);
    add(Severity::warning, "absurd-forces",
        frames(list.size()) + in_head_ + " with a force or a sum of forces that is far too large; the largest: " + text(list.front(), report_) + " with " +
            short_number(head_.absurd_forces.front().value) + " eV/angstrom",
        "remove them, or look at them: a slip of a digit, atoms on one spot, or a calculation that did not converge", list);
  }

  /// Units have been judged by the slope where its quartiles are narrow.
  void check_pairs() {
    const EnergyForceSlope& s = head_.slope;
    const bool judged = std::any_of(head_.units.begin(), head_.units.end(), [](const UnitSuspicion& u) { return u.quantity == "energy and forces"; });
    if (s.compared < least_pairs || s.mismatch < most_mismatch || judged) return;
    const bool conserved = std::abs(s.q1) < 0.1 && std::abs(s.q3) < 0.1;
    add(Severity::warning, "energy-forces",
        "the energies" + in_head_ + " do not follow from the forces: between neighbouring frames of " + std::to_string(s.compared) +
            " pairs dE and -F dx differ by " + short_number(100 * s.mismatch) + " % of the larger (median), expected less than 15 %",
        conserved ? "the energies hardly change where the forces do work: do they contain the kinetic energy (the conserved energy of dynamics)?"
                  : "are the forces in the order of the atoms, and both of the same calculation?");
  }

  void check_stress() {
    const StressSlope& s = head_.stress_slope;
    constexpr const char* advice =
        "Adatom's sign is ASE's: positive where the cell wants to shrink. VASP and virials have the other one: multiply by -1, or name "
        "a virial with --virial-key";
    if (s.pairs >= least_pairs) {
      const std::string fact = "between strained cells the energy changes by " + short_number(s.weighted) + " times what the stress gives (" +
                               std::to_string(s.pairs) + " pairs, median " + short_number(s.median) + "), expected 1";
      if (s.weighted < opposite_stress && s.median < 0)
        add(Severity::warning, "stress-sign", "the stress" + in_head_ + " has the wrong sign: " + fact, advice);
      else if (std::abs(s.weighted) < unrelated_stress && std::abs(s.median) < unrelated_stress)
        add(Severity::warning, "stress-units", "the stress" + in_head_ + " may be in other units or of another calculation: " + fact,
            "convert to eV/angstrom^3 (1 GPa = 0.00624, 1 kbar = 0.000624). Or are the energies no totals?");
    } else if (s.frames >= least_volumes && s.volume_correlation < opposite_volumes) {
      add(Severity::warning, "stress-sign",
          "the stress" + in_head_ + " may have the wrong sign: of " + std::to_string(s.frames) +
              " frames of one composition it falls as the volume grows (rank correlation " + short_number(s.volume_correlation) + ")",
          advice);
    }
  }

  const Report& report_;
  const HeadSummary& head_;
  const std::string in_head_;
  std::vector<Finding>& found_;
};

}  // namespace

std::vector<Finding> check_labels(const Report& report) {
  std::vector<Finding> found;
  if (!report.filled_not_periodic.empty())
    found.push_back({Severity::warning, "not-periodic",
                     frames(report.filled_not_periodic.size()) + " with a Lattice that the atoms fill, but not periodic along it (pbc=\"F F F\"); the first: " +
                         text(report.filled_not_periodic.front(), report),
                     "training sees a cluster with a surface: write pbc=\"T T T\" for a crystal", report.filled_not_periodic});
  for (const auto& [name, head] : report.heads) LabelChecker(report, head, report.heads.size() > 1 ? " in head '" + name + "'" : "", found).run();
  return found;
}

}  // namespace adatom::datasets
