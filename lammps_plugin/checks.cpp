// SPDX-License-Identifier: GPL-2.0-or-later
// What would silently make the network see other atoms or edges than there are, and masses of other elements.
//
// LAMMPS has many ways to take a pair out of a neighbour list. A pair that is missing there is a missing edge of the network: the energy would be another
// one, that of no model. So each way is an error, but one: atoms that are excluded from all others are not there at all (see left_out_mask).
#include <algorithm>
#include <cstring>
#include <set>

#include "adatom/elements.hpp"
#include "atomic_weights.hpp"
#include "pair_adatom.hpp"

#include <atom.h>
#include <comm.h>
#include <compute.h>
#include <error.h>
#include <fix.h>
#include <force.h>
#include <group.h>
#include <modify.h>
#include <neighbor.h>
#include <update.h>

namespace LAMMPS_NS {
namespace {

constexpr int group_all = 0;  // its number in class Group

/// The group of an exclusion against all others, -1 if it is another kind of exclusion.
int excluded_from_all(const Neighbor& neighbor, int k) {
  const int first = neighbor.ex1_group[k], second = neighbor.ex2_group[k];
  if (first == group_all && second == group_all) return -1;
  return first == group_all ? second : second == group_all ? first : -1;
}

/// Of a member that Comm keeps for itself: the group whose atoms alone become ghosts, 0 for all atoms.
struct Bordergroup : Comm {
  static int of(const Comm& comm) { return comm.*(&Bordergroup::bordergroup); }
};

}  // namespace

/// At the beginning of a run: what does not depend on where atoms are, and is known before fixes are initialised.
void PairAdatom::check_settings() {
  if (neighbor->includegroup)
    error->all(FLERR, "'neigh_modify include' takes pairs out of the neighbour list that pair style adatom needs: use 'neigh_modify include all'");
  if (Bordergroup::of(*comm)) error->all(FLERR, "'comm_modify group' takes ghost atoms away that pair style adatom needs: use 'comm_modify group all'");
  for (int k = 0; k < modify->ncompute; ++k)
    if (std::strcmp(modify->compute[k]->style, "heat/flux") == 0 && comm->me == 0 && !heat_flux_is_told_) {
      heat_flux_is_told_ = true;
      error->warning(FLERR,
                     "compute heat/flux is wrong for pair style adatom by tens of per cent, also with centroid/stress/atom: the layers of a network "
                     "carry energy farther than the virial of an atom tells");
    }
}

void PairAdatom::add_tally_callback(Compute* compute) {
  error->all(FLERR, "compute " + std::string(compute->id) + " (" + compute->style +
                        ") adds up energies or forces of pairs, and pair style adatom has none: use compute pe/atom or centroid/stress/atom");
}

/// Before the first evaluation of a run: what LAMMPS has settled by then. Collective.
void PairAdatom::check_list() {
  if (list_is_checked_) return;
  list_is_checked_ = true;
  const int n = atom->ntypes;
  for (int i = 1; i <= n; ++i)
    for (int j = i; j <= n; ++j) {
      if (!numbers_[i] || !numbers_[j]) continue;
      const std::string pair = fmt::format("atom types {} ({}) and {} ({})", i, adatom::element_symbol(numbers_[i]), j, adatom::element_symbol(numbers_[j]));
      if (!is_served_[i * (n + 1) + j])
        error->all(FLERR, fmt::format("pair style adatom: {} are both in the network, but a later 'pair_coeff' of {} gives their pair to {}: that takes edges "
                                      "away from the network. Use pair_style hybrid/overlay, or map one of the types to NULL",
                                      pair, force->pair_style, other_styles(i, j)));
      for (int k = 0; k < neighbor->nex_type; ++k)
        if ((neighbor->ex1_type[k] == i && neighbor->ex2_type[k] == j) || (neighbor->ex1_type[k] == j && neighbor->ex2_type[k] == i))
          error->all(FLERR, fmt::format("'neigh_modify exclude type {} {}' takes pairs of {} out of the neighbour list that pair style adatom needs: remove it "
                                        "with 'neigh_modify exclude none' (to hold atoms fixed, use fix setforce or leave them out of the time integration)",
                                        neighbor->ex1_type[k], neighbor->ex2_type[k], pair));
    }
  const int mask = left_out_mask();
  for (int k = 0; k < group->ngroup; ++k) {
    const std::string name = group->names[k] ? group->names[k] : "", part = "exclusion_group:";  // as FixGCMC:gcmc_exclusion_group:ID
    const auto at = name.rfind(part);
    if (at == std::string::npos || group->bitmask[k] & mask) continue;
    if (const Fix* fix = modify->get_fix_by_id(name.substr(at + part.size())))
      error->all(FLERR, fmt::format("'neigh_modify exclude none' has removed the exclusion by which fix {} ({}) takes atoms out for its trials: unfix it and "
                                    "define it anew",
                                    fix->id, fix->style));
  }
  bigint mine = 0, left_out = 0;
  for (int i = 0; i < atom->nlocal; ++i) mine += numbers_[atom->type[i]] && atom->mask[i] & mask;
  MPI_Allreduce(&mine, &left_out, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  if (left_out && comm->me == 0)
    utils::logmesg(lmp, fmt::format("adatom: {} atom{} left out: 'neigh_modify exclude' excludes {} from group all\n", left_out,
                                    left_out == 1 ? " is" : "s are", left_out == 1 ? "it" : "them"));
}

/// Names of the styles of pair_style hybrid, but this one, that have coefficients for two types.
std::string PairAdatom::other_styles(int i, int j) const {
  std::string names;
  for (const auto& [name, create] : *force->pair_map) {
    std::set<Pair*> seen;
    for (int n = 1;; ++n) {
      Pair* style = force->pair_match(name, 1, n);
      if (!style || !seen.insert(style).second) break;
      if (style == this || style == force->pair || !style->setflag || !(style->setflag[i][j] || style->setflag[j][i])) continue;
      names += (names.empty() ? "" : " or ") + name;
      break;
    }
  }
  return names.empty() ? "none" : names;
}

/// Bits of the groups whose atoms are excluded from all others. Such an atom is not there: it has no node, no energy and no force. The Monte Carlo fixes of
/// LAMMPS (gcmc, widom, charge/regulation) make such a group, and put an atom into it to see what the energy is without that atom.
int PairAdatom::left_out_mask() const {
  int mask = 0;
  for (int k = 0; k < neighbor->nex_group; ++k)
    if (const int group_number = excluded_from_all(*neighbor, k); group_number >= 0) mask |= group->bitmask[group_number];
  return mask;
}

/// Whenever the list was made anew, since atoms may change groups: exclusions of groups from each other, or of molecules. Collective where there are some.
void PairAdatom::check_groups() {
  bool any = neighbor->nex_mol > 0;
  for (int k = 0; k < neighbor->nex_group; ++k) any = any || excluded_from_all(*neighbor, k) < 0;
  if (!any) return;
  int mine = 0, groups = 0;  // of all atoms in the network
  for (int node = 0; node < graph_.n_receivers(); ++node) mine |= atom->mask[graph_.atom_of_node()[node]];
  MPI_Allreduce(&mine, &groups, 1, MPI_INT, MPI_BOR, world);
  std::string what;
  for (int k = 0; k < neighbor->nex_group; ++k)
    if (excluded_from_all(*neighbor, k) < 0 && groups & neighbor->ex1_bit[k] && groups & neighbor->ex2_bit[k])
      what = fmt::format("group {} {}", group->names[neighbor->ex1_group[k]], group->names[neighbor->ex2_group[k]]);
  for (int k = 0; k < neighbor->nex_mol; ++k)
    if (groups & neighbor->ex_mol_bit[k])
      what = fmt::format("molecule/{} {}", neighbor->ex_mol_intra[k] ? "intra" : "inter", group->names[neighbor->ex_mol_group[k]]);
  if (!what.empty())
    error->all(FLERR, "'neigh_modify exclude " + what +
                          "' takes pairs of atoms that pair style adatom handles out of the neighbour list that it needs: remove it with 'neigh_modify exclude "
                          "none' (to hold atoms fixed, use fix setforce or leave them out of the time integration; an exclusion from group all leaves atoms "
                          "out altogether)");
}

/// Bonds whose special_bonds are zero take pairs out of the list, whether the bonds are still there or not (delete_bonds). Collective where there may be some.
void PairAdatom::check_special_bonds() {
  const int* flag = neighbor->special_flag;  // 0: pairs 1-2, 1-3 or 1-4 along bonds are not in the list
  if (atom->molecular == Atom::ATOMIC || (flag[1] && flag[2] && flag[3])) return;
  int mine = 4, k = 4;
  if (atom->molecular == Atom::TEMPLATE) {
    if (atom->nbonds > 0) mine = !flag[1] ? 1 : !flag[2] ? 2 : 3;
  } else {
    for (int node = 0; node < graph_.n_receivers(); ++node) {
      const int i = graph_.atom_of_node()[node];
      for (int n = 0; n < atom->nspecial[i][2]; ++n) {
        const int kind = n < atom->nspecial[i][0] ? 1 : n < atom->nspecial[i][1] ? 2 : 3;
        if (flag[kind]) continue;
        const int j = atom->map(atom->special[i][n]);
        if (j >= 0 && numbers_[atom->type[j]]) mine = std::min(mine, kind);
      }
    }
  }
  MPI_Allreduce(&mine, &k, 1, MPI_INT, MPI_MIN, world);
  if (k < 4)
    error->all(FLERR, "the weights of 'special_bonds' for 1-" + std::to_string(k + 1) +
                          " neighbours are zero, which takes bonded pairs out of the neighbour list that pair style adatom needs: use "
                          "'special_bonds lj/coul 1 1 1'; bonds that delete_bonds removed count too, but with its keyword 'special'");
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

}  // namespace LAMMPS_NS
