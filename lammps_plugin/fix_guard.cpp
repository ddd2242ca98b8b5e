// SPDX-License-Identifier: GPL-2.0-or-later
#include "fix_guard.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>

#include "adatom/elements.hpp"
#include "pair_adatom.hpp"

#include <atom.h>
#include <comm.h>
#include <domain.h>
#include <error.h>
#include <modify.h>
#include <timer.h>
#include <universe.h>
#include <update.h>

namespace LAMMPS_NS {
namespace {

/// Why a file cannot be written to; empty if it can. Leaves no file behind that was not there.
std::string cannot_open(const std::string& name) {
  const int made = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  const int file = made >= 0 || errno != EEXIST ? made : ::open(name.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (file < 0) return std::strerror(errno);
  ::close(file);
  if (made >= 0) ::unlink(name.c_str());
  return {};
}

/// To the end of a file in one write, so that a run that is killed leaves whole frames. Where there is no space, the file gets its old length again.
/// Returns why the frame is not in the file; empty if it is there.
std::string append(const std::string& name, const std::string& text) {
  const int file = ::open(name.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) return std::strerror(errno);
  struct stat before = {};
  const bool regular = ::fstat(file, &before) == 0 && S_ISREG(before.st_mode);
  int error = 0;
  for (std::size_t done = 0; done < text.size() && !error;) {
    const ssize_t n = ::write(file, text.data() + done, text.size() - done);
    if (n >= 0)
      done += static_cast<std::size_t>(n);
    else if (errno != EINTR)
      error = errno;
  }
  if (::close(file) != 0 && !error) error = errno;  // some file systems report a full disk only here
  if (!error) return {};
  const std::string why = std::strerror(error);
  if (regular && ::truncate(name.c_str(), before.st_size) != 0) return why + "; its last frame is incomplete: take it out";
  return why;
}

bool same(const std::array<double, 10>& a, const std::array<double, 10>& b) {
  for (int k = 0; k < 10; ++k)
    if (!(std::abs(a[k] - b[k]) <= 1e-12 * (k < 4 ? std::max(a[3], b[3]) : std::abs(a[k])))) return false;
  return true;
}

}  // namespace

FixGuard::FixGuard(LAMMPS* lammps, int narg, char** arg) : Fix(lammps, narg, arg) {
  if (narg < 4)
    error->all(FLERR,
               "fix adatom/guard has the form 'fix ID group adatom/guard N [distance X] [force X] [energy X] [action A] [universe yes|no] [file F] [collect X] "
               "[novelty X]'");
  nevery = utils::is_integer(arg[3]) ? utils::inumeric(FLERR, arg[3], false, lmp) : 0;
  if (nevery < 1) error->all(FLERR, "fix adatom/guard: N is '" + std::string(arg[3]) + "', expected a number of steps from 1 on");
  static const std::set<std::string> known = {"distance", "force", "energy", "action", "universe", "file", "collect", "novelty"};
  std::set<std::string> given;
  for (int k = 4; k < narg; k += 2) {
    const std::string key = arg[k];
    if (!known.count(key))
      error->all(FLERR, "fix adatom/guard: unknown keyword '" + key + "', expected distance, force, energy, action, universe, file, collect or novelty");
    if (k + 1 == narg) error->all(FLERR, "fix adatom/guard: '" + key + "' at the end of the command has no value");
    const std::string value = arg[k + 1];
    if (!given.insert(key).second) error->all(FLERR, "fix adatom/guard: '" + key + "' is given twice: give it once");
    const auto positive = [&] {
      const double x = utils::is_double(value) ? utils::numeric(FLERR, value, false, lmp) : 0.0;
      if (!(x > 0.0)) error->all(FLERR, "fix adatom/guard: " + key + " is '" + value + "', expected a number above zero");
      return x;
    };
    if (key == "distance") {
      distance_ = positive();
    } else if (key == "force") {
      force_ = positive();
    } else if (key == "energy") {
      energy_ = positive();
    } else if (key == "novelty") {
      novelty_ = positive();
    } else if (key == "collect") {
      collect_ = positive();
    } else if (key == "file") {
      file_ = value;
    } else if (key == "universe") {
      if (value != "yes" && value != "no") error->all(FLERR, "fix adatom/guard: universe is '" + value + "', expected yes or no");
      universe_ = value == "yes";
    } else {
      if (value == "none")
        action_ = Action::none;
      else if (value == "warn")
        action_ = Action::warn;
      else if (value == "halt")
        action_ = Action::halt;
      else
        error->all(FLERR, "fix adatom/guard: action is '" + value + "', expected none, warn or halt");
    }
  }
  if (std::isinf(distance_) && std::isinf(force_) && std::isinf(energy_))
    error->all(FLERR, "fix adatom/guard: no threshold: give at least one of distance, force, energy (distance 1.5 is a good beginning)");
  if (!std::isinf(collect_) && file_.empty()) error->all(FLERR, "fix adatom/guard: collect says which configurations go to a file, but there is no file");
  if (!std::isinf(collect_) && collect_ >= distance_)
    error->all(FLERR, fmt::format("fix adatom/guard: collect is {}, not below the threshold of distance, {}: such configurations go to the file anyway",
                                  collect_, distance_));
  if (given.count("novelty") && file_.empty()) error->all(FLERR, "fix adatom/guard: novelty says which configurations go to a file, but there is no file");
  if (given.count("universe") && action_ != Action::halt)
    error->all(FLERR, "fix adatom/guard: universe says which partitions halt, but action is not halt: give 'action halt', or leave it out");
  if (action_ == Action::halt && universe->nworlds > 1 && !given.count("universe"))
    error->all(FLERR,
               "fix adatom/guard: with several partitions, action halt needs 'universe yes' (all of them halt together; under neb and temper they "
               "would wait for one that halts alone) or 'universe no' (each runs for itself)");
  if (!file_.empty()) {
    std::string why = comm->me == 0 ? cannot_open(file_) : "";
    int failed = !why.empty();
    MPI_Bcast(&failed, 1, MPI_INT, 0, world);
    if (failed) error->all(FLERR, "fix adatom/guard: cannot write to " + file_ + ": " + (comm->me == 0 ? why : "see the first rank's message"));
  }
  scalar_flag = vector_flag = 1;
  size_vector = 6;
  extscalar = extvector = 0;
  global_freq = 1;  // values of the last check
  restart_global = 1;
}

int FixGuard::setmask() { return FixConst::END_OF_STEP | FixConst::MIN_POST_FORCE; }

void FixGuard::init() {
  pair_ = PairAdatom::with_uncertainty(lmp, "fix adatom/guard");
  if (action_ != Action::halt || universe->nworlds == 1) return;
  if (update->multireplica && !universe_)
    error->all(FLERR,
               "fix adatom/guard: the partitions of this command wait for each other, and one that halts alone would leave the others waiting: use "
               "'universe yes'");
  for (int k = 0; k < modify->nfix; ++k)
    if (std::strncmp(modify->fix[k]->style, "event/", 6) == 0)
      error->all(FLERR,
                 "fix adatom/guard: the partitions of prd, tad and hyper wait for each other at places of their own, and cannot halt together: use "
                 "'action warn'");
}

/// Whether a minimisation of a partition for itself goes on, which takes as many steps as it needs: the others do not know where it is.
bool FixGuard::is_on_its_own() const { return universe_ && universe->nworlds > 1 && update->whichflag == 2 && !update->multireplica; }

/// Collective over all partitions with `universe yes`: whether this happens in any of them.
bool FixGuard::any_partition(bool here) const {
  if (!universe_ || universe->nworlds == 1 || is_on_its_own()) return here;
  const int mine = here;
  int any = 0;
  MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, universe->uworld);
  return any;
}

/// Once a step: a line search evaluates several configurations, of which the first is checked.
void FixGuard::min_post_force(int) {
  if (update->ntimestep % nevery == 0 && update->ntimestep != last_check_) check();
}

/// Trips, configurations written, energy, force and distance at the last check, step of the last trip.
double FixGuard::compute_vector(int k) {
  const double values[6] = {static_cast<double>(trips_), static_cast<double>(written_), last_[0], last_[1], last_[2], static_cast<double>(last_trip_)};
  return values[k];
}

/// Collective. The atom with the largest value (`finite`: of those that are), of several the one with the lowest tag.
FixGuard::Worst FixGuard::worst_by(const std::vector<double>& values, bool finite) const {
  Worst worst;
  const auto tag_of = [this](int i) { return static_cast<bigint>(atom->tag_enable ? atom->tag[i] : i + 1); };
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!(atom->mask[i] & groupbit) || !pair_->atomic_number(i) || (finite && std::isinf(values[i]))) continue;
    if (worst.own < 0 || values[i] > worst.value || (values[i] == worst.value && tag_of(i) < tag_of(worst.own))) worst = {values[i], 0, i, 0};
  }
  const double mine = worst.own < 0 ? -1.0 : worst.value;
  MPI_Allreduce(&mine, &worst.value, 1, MPI_DOUBLE, MPI_MAX, world);
  const bool candidate = worst.own >= 0 && mine == worst.value;
  bigint tag = candidate ? tag_of(worst.own) : MAXBIGINT;
  const bigint my_tag = tag;
  MPI_Allreduce(&my_tag, &tag, 1, MPI_LMP_BIGINT, MPI_MIN, world);
  const int rank = candidate && my_tag == tag ? comm->me : comm->nprocs;
  int owner;
  MPI_Allreduce(&rank, &owner, 1, MPI_INT, MPI_MIN, world);
  if (owner != comm->me) worst.own = -1;
  if (owner == comm->nprocs) return {};  // there is none
  int element = worst.own >= 0 ? pair_->atomic_number(worst.own) : 0;
  MPI_Bcast(&element, 1, MPI_INT, owner, world);
  worst.tag = static_cast<tagint>(tag);
  worst.element = element;
  return worst;
}

