// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_adatom.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "adatom/elements.hpp"
#include "atomic_weights.hpp"

#include <atom.h>
#include <comm.h>
#include <compute.h>
#include <error.h>
#include <fix.h>
#include <force.h>
#include <memory.h>
#include <modify.h>
#include <neigh_list.h>
#include <neighbor.h>
#include <update.h>

namespace LAMMPS_NS {

PairAdatom::PairAdatom(LAMMPS* lammps) : Pair(lammps), halo_(world, [this](int node, const std::string& what) { agree(node, what); }) {
  single_enable = 0;  // the energy is not a sum over pairs
  restartinfo = 1;
  one_coeff = 1;
  manybody_flag = 1;
  reinitflag = 0;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
  comm_forward = 1;  // a NodeId; features travel by RankHalo
}

PairAdatom::~PairAdatom() {
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairAdatom::allocate() {
  if (allocated) return;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  for (int i = 1; i < n; ++i)
    for (int j = 1; j < n; ++j) {
      setflag[i][j] = 0;
      cutsq[i][j] = 0.0;
    }
  allocated = 1;
}

void PairAdatom::settings(int narg, char** arg) {
  options_ = {};
  potential_.reset();  // a second pair_style keeps the coefficients: init_style loads the model again
  for (int k = 0; k < narg; k += 2) {
    const std::string key = arg[k];
    if (k + 1 == narg) error->all(FLERR, "pair_style adatom: '" + key + "' at the end of the command has no value");
    const std::string value = arg[k + 1];
    const auto choose = [&](const std::string& first, const std::string& second) {
      if (value != first && value != second) error->all(FLERR, "pair_style adatom: " + key + " is '" + value + "', expected " + first + " or " + second);
      return value == second;
    };
    if (key == "device") {
      options_.device = choose("cpu", "cuda") ? adatom::Device::cuda : adatom::Device::cpu;
    } else if (key == "precision") {
      options_.precision = choose("float", "double") ? adatom::Precision::float64 : adatom::Precision::float32;
    } else if (key == "splines") {
      options_.splines = choose("no", "yes");
    } else if (key == "matmul") {
      if (value != "exact" && value != "tf32" && value != "bf16")
        error->all(FLERR, "pair_style adatom: matmul is '" + value + "', expected exact, tf32 or bf16");
      options_.matmul = value == "tf32" ? adatom::Matmul::tf32 : value == "bf16" ? adatom::Matmul::bf16 : adatom::Matmul::exact;
    } else if (key == "head") {
      options_.head = value;
    } else if (key == "threads") {
      options_.threads = utils::is_integer(value) && value.size() < 7 ? std::stoi(value) : 0;
      if (options_.threads < 1) error->all(FLERR, "pair_style adatom: threads is '" + value + "', expected a number from 1 to 999999");
    } else {
      error->all(FLERR, "pair_style adatom: unknown keyword '" + key + "', expected device, precision, threads, head, splines or matmul");
    }
  }
}

void PairAdatom::coeff(int narg, char** arg) {
  const int ntypes = atom->ntypes;
  if (narg < 3)  // that the first two are '* *' is checked by LAMMPS (one_coeff)
    error->all(FLERR, "pair_coeff for adatom has the form 'pair_coeff * * FILE E_1 ... E_n' with one element for each of the " + std::to_string(ntypes) +
                          " atom types");
  if (narg != 3 + ntypes)
    error->all(FLERR, "pair_coeff for adatom names " + std::to_string(narg - 3) + " elements after the file " + arg[2] + ", expected " +
                          std::to_string(ntypes) + ": one for each atom type (NULL for types that another style handles)");
  std::vector<int> numbers(ntypes + 1, 0);
  for (int type = 1; type <= ntypes; ++type) {
    const std::string symbol = arg[2 + type];
    if (symbol == "NULL") {
      if (force->pair == this)
        error->all(FLERR, "pair_coeff maps atom type " + std::to_string(type) +
                              " to NULL, but no other style handles it: name its element, or use pair_style hybrid or hybrid/overlay");
      continue;
    }
    try {
      numbers[type] = adatom::atomic_number(symbol);
    } catch (const std::invalid_argument& e) {
      error->all(FLERR, "pair_coeff maps atom type " + std::to_string(type) + " to '" + symbol + "': " + e.what());
    }
  }
  if (std::count(numbers.begin(), numbers.end(), 0) == ntypes + 1)
    error->all(FLERR, "pair_coeff for adatom maps every atom type to NULL: name the element of at least one, or leave the style out");
  file_ = arg[2];
  numbers_ = numbers;
  masses_are_checked_ = false;
  stop_all(load());
  map_types();
}

void PairAdatom::map_types() {
  allocate();
  for (int i = 1; i <= atom->ntypes; ++i)
    for (int j = i; j <= atom->ntypes; ++j) setflag[i][j] = numbers_[i] && numbers_[j];
}

/// Loads the model on this rank. Returns what went wrong, the same on every rank; empty if nothing did.
std::string PairAdatom::load() {
  std::string message;
  choose_device();
  try {
    const std::string path = utils::get_potential_file_path(file_);
    if (path.empty()) throw std::runtime_error("model file '" + file_ + "' not found in the working directory nor in the folders of LAMMPS_POTENTIALS");
    adatom::LoadOptions options = options_;
    options.threads = options_.threads ? options_.threads : comm->nthreads;
    for (const int number : numbers_)
      if (number && std::find(options.elements.begin(), options.elements.end(), number) == options.elements.end()) options.elements.push_back(number);
    potential_ = adatom::Potential::load(path, options);
    species_.assign(numbers_.size(), -1);
    for (std::size_t type = 1; type < numbers_.size(); ++type)
      if (numbers_[type]) species_[type] = potential_->species(numbers_[type]);
  } catch (const std::exception& e) {
    message = e.what();
  }
  message = message_of_any_rank(message);
  if (!message.empty()) {
    potential_.reset();
  } else if (comm->me == 0) {
    const auto& info = potential_->info();
    utils::logmesg(lmp, "adatom: " + file_ + ": " + info.summary + "; cutoff " + fmt::format("{:g}", info.cutoff) + " angstrom, " +
                            (info.head.empty() ? "" : "head " + info.head + ", ") + (options_.precision == adatom::Precision::float64 ? "double" : "single") +
                            " precision, " + info.backend + ranks_per_device_ + "\n");
  }
  graph_is_stale_ = true;
  matmul_reported_ = false;
  return message;
}

/// Ranks of a machine are dealt out to its devices; the engine takes the one that ADATOM_LOCAL_RANK names, modulo their number. Collective.
void PairAdatom::choose_device() {
  if (options_.device != adatom::Device::cuda) return;
  MPI_Comm machine = MPI_COMM_NULL;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, comm->me, MPI_INFO_NULL, &machine);
  int rank = 0, ranks = 1;
  MPI_Comm_rank(machine, &rank);
  MPI_Comm_size(machine, &ranks);
  MPI_Comm_free(&machine);
  setenv("ADATOM_LOCAL_RANK", std::to_string(rank).c_str(), 1);
  if (comm->nprocs > 1)
    ranks_per_device_ = fmt::format(", {} ranks on this machine, ghosts' rows {}", ranks,
                                    halo_.takes_device_memory() ? "from device to device (MPI is CUDA-aware)" : "through host memory (MPI is not CUDA-aware)");
}

/// What the rounding of linear maps changes, once after loading. Collective.
void PairAdatom::report_matmul(const adatom::Graph& graph) {
  if (options_.matmul == adatom::Matmul::exact || matmul_reported_) return;
  matmul_reported_ = true;
  const adatom::MatmulError here = potential_->matmul_error(graph, &halo_);
  double mine[2] = {here.energy, here.force}, largest[2];
  MPI_Allreduce(mine, largest, 2, MPI_DOUBLE, MPI_MAX, world);
  if (comm->me == 0)
    utils::logmesg(lmp, fmt::format("adatom: matmul {} changes energies of atoms by up to {:.2g} eV, components of forces by up to {:.2g} eV/angstrom\n",
                                    options_.matmul == adatom::Matmul::tf32 ? "tf32" : "bf16", largest[0], largest[1]));
}

void PairAdatom::init_style() {
  if (!force->newton_pair)
    error->all(FLERR, "pair style adatom adds forces to ghost atoms and needs Newton's third law for pairs: put 'newton on' before the box is created");
  try {
    units_ = adatom_lammps::native_units(*update, *force);
  } catch (const std::exception& e) {
    error->all(FLERR, std::string(e.what()));
  }
  check_exclusions();
  check_masses();
  if (!potential_) stop_all(load());
  potential_->set_threads(options_.threads ? options_.threads : comm->nthreads);
  neighbor->add_request(this, NeighConst::REQ_FULL);
  graph_is_stale_ = true;
}

double PairAdatom::init_one(int i, int j) {
  if (!setflag[i][j])
    error->all(FLERR, "pair style adatom: no coefficients for atom types " + std::to_string(i) + " and " + std::to_string(j) + ": see pair_coeff");
  return potential_->cutoff() * units_.angstrom;
}

/// A pair that is missing in the list is a missing edge of the network: the energy would silently be another one.
void PairAdatom::check_exclusions() {
  std::string what;
  for (int k = 0; k < neighbor->nex_type; ++k)
    if (numbers_[neighbor->ex1_type[k]] && numbers_[neighbor->ex2_type[k]])
      what = "atom types " + std::to_string(neighbor->ex1_type[k]) + " and " + std::to_string(neighbor->ex2_type[k]);
  if (neighbor->nex_group) what = "groups";
  if (neighbor->nex_mol) what = "molecules";
  if (!what.empty())
    error->all(FLERR, "'neigh_modify exclude' for " + what +
                          " takes pairs out of the neighbour list that pair style adatom needs: remove it with "
                          "'neigh_modify exclude none' (to hold atoms fixed, use fix setforce or leave them out of the time integration)");
  if (neighbor->includegroup)
    error->all(FLERR, "'neigh_modify include' takes pairs out of the neighbour list that pair style adatom needs: use 'neigh_modify include all'");
}

/// A mass that does not fit the element points at elements in the wrong order. Only a warning: masses may be chosen freely (repartitioned to hydrogen, or
/// for sampling). Once for a pair_coeff.
void PairAdatom::check_masses() {
  if (masses_are_checked_ || !atom->mass || atom->rmass_flag) return;
  masses_are_checked_ = true;
  const std::string style = update->unit_style;
  const double u = style == "si" ? 1.66053907e-27 : style == "cgs" ? 1.66053907e-24 : style == "micro" ? 1.66053907e-12 : style == "nano" ? 1.66053907e-6 : 1.0;
  std::string what;
  for (int type = 1; type <= atom->ntypes; ++type) {
    if (!numbers_[type] || !atom->mass_setflag[type]) continue;
    const std::string odd = adatom_lammps::odd_mass(numbers_[type], atom->mass[type] / u);
    if (!odd.empty())
      what += fmt::format("{}type {} is {} (atomic weight {:g}), but has mass {:g}, {}", what.empty() ? "" : "; ", type, adatom::element_symbol(numbers_[type]),
                          adatom_lammps::atomic_weights[numbers_[type]], atom->mass[type] / u, odd);
  }
  if (!what.empty() && comm->me == 0)
    error->warning(FLERR, "pair style adatom: atom " + what +
                              ". Forces are those of the element: check the order of elements in pair_coeff, unless such masses are meant");
}

void PairAdatom::check_special_bonds() {
  if (atom->molecular == Atom::ATOMIC || atom->nbonds == 0) return;
  for (int k = 1; k <= 3; ++k)
    if (neighbor->special_flag[k] == 0)  // 0: pairs 1-2, 1-3 or 1-4 along bonds are not in the list
      error->all(FLERR, "the weights of 'special_bonds' for 1-" + std::to_string(k + 1) +
                            " neighbours are zero, which takes bonded pairs out of the neighbour list that pair style adatom needs: use "
                            "'special_bonds lj/coul 1 1 1'");
}

/// Collective: ranks tell each other their nodes.
void PairAdatom::rebuild_graph() {
  check_special_bonds();
  graph_.set_own_atoms(*atom, species_);
  node_ids_.assign(static_cast<std::size_t>(atom->nlocal + atom->nghost), {});
  for (int node = 0; node < graph_.n_nodes(); ++node) node_ids_[graph_.atom_of_node()[node]] = {comm->me, node};
  comm->forward_comm(this);  // those of the ghosts, whatever the comm_style
  graph_.set_neighbours(*atom, *list, species_, node_ids_, comm->me);
  halo_.connect(graph_.remote(), graph_.n_receivers());
  graph_is_stale_ = false;
  list_step_ = neighbor->lastcall;
  energies_.resize(graph_.n_receivers());
  forces_.resize(3 * static_cast<std::size_t>(graph_.n_nodes()));
}

int PairAdatom::pack_forward_comm(int n, int* atoms, double* buffer, int, int*) {
  for (int k = 0; k < n; ++k) buffer[k] = ubuf(node_ids_[atoms[k]].key()).d;
  return n;
}

void PairAdatom::unpack_forward_comm(int n, int first, double* buffer) {
  for (int k = 0; k < n; ++k) node_ids_[first + k] = adatom_lammps::NodeId(ubuf(buffer[k]).i);
}

/// Returns what is wrong on this rank.
std::string PairAdatom::update_positions() {
  if (!graph_.fits(*atom)) return "the number of atoms, ghosts included, changed without a new neighbour list: see neigh_modify";
  const int i = graph_.update_positions(*atom, units_.angstrom);
  if (i < 0) return {};
  return fmt::format("atom {} is at ({}, {}, {}) on step {}: the simulation is unstable (a shorter timestep, or a minimisation first, may mend it)",
                     atom->tag_enable ? atom->tag[i] : i, atom->x[i][0], atom->x[i][1], atom->x[i][2], update->ntimestep);
}

/// An atom that left for infinity, or two on one spot, are seen by their owner and its neighbours only. All ranks agree on the error before the first
/// exchange of an evaluation, so that the run ends with a message; an abort from one rank may lose it. The reduction costs microseconds.
void PairAdatom::agree(int node, const std::string& what) {
  std::string message = error_;
  if (message.empty() && node >= 0) {
    const int i = graph_.atom_of_node()[node];
    message = fmt::format("atom {} {} (step {})", atom->tag_enable ? atom->tag[i] : i, what, update->ntimestep);
  }
  stop_all(message_of_any_rank(message));
}

void PairAdatom::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  // The same on every rank, since to rebuild is collective. ago: steps since the last build. Several builds may happen on one step (fix atom/swap):
  // the step alone does not tell them apart.
  if (graph_is_stale_ || neighbor->ago == 0 || neighbor->lastcall != list_step_) rebuild_graph();
  error_ = update_positions();  // all ranks hear of it in agree()

