// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <compute.h>

namespace LAMMPS_NS {

class PairAdatom;

/// compute ID group adatom/uncertainty
///
/// Global vector: standard deviation of the energy (energy units; of all atoms), largest standard deviation of a force component and largest distance of
/// the group's atoms. Per-atom array: standard deviation of a force component (force units), distance of the features from the training set.
class ComputeUncertainty final : public Compute {
 public:
  ComputeUncertainty(LAMMPS* lammps, int narg, char** arg);
  ~ComputeUncertainty() override;

  void init() override;
  void compute_vector() override;
  void compute_peratom() override;
  double memory_usage() override;

 private:
  void check_tallied() const;

  PairAdatom* pair_ = nullptr;
  int rows_ = 0;  // of array_atom
};

}  // namespace LAMMPS_NS
