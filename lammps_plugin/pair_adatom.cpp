// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_adatom.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <set>
#include <stdexcept>
#include <thread>

#include "adatom/elements.hpp"

#include <atom.h>
#include <comm.h>
#include <compute.h>
#include <domain.h>
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
  static const std::set<std::string> known = {"device", "precision", "threads", "head", "splines", "matmul"};
  options_ = {};
  is_initialised_ = false;
  potential_.reset();  // a second pair_style keeps the coefficients: init_style loads the model again
  std::set<std::string> given;
  for (int k = 0; k < narg; k += 2) {
    const std::string key = arg[k];
    if (!known.count(key))
      error->all(FLERR, "pair_style adatom: unknown keyword '" + key + "', expected device, precision, threads, head, splines or matmul" +
                            (utils::is_double(key) ? " (the cutoff is the model's)" : ""));
    if (k + 1 == narg) error->all(FLERR, "pair_style adatom: '" + key + "' at the end of the command has no value");
    if (!given.insert(key).second) error->all(FLERR, "pair_style adatom: '" + key + "' is given twice: give it once");
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
    } else {
      options_.threads = utils::is_integer(value) && value.size() < 7 ? std::stoi(value) : 0;
      if (options_.threads < 1) error->all(FLERR, "pair_style adatom: threads is '" + value + "', expected a number from 1 to 999999");
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
  masses_are_checked_ = is_initialised_ = false;
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
  } catch (const std::bad_alloc&) {
    message = "not enough memory to load " + file_;
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
  check_settings();
  check_masses();
  if (!potential_) stop_all(load());
  potential_->set_threads(options_.threads ? options_.threads : comm->nthreads);
  neighbor->add_request(this, NeighConst::REQ_FULL);
  is_served_.assign(static_cast<std::size_t>(atom->ntypes + 1) * (atom->ntypes + 1), false);
  is_initialised_ = true;
  list_is_checked_ = false;
  graph_is_stale_ = true;
}

double PairAdatom::init_one(int i, int j) {
  if (!setflag[i][j])
    error->all(FLERR, "pair style adatom: no coefficients for atom types " + std::to_string(i) + " and " + std::to_string(j) + ": see pair_coeff");
  is_served_[std::min(i, j) * (atom->ntypes + 1) + std::max(i, j)] = true;
  return potential_->cutoff() * units_.angstrom;
}

/// Collective: ranks tell each other their nodes.
void PairAdatom::rebuild_graph() {
  check_list();
  graph_.set_own_atoms(*atom, species_, left_out_mask());
  check_groups();
  check_special_bonds();
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
  if (const int i = graph_.changed_type(*atom); i >= 0)
    return fmt::format("the type of atom {} changed without a new neighbour list: leave out 'pre no' of the run, or make the list anew where types change",
                       atom->tag_enable ? atom->tag[i] : i);
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
  // Atoms that move more than half of the skin may meet others that are not in their list. LAMMPS makes a new one in time unless it is told not to look.
  const bool far = !motion_is_told_ && graph_.moved() * units_.angstrom > 0.5 * neighbor->skin && !domain->box_change_size && !domain->box_change_shape;
  bool any_far = false;
  stop_all(message_of_any_rank(message, far, &any_far));
  if (any_far && comm->me == 0)
    error->warning(FLERR,
                   fmt::format("pair style adatom: on step {} an atom has moved more than half of the skin ({:g}) since the neighbour list was made, and may "
                               "have neighbours that are not in it: use 'neigh_modify every 1 delay 0 check yes' or a larger skin (this is said once)",
                               update->ntimestep, neighbor->skin));
  motion_is_told_ = motion_is_told_ || any_far;
}

void PairAdatom::compute(int eflag, int vflag) {
  if (!is_initialised_)  // the neighbour list is that of the old cutoff
    stop_all("'pair_style' or 'pair_coeff' was given anew since the neighbour list was made: leave out 'pre no' of the run");
  try {
    ev_init(eflag, vflag);
    evaluate_atoms();
  } catch (const std::bad_alloc&) {
    stop_one(out_of_memory());
  }
}

void PairAdatom::evaluate_atoms() {
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
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const adatom::NotFinite& e) {
    const auto name = [&](int node) {
      const int i = graph_.atom_of_node()[node];
      return fmt::format("atom {}", atom->tag_enable ? atom->tag[i] : i);
    };
    stop_one(fmt::format("pair style adatom: {} (step {})", e.text(name), update->ntimestep));
  } catch (const std::exception& e) {
    stop_one("pair style adatom: " + std::string(e.what()));
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

std::string PairAdatom::out_of_memory() const {
  return fmt::format(
      "pair style adatom: not enough memory for the {} atoms of this rank and {} of other ranks beside them ({} pairs; {} atoms in all): use "
      "fewer atoms, or more ranks on more machines{}",
      graph_.n_receivers(), graph_.n_nodes() - graph_.n_receivers(), graph_.n_edges(), atom->natoms,
      options_.precision == adatom::Precision::float64 ? ", or 'precision float'" : "");
}

/// Collective: the message of the first rank that has one; empty if none has. And, of a question beside it, whether any rank says yes.
std::string PairAdatom::message_of_any_rank(const std::string& mine, bool yes, bool* any) {
  const int here[2] = {mine.empty() ? comm->nprocs : comm->me, yes ? 0 : 1};
  int least[2];
  MPI_Allreduce(here, least, 2, MPI_INT, MPI_MIN, world);
  if (any) *any = least[1] == 0;
  const int first = least[0];
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
  try {
    error->one(FLERR, message);
  } catch (...) {
    // LAMMPS aborts all ranks then. The launcher passes on what it has read until that: on a busy machine not yet the message.
    std::fflush(nullptr);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    throw;
  }
}

}  // namespace LAMMPS_NS