  adatom::GraphResult result;
  result.forces = forces_.data();
  result.want_virial = vflag_global;
  if (eflag_atom) result.energies = energies_.data();
  if (vflag_atom || cvflag_atom) {
    virials_.resize(9 * static_cast<std::size_t>(graph_.n_nodes()));
    result.atom_virials = virials_.data();
  }
  const bool with_uncertainty = uncertainty_is_wanted();
  if (with_uncertainty) {
    member_energies_.resize(static_cast<std::size_t>(graph_.n_receivers()) * potential_->info().members);
    force_std_.resize(graph_.n_receivers());
    distances_.resize(graph_.n_receivers());
    result.member_energies = member_energies_.data();
    result.force_std = force_std_.data();
    result.distances = distances_.data();
  }
  evaluate(graph_.view(), result);
  add_result(result);
  if (with_uncertainty) add_uncertainty();
}

void PairAdatom::evaluate(const adatom::Graph& graph, adatom::GraphResult& result) {
  try {
    report_matmul(graph);
    potential_->evaluate(graph, result, &halo_);
  } catch (const LAMMPSException&) {
    throw;
  } catch (const adatom::NotFinite& e) {
    const auto name = [&](int node) {
      const int i = graph_.atom_of_node()[node];
      return fmt::format("atom {}", atom->tag_enable ? atom->tag[i] : i);
    };
    stop_one(fmt::format("{} (step {})", e.text(name), update->ntimestep));
  } catch (const std::exception& e) {
    stop_one(e.what());
  }
}

