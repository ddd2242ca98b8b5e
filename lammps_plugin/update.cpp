// SPDX-License-Identifier: GPL-2.0-or-later
// Updates of one version of LAMMPS have different classes, and the number of the version is the same. There is no function that tells the update:
// it is in the name of the commit, and, of a LAMMPS that was built without git, in the text that `lmp -help` begins with.
#include "update.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>

#include <lammps.h>
#include <library.h>

namespace adatom_lammps {
namespace {

std::string update_text(int update) { return update ? " - Update " + std::to_string(update) : ""; }

/// "20250722" -> "22 Jul 2025"
std::string date(int number) {
  static constexpr const char* months[] = {"?", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const int month = number / 100 % 100;
  return std::to_string(number % 100) + " " + months[month > 12 ? 0 : month] + " " + std::to_string(number / 10000);
}

/// From the first line of the help, in the file of the library or program that holds LAMMPS; empty if it is not there.
std::string from_help() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&lammps_version), &info) || !info.dli_fname) return {};
  const int file = ::open(info.dli_fname, O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  struct stat status = {};
  ::fstat(file, &status);
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = size ? ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  ::close(file);
  if (data == MAP_FAILED) return {};
  constexpr std::string_view before = "Massively Parallel Simulator - ";
  const std::string_view all(static_cast<const char*>(data), size);
  std::string found;
  if (const auto at = all.find(before); at != std::string_view::npos) {
    const auto text = all.substr(at + before.size(), 100);
    found = text.substr(0, text.find('\n'));
  }
  ::munmap(data, size);
  return found;
}

}  // namespace

std::string compiled_for() { return std::string(ADATOM_LAMMPS_VERSION) + update_text(ADATOM_LAMMPS_UPDATE); }

std::string loaded_by(void* lmp) {
  const std::string version = date(lammps_version(lmp));
  if (lammps_version(lmp) != ADATOM_LAMMPS_VERSION_NUMBER) return version;
  std::string commit;
  if (LAMMPS_NS::LAMMPS::has_git_info()) {
    std::string tag = "stable_" ADATOM_LAMMPS_TAG;
    if (ADATOM_LAMMPS_UPDATE) tag += "_update" + std::to_string(ADATOM_LAMMPS_UPDATE);
    if (LAMMPS_NS::LAMMPS::git_descriptor() == tag) return compiled_for();
    commit = " (" + std::string(LAMMPS_NS::LAMMPS::git_descriptor()) + ")";
  }
  const std::string text = from_help();
  return (text.empty() ? version + " of an unknown update" : text) + commit;
}

}  // namespace adatom_lammps