/// Collective. Two configurations that differ have different ones; the order of atoms, their ranks and their periodic images change them by rounding only.
/// Three sums of coordinates, each with a weight of the atom's own; the sum of their magnitudes; the box along periodic directions.
std::array<double, 10> FixGuard::fingerprint() const {
  std::array<double, 4> mine = {}, sums = {};
  for (int i = 0; i < atom->nlocal; ++i) {
    double r[3], unused;
    domain->unmap(atom->x[i], atom->image[i], r);
    const double weight =
        1.0 + std::modf(0.6180339887498949 * static_cast<double>(atom->tag_enable ? atom->tag[i] : 0) + 0.4142135623730951 * atom->type[i], &unused);
    for (int k = 0; k < 3; ++k) mine[k] += weight * r[k], mine[3] += std::abs(weight * r[k]);
  }
  MPI_Allreduce(mine.data(), sums.data(), 4, MPI_DOUBLE, MPI_SUM, world);
  return {sums[0],
          sums[1],
          sums[2],
          sums[3],
          domain->xperiodic ? domain->xprd : 0.0,
          domain->yperiodic ? domain->yprd : 0.0,
          domain->zperiodic ? domain->zprd : 0.0,
          domain->xy,
          domain->xz,
          domain->yz};
}

/// The first configuration of a run is as a rule the last one of the run before, or of the one that wrote the restart file: what was done about it is not
/// done again. Atoms may have been displaced in between.
void FixGuard::check() {
  const auto now = fingerprint();
  const bool again = update->ntimestep == last_check_ && same(now, checked_);
  last_check_ = update->ntimestep;
  checked_ = now;
  const auto& u = pair_->uncertainty();
  if (u.step != update->ntimestep) error->all(FLERR, "fix adatom/guard: no uncertainties for step " + std::to_string(update->ntimestep));
  const Worst by_force = worst_by(u.force_std), by_distance = worst_by(u.distances);
  last_[0] = u.energy_std, last_[1] = by_force.value, last_[2] = by_distance.value;
  if (again && acted_) {
    if (any_partition(false)) halt_with_others();
    return;
  }
  const bool far = last_[2] > distance_, unsure = last_[1] > force_, unsure_of_energy = last_[0] > energy_, tripped = far || unsure || unsure_of_energy;
  acted_ = tripped || last_[2] > collect_;
  const bool halt = tripped && action_ == Action::halt && !is_on_its_own(), others_halt = any_partition(halt) && !halt;
  if (!tripped) {
    if (others_halt) halt_with_others();
    if (acted_) keep(by_distance, u.distances, fmt::format("distance {:.3g} of atom {} > {:.3g}", last_[2], by_distance.tag, collect_));
    return;
  }
  ++trips_;
  last_trip_ = update->ntimestep;
  std::string why;
  const auto add = [&](const std::string& what) { why += (why.empty() ? "" : ", ") + what; };
  if (far) add(fmt::format("distance {:.3g} of atom {} > {:.3g}", last_[2], by_distance.tag, distance_));
  if (unsure) add(fmt::format("force std {:.3g} of atom {} > {:.3g}", last_[1], by_force.tag, force_));
  if (unsure_of_energy) add(fmt::format("energy std {:.3g} > {:.3g}", last_[0], energy_));
  if (comm->me == 0 && action_ != Action::none)
    error->warning(FLERR, fmt::format("fix adatom/guard: step {}: {}{}", update->ntimestep, why,
                                      halt ? "; halting the run (later runs do no step before 'timer timeout off')" : ""));
  if (!file_.empty()) {
    if (far || !unsure)
      keep(by_distance, u.distances, why);
    else
      keep(by_force, u.force_std, why);
  }
  if (halt) timer->force_timeout();
}