/// What belongs to a remote node goes to one of its ghosts; LAMMPS's reverse communication brings it to the owner.
void PairAdatom::add_result(const adatom::GraphResult& result) {
  const double eV = units_.electronvolt, eV_per_angstrom = units_.electronvolt / units_.angstrom;
  const auto& atoms = graph_.atom_of_node();
  for (int node = 0; node < graph_.n_nodes(); ++node)
    for (int k = 0; k < 3; ++k) atom->f[atoms[node]][k] += eV_per_angstrom * forces_[3 * static_cast<std::size_t>(node) + k];

  if (eflag_global) eng_vdwl += eV * result.energy;
  if (eflag_atom)
    for (int node = 0; node < graph_.n_receivers(); ++node) eatom[atoms[node]] += eV * energies_[node];

  // LAMMPS: xx yy zz xy xz yz, and for the centroid form yx zx zy after them; the engine: row major, rows are positions, columns are forces
  static constexpr int order[9] = {0, 4, 8, 1, 2, 5, 3, 6, 7};
  static constexpr int transposed[9] = {0, 4, 8, 3, 6, 7, 1, 2, 5};
  if (vflag_global)
    for (int k = 0; k < 6; ++k) virial[k] += eV * 0.5 * (result.virial[order[k]] + result.virial[transposed[k]]);
  if (vflag_atom || cvflag_atom)
    for (int node = 0; node < graph_.n_nodes(); ++node) {
      const double* w = &virials_[9 * static_cast<std::size_t>(node)];
      if (vflag_atom)
        for (int k = 0; k < 6; ++k) vatom[atoms[node]][k] += eV * 0.5 * (w[order[k]] + w[transposed[k]]);
      if (cvflag_atom)
        for (int k = 0; k < 9; ++k) cvatom[atoms[node]][k] += eV * w[order[k]];
    }
}

