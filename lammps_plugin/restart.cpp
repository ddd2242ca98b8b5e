// SPDX-License-Identifier: GPL-2.0-or-later
// Restart files hold the settings, the name of the model file and the element of each type; not the model. Under pair_style hybrid, LAMMPS
// stores the settings only, and pair_coeff has to be repeated.
#include <cstdio>

#include "pair_adatom.hpp"

#include <atom.h>
#include <comm.h>
#include <error.h>
#include <utils.h>

namespace LAMMPS_NS {
namespace {

void write_integers(FILE* file, const std::vector<int>& values) { std::fwrite(values.data(), sizeof(int), values.size(), file); }

void write_text(FILE* file, const std::string& text) {
  write_integers(file, {static_cast<int>(text.size())});
  std::fwrite(text.data(), 1, text.size(), file);
}

}  // namespace

void PairAdatom::write_restart_settings(FILE* file) {
  // The first number was 0 or 1 before there was matmul; files of that time stay readable.
  write_integers(file, {(options_.device == adatom::Device::cuda) + 2 * static_cast<int>(options_.matmul), options_.precision == adatom::Precision::float64,
                        options_.threads, options_.splines});
  write_text(file, options_.head);
}

void PairAdatom::write_restart(FILE* file) {
  write_restart_settings(file);
  write_text(file, file_);
  write_integers(file, std::vector<int>(numbers_.begin() + 1, numbers_.end()));
}

/// Only the first rank has the file; what it reads goes to all.
std::vector<int> PairAdatom::read_integers(FILE* file, int n) {
  std::vector<int> values(n);
  if (comm->me == 0) utils::sfread(FLERR, values.data(), sizeof(int), n, file, nullptr, error);
  MPI_Bcast(values.data(), n, MPI_INT, 0, world);
  return values;
}

std::string PairAdatom::read_text(FILE* file) {
  std::string text(read_integers(file, 1)[0], '\0');
  if (comm->me == 0) utils::sfread(FLERR, text.data(), 1, text.size(), file, nullptr, error);
  MPI_Bcast(text.data(), static_cast<int>(text.size()), MPI_CHAR, 0, world);
  return text;
}

void PairAdatom::read_restart_settings(FILE* file) {
  const auto values = read_integers(file, 4);
  options_ = {};
  options_.device = values[0] % 2 ? adatom::Device::cuda : adatom::Device::cpu;
  options_.matmul = static_cast<adatom::Matmul>(values[0] / 2);
  options_.precision = values[1] ? adatom::Precision::float64 : adatom::Precision::float32;
  options_.threads = values[2];
  options_.splines = values[3];
  options_.head = read_text(file);
}

void PairAdatom::read_restart(FILE* file) {
  read_restart_settings(file);
  file_ = read_text(file);
  numbers_ = read_integers(file, atom->ntypes);
  numbers_.insert(numbers_.begin(), 0);
  allocate();
  // A restart file may be read where the model lies elsewhere. Without pair_coeff, LAMMPS will then say that coefficients are missing.
  const std::string message = load();
  if (message.empty())
    map_types();
  else if (comm->me == 0)
    error->warning(FLERR, "pair style adatom: the restart file names a model that cannot be loaded: " + message + ". Give 'pair_coeff' again.");
}

}  // namespace LAMMPS_NS