void FixGuard::halt_with_others() {
  if (comm->me == 0)
    error->warning(
        FLERR, fmt::format("fix adatom/guard: step {}: another partition halts the run (later runs do no step before 'timer timeout off')", update->ntimestep));
  timer->force_timeout();
}

/// Collective. Writes the configuration unless its worst atom is about where that of an earlier frame was: compares whitened features, in the units of
/// distances. Elements that the detectors do not know have infinite values and no such features: then the worst atom with a finite value is compared, with
/// frames in which the same element was unknown.
void FixGuard::keep(Worst worst, const std::vector<double>& values, const std::string& why) {
  Seen now;
  if (std::isinf(worst.value)) {
    now.unknown = worst.element;
    worst = worst_by(values, true);
  }
  now.element = worst.element;
  now.whitened = pair_->whitened(worst.own);  // empty but on its owner
  const int mine = now.whitened.empty() ? comm->nprocs : comm->me;
  int owner, size = static_cast<int>(now.whitened.size());
  MPI_Allreduce(&mine, &owner, 1, MPI_INT, MPI_MIN, world);
  if (owner < comm->nprocs) {
    MPI_Bcast(&size, 1, MPI_INT, owner, world);
    now.whitened.resize(size);
    MPI_Bcast(now.whitened.data(), size, MPI_DOUBLE, owner, world);
  }
  const bool comparable = size > 0 || now.unknown;  // else the group is empty
  for (const Seen& other : seen_) {
    if (!comparable || other.unknown != now.unknown || other.element != now.element || other.whitened.size() != now.whitened.size()) continue;
    double square = 0.0;
    for (int k = 0; k < size; ++k) square += (now.whitened[k] - other.whitened[k]) * (now.whitened[k] - other.whitened[k]);
    if (std::sqrt(square / std::max(size, 1)) < novelty_) return;
  }
  if (!write_frame(why)) return;  // and it is new the next time
  ++written_;
  if (comparable) seen_.push_back(std::move(now));
}

