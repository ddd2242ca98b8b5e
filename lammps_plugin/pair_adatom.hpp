// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adatom/potential.hpp"
#include "local_graph.hpp"
#include "node_id.hpp"
#include "rank_halo.hpp"
#include "units.hpp"

#include <atom.h>
#include <pair.h>

namespace LAMMPS_NS {

/// pair_style adatom [device cpu|cuda] [precision float|double] [threads N] [head NAME] [splines yes|no]
/// pair_coeff * * FILE E_1 ... E_ntypes
///
/// E_t is the chemical symbol of atom type t, or NULL for a type that another style of pair_style hybrid or hybrid/overlay handles.
///
/// Every rank evaluates its own atoms; features of remote atoms travel by RankHalo, so the ghost shell is one cutoff deep whatever the number of
/// layers. Periodic images cost nothing: see LocalGraph.
/// The virial is the engine's (not the sum of r x f over ghosts), globally and per atom.
class PairAdatom final : public Pair {
 public:
  explicit PairAdatom(LAMMPS* lammps);
  ~PairAdatom() override;

  void settings(int narg, char** arg) override;
  void coeff(int narg, char** arg) override;
  void init_style() override;
  void add_tally_callback(class Compute* compute) override;
  double init_one(int i, int j) override;
  void compute(int eflag, int vflag) override;

  void write_restart(FILE* file) override;
  void read_restart(FILE* file) override;
  void write_restart_settings(FILE* file) override;
  void read_restart_settings(FILE* file) override;

  int pack_forward_comm(int n, int* atoms, double* buffer, int, int*) override;
  void unpack_forward_comm(int n, int first, double* buffer) override;

  double memory_usage() override;

  /// What compute adatom/uncertainty and fix adatom/guard ask for; in the units of the run.
  struct Uncertainty {
    bigint step = -1;                          // for which it was computed
    double energy_std = 0.0;                   // of all atoms, the same on all ranks
    std::vector<double> force_std, distances;  // of own atoms; 0 for those that the model does not handle
  };
  const Uncertainty& uncertainty() const { return uncertainty_; }
  /// The pair style of the run, for a style that needs uncertainties; stops with an error that names `style` where there are none.
  static PairAdatom* with_uncertainty(LAMMPS* lammps, const std::string& style);
  /// Collective. Whitened features of one own atom, in units in which distances are the norm divided by the root of their number; -1: of none.
  std::vector<double> whitened(int own_atom);
  /// 0 of an atom that the model does not handle, or that was left out in the last evaluation.
  int atomic_number(int own_atom) const { return graph_.has_node(own_atom) ? numbers_[atom->type[own_atom]] : 0; }
  const adatom_lammps::Units& units() const { return units_; }

 private:
  void allocate();
  void map_types();  // setflag from numbers_
  std::string load();
  void choose_device();
  void report_matmul(const adatom::Graph& graph);
  void check_settings();
  void check_list();
  std::string other_styles(int i, int j) const;
  int left_out_mask() const;
  void check_groups();
  void check_special_bonds();
  void check_masses();
  void rebuild_graph();
  std::string update_positions();
  void agree(int node, const std::string& what);
  void evaluate_atoms();
  std::string out_of_memory() const;
  void evaluate(const adatom::Graph& graph, adatom::GraphResult& result);
  void add_result(const adatom::GraphResult& result);
  bool uncertainty_is_wanted() const;
  void add_uncertainty();

  std::vector<int> read_integers(FILE* file, int n);
  std::string read_text(FILE* file);
  std::string message_of_any_rank(const std::string& mine, bool yes = false, bool* any = nullptr);
  void stop_all(const std::string& message);
  [[noreturn]] void stop_one(const std::string& message);

  // settings
  adatom::LoadOptions options_;  // `threads` 0: as LAMMPS (OMP_NUM_THREADS, package omp)

  // coefficients
  std::string file_;          // as in pair_coeff
  std::vector<int> numbers_;  // [ntypes + 1] atomic number of a type, 0 for NULL
  bool masses_are_checked_ = false;

  // of the run
  bool is_initialised_ = false;   // with these settings and coefficients
  std::vector<char> is_served_;   // [ntypes + 1][ntypes + 1] whether LAMMPS asked for the cutoff of a pair of types, lower one first
  bool list_is_checked_ = false;  // its exclusions and what else LAMMPS settles when a run begins
  bool heat_flux_is_told_ = false, motion_is_told_ = false;

  std::optional<adatom::Potential> potential_;
  std::vector<int> species_;      // [ntypes + 1] of a type, -1 for NULL
  std::string ranks_per_device_;  // for the log
  bool matmul_reported_ = false;
  adatom_lammps::Units units_;

  std::vector<adatom_lammps::NodeId> node_ids_;  // of all atoms, ghosts included
  adatom_lammps::LocalGraph graph_;
  bool graph_is_stale_ = true;
  std::string error_;      // of the positions of this step
  bigint list_step_ = -1;  // of the neighbour list that graph_ was made from
  adatom_lammps::RankHalo halo_;

  std::vector<double> energies_, forces_, virials_;
  std::vector<double> member_energies_, force_std_, distances_;  // of nodes
  Uncertainty uncertainty_;
};

}  // namespace LAMMPS_NS
