// SPDX-License-Identifier: GPL-2.0-or-later
#include "compute_uncertainty.hpp"

#include <algorithm>

#include "pair_adatom.hpp"

#include <atom.h>
#include <error.h>
#include <memory.h>
#include <update.h>

namespace LAMMPS_NS {

ComputeUncertainty::ComputeUncertainty(LAMMPS* lammps, int narg, char** arg) : Compute(lammps, narg, arg) {
  if (narg != 3) error->all(FLERR, "compute adatom/uncertainty takes no arguments");
  vector_flag = 1;
  size_vector = 3;
  extvector = 0;
  peratom_flag = 1;
  size_peratom_cols = 2;
  timeflag = 1;  // the pair style asks on which steps
  vector = new double[size_vector]{};
}

ComputeUncertainty::~ComputeUncertainty() {
  delete[] vector;
  memory->destroy(array_atom);
}

void ComputeUncertainty::init() { pair_ = PairAdatom::with_uncertainty(lmp, "compute adatom/uncertainty"); }

void ComputeUncertainty::check_tallied() const {
  if (pair_->uncertainty().step != update->ntimestep)
    error->all(FLERR, "compute adatom/uncertainty: its values were not computed with the forces of step " + std::to_string(update->ntimestep) +
                          ": use it from thermo, dumps, fixes or variables that are evaluated on steps known beforehand");
}

void ComputeUncertainty::compute_vector() {
  invoked_vector = update->ntimestep;
  check_tallied();
  const auto& u = pair_->uncertainty();
  double mine[2] = {0.0, 0.0};
  for (int i = 0; i < atom->nlocal; ++i)
    if (atom->mask[i] & groupbit) mine[0] = std::max(mine[0], u.force_std[i]), mine[1] = std::max(mine[1], u.distances[i]);
  vector[0] = u.energy_std;
  MPI_Allreduce(mine, vector + 1, 2, MPI_DOUBLE, MPI_MAX, world);
}

void ComputeUncertainty::compute_peratom() {
  invoked_peratom = update->ntimestep;
  check_tallied();
  if (atom->nmax > rows_) {
    rows_ = atom->nmax;
    memory->destroy(array_atom);
    memory->create(array_atom, rows_, size_peratom_cols, "adatom/uncertainty:array_atom");
  }
  const auto& u = pair_->uncertainty();
  for (int i = 0; i < atom->nlocal; ++i) {
    const bool counts = atom->mask[i] & groupbit;
    array_atom[i][0] = counts ? u.force_std[i] : 0.0;
    array_atom[i][1] = counts ? u.distances[i] : 0.0;
  }
}

double ComputeUncertainty::memory_usage() { return 2.0 * sizeof(double) * rows_; }

}  // namespace LAMMPS_NS