/// Collective: extended xyz in angstrom and eV, atoms in the order of their tags. Predictions have names that nobody takes for labels.
/// Returns whether it is in the file.
bool FixGuard::write_frame(const std::string& why) {
  constexpr int columns = 10;
  const auto& units = pair_->units();
  const auto& u = pair_->uncertainty();
  std::vector<double> mine, all;
  for (int i = 0; i < atom->nlocal; ++i) {
    if (!pair_->atomic_number(i)) continue;
    mine.push_back(static_cast<double>(atom->tag_enable ? atom->tag[i] : i));
    mine.push_back(pair_->atomic_number(i));
    for (int k = 0; k < 3; ++k) mine.push_back(atom->x[i][k] / units.angstrom);
    for (int k = 0; k < 3; ++k) mine.push_back(atom->f[i][k] * units.angstrom / units.electronvolt);
    mine.push_back(u.force_std[i] * units.angstrom / units.electronvolt);
    mine.push_back(u.distances[i]);
  }
  const int count = static_cast<int>(mine.size());
  std::vector<int> counts(comm->nprocs), first(comm->nprocs + 1);
  MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
  for (int rank = 0; rank < comm->nprocs; ++rank) first[rank + 1] = first[rank] + counts[rank];
  if (comm->me == 0) all.resize(first.back());
  MPI_Gatherv(mine.data(), count, MPI_DOUBLE, all.data(), counts.data(), first.data(), MPI_DOUBLE, 0, world);

  std::string trouble;
  if (comm->me == 0) {
    std::vector<const double*> rows;
    for (std::size_t k = 0; k < all.size(); k += columns) rows.push_back(&all[k]);
    std::sort(rows.begin(), rows.end(), [](const double* a, const double* b) { return a[0] < b[0]; });
    const double a = units.angstrom;
    std::string text = fmt::format(
        "{}\nLattice=\"{:.10g} 0 0 {:.10g} {:.10g} 0 {:.10g} {:.10g} {:.10g}\" "
        "Properties=species:S:1:pos:R:3:adatom_forces:R:3:adatom_force_std:R:1:adatom_distance:R:1 "
        "pbc=\"{} {} {}\" step={} adatom_energy_std={:.8g} reason=\"{}\"\n",
        rows.size(), domain->xprd / a, domain->xy / a, domain->yprd / a, domain->xz / a, domain->yz / a, domain->zprd / a, domain->xperiodic ? "T" : "F",
        domain->yperiodic ? "T" : "F", domain->zperiodic ? "T" : "F", update->ntimestep, u.energy_std / units.electronvolt, why);
    for (const double* r : rows)
      text += fmt::format("{} {:.10g} {:.10g} {:.10g} {:.8g} {:.8g} {:.8g} {:.6g} {:.6g}\n", adatom::element_symbol(static_cast<int>(r[1])), r[2], r[3], r[4],
                          r[5], r[6], r[7], r[8], r[9]);
    trouble = append(file_, text);
  }
  int failed = !trouble.empty();
  MPI_Bcast(&failed, 1, MPI_INT, 0, world);
  if (failed && comm->me == 0 && !warned_)
    error->warning(FLERR, "fix adatom/guard: cannot write to " + file_ + ": " + trouble +
                              "; the run goes on, and configurations are not kept while this lasts: give it a place and space (this is said once)");
  warned_ = warned_ || failed;
  return !failed;
}

