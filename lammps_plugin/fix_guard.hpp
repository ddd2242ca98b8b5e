// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <array>
#include <limits>
#include <string>
#include <vector>

#include <fix.h>

namespace LAMMPS_NS {

class PairAdatom;

/// fix ID group adatom/guard N [distance X] [force X] [energy X] [action none|warn|halt] [universe yes|no] [file FILE] [collect X] [novelty X]
///
/// Every N steps, and at the beginning of a run, compares the uncertainties with thresholds: the largest distance and the largest standard deviation of a force
/// component over the group's atoms, the standard deviation of the energy. Where one is exceeded: a warning, or a soft halt as that of fix halt; and the
/// configuration goes to the end of FILE, unless the atom that is farthest out is about where that of an earlier one was (novelty). So do those with a
/// largest distance above `collect`. Several partitions (replicas) halt together with `universe yes`; then all of them have the fix, and check on the same steps.
class FixGuard final : public Fix {
 public:
  FixGuard(LAMMPS* lammps, int narg, char** arg);

  int setmask() override;
  void init() override;
  void setup(int) override { check(); }
  void min_setup(int) override { check(); }
  void end_of_step() override { check(); }
  void min_post_force(int) override;

  double compute_scalar() override { return static_cast<double>(trips_); }
  double compute_vector(int k) override;
  double memory_usage() override;

  void write_restart(FILE* file) override;
  void restart(char* buffer) override;

 private:
  enum class Action { none, warn, halt };
  /// The atom that is worst, and by what.
  struct Worst {
    double value = 0.0;
    tagint tag = 0;
    int own = -1;     // index on the rank that has it, -1 on others
    int element = 0;  // atomic number
  };
  struct Seen {
    int unknown = 0;  // atomic number of the worst atom where its value is infinite; the rest is then of the worst finite one
    int element = 0;
    std::vector<double> whitened;
  };

  void check();
  bool is_on_its_own() const;
  bool any_partition(bool here) const;
  void halt_with_others();
  Worst worst_by(const std::vector<double>& values, bool finite = false) const;
  std::array<double, 10> fingerprint() const;
  void keep(Worst worst, const std::vector<double>& values, const std::string& why);
  bool write_frame(const std::string& why);

  Action action_ = Action::warn;
  double distance_ = std::numeric_limits<double>::infinity(), force_ = distance_, energy_ = distance_, collect_ = distance_;  // thresholds
  double novelty_ = 0.5;
  std::string file_;
  bool universe_ = false;

  PairAdatom* pair_ = nullptr;
  bigint trips_ = 0, written_ = 0, last_trip_ = -1, last_check_ = -1;
  std::array<double, 10> checked_ = {};  // fingerprint of the configuration of the last check
  bool acted_ = false;                   // whether that was a trip, or was collected
  bool warned_ = false;                  // of a file that cannot be written
  double last_[3] = {0.0, 0.0, 0.0};     // energy, force, distance at the last check
  std::vector<Seen> seen_;               // of frames in the file
};

}  // namespace LAMMPS_NS