// ---- uncertainty ----

PairAdatom* PairAdatom::with_uncertainty(LAMMPS* lammps, const std::string& style) {
  auto* pair = dynamic_cast<PairAdatom*>(lammps->force->pair_match("^adatom$", 0));
  if (!pair) lammps->error->all(FLERR, style + " needs pair_style adatom, once");
  const std::string& why_not = pair->potential_->info().no_uncertainty;
  if (!why_not.empty()) lammps->error->all(FLERR, style + ": " + why_not);
  return pair;
}

/// The same on all ranks.
bool PairAdatom::uncertainty_is_wanted() const {
  for (int k = 0; k < modify->ncompute; ++k)
    if (std::strcmp(modify->compute[k]->style, "adatom/uncertainty") == 0 && modify->compute[k]->matchstep(update->ntimestep)) return true;
  for (int k = 0; k < modify->nfix; ++k)
    if (std::strcmp(modify->fix[k]->style, "adatom/guard") == 0 && (update->setupflag || update->ntimestep % modify->fix[k]->nevery == 0)) return true;
  return false;
}

/// Collective.
void PairAdatom::add_uncertainty() {
  const int members = potential_->info().members;
  std::vector<double> sums(members + 1);  // and the number of atoms
  for (int node = 0; node < graph_.n_receivers(); ++node)
    for (int k = 0; k < members; ++k) sums[k] += member_energies_[static_cast<std::size_t>(node) * members + k];
  sums[members] = graph_.n_receivers();
  MPI_Allreduce(MPI_IN_PLACE, sums.data(), members + 1, MPI_DOUBLE, MPI_SUM, world);
  uncertainty_.energy_std = units_.electronvolt * potential_->energy_std(sums.data(), static_cast<std::size_t>(sums[members]));
  uncertainty_.force_std.assign(atom->nlocal, 0.0);
  uncertainty_.distances.assign(atom->nlocal, 0.0);
  for (int node = 0; node < graph_.n_receivers(); ++node) {
    const int i = graph_.atom_of_node()[node];
    uncertainty_.force_std[i] = units_.electronvolt / units_.angstrom * force_std_[node];
    uncertainty_.distances[i] = distances_[node];
  }
  uncertainty_.step = update->ntimestep;
}