double FixGuard::memory_usage() {
  double bytes = 0.0;
  for (const Seen& s : seen_) bytes += static_cast<double>(sizeof(Seen) + sizeof(double) * s.whitened.capacity());
  return bytes;
}

// The counts and what was seen go on in a restarted run, so that the file gets no configuration twice.
void FixGuard::write_restart(FILE* file) {
  if (comm->me) return;
  std::vector<double> values = {static_cast<double>(trips_), static_cast<double>(written_), static_cast<double>(last_trip_), static_cast<double>(last_check_),
                                static_cast<double>(acted_)};
  values.insert(values.end(), checked_.begin(), checked_.end());
  values.push_back(static_cast<double>(seen_.size()));
  for (const Seen& s : seen_) {
    values.push_back(s.unknown);
    values.push_back(s.element);
    values.push_back(static_cast<double>(s.whitened.size()));
    values.insert(values.end(), s.whitened.begin(), s.whitened.end());
  }
  const int bytes = static_cast<int>(values.size() * sizeof(double));
  std::fwrite(&bytes, sizeof(int), 1, file);
  std::fwrite(values.data(), 1, bytes, file);
}

void FixGuard::restart(char* buffer) {
  const auto next = [&buffer] {
    double x;
    std::memcpy(&x, buffer, sizeof x);
    buffer += sizeof x;
    return x;
  };
  trips_ = static_cast<bigint>(next());
  written_ = static_cast<bigint>(next());
  last_trip_ = static_cast<bigint>(next());
  last_check_ = static_cast<bigint>(next());
  acted_ = next() != 0.0;
  for (double& x : checked_) x = next();
  for (auto n = static_cast<std::size_t>(next()); n > 0; --n) {
    Seen s;
    s.unknown = static_cast<int>(next());
    s.element = static_cast<int>(next());
    s.whitened.resize(static_cast<std::size_t>(next()));
    for (double& x : s.whitened) x = next();
    seen_.push_back(std::move(s));
  }
}

}  // namespace LAMMPS_NS