std::vector<double> PairAdatom::whitened(int own_atom) {
  const int width = potential_->info().whitened;
  std::vector<double> rows(static_cast<std::size_t>(graph_.n_receivers()) * width);
  adatom::GraphResult result;
  result.whitened = rows.data();
  evaluate(graph_.view(), result);
  const auto& atoms = graph_.atom_of_node();
  for (int node = 0; node < graph_.n_receivers(); ++node)
    if (atoms[node] == own_atom)
      return {rows.begin() + static_cast<std::ptrdiff_t>(node) * width, rows.begin() + static_cast<std::ptrdiff_t>(node + 1) * width};
  return {};
}

double PairAdatom::memory_usage() {
  double bytes = Pair::memory_usage() + static_cast<double>(graph_.bytes() + halo_.bytes() + sizeof(adatom_lammps::NodeId) * node_ids_.capacity());
  bytes += sizeof(double) * static_cast<double>(energies_.capacity() + forces_.capacity() + virials_.capacity() + member_energies_.capacity());
  if (potential_) bytes += static_cast<double>(potential_->counters().workspace_bytes);
  return bytes;
}

// ---- errors ----

/// Collective: the message of the first rank that has one; empty if none has.
std::string PairAdatom::message_of_any_rank(const std::string& mine) {
  int rank = mine.empty() ? comm->nprocs : comm->me, first = 0;
  MPI_Allreduce(&rank, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == comm->nprocs) return {};
  int size = static_cast<int>(mine.size());
  MPI_Bcast(&size, 1, MPI_INT, first, world);
  std::string message = mine;
  message.resize(size);
  MPI_Bcast(message.data(), size, MPI_CHAR, first, world);
  return message;
}

/// On every rank with the same message. Does nothing if it is empty.
void PairAdatom::stop_all(const std::string& message) {
  if (!message.empty()) error->all(FLERR, "pair style adatom: " + message);
}

/// From one rank while others may wait in a communication: they are ended.
void PairAdatom::stop_one(const std::string& message) {
  if (comm->nprocs == 1) error->all(FLERR, message);
  error->one(FLERR, message);
}

}  // namespace LAMMPS_NS
