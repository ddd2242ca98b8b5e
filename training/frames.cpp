// SPDX-License-Identifier: MIT
#include "training/frames.hpp"

#include <omp.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "adatom/neighbor_list.hpp"
#include "datasets/extxyz_reader.hpp"
#include "datasets/xxhash.hpp"
#include "training/label_checks.hpp"

namespace adatom::training {

using datasets::DataError;
using datasets::Frame;

namespace {

bool periodic(const Frame& frame) {
  const auto& pbc = frame.structure.pbc;
  return pbc[0] && pbc[1] && pbc[2];
}

void check(const Frame& frame, const std::string& where, const LossOptions& loss) {
  const std::vector<std::string> defects = datasets::defects(frame);
  if (!defects.empty()) throw DataError(where + ": " + defects.front() + "; `adatom data check` lists all that is wrong");
  if (loss.stress > 0 && frame.stress && !periodic(frame))
    throw DataError(where +
                    ": it has a stress, but its cell is not periodic in all directions, so that the stress means nothing; remove it, or set loss.stress = 0");
}

/// A label that the loss needs and the frame lacks; "" if it has them.
std::string missing_label(const Frame& frame, const LossOptions& loss) {
  const auto message = [](const std::string& label, const std::string& key) {
    return "it has no " + label + "; give the key it has in the file as data.keys." + key + ", or set loss." + key + " = 0";
  };
  if (loss.forces > 0 && frame.forces.empty()) return message("forces", "forces");
  if (loss.energy > 0 && !frame.energy) return message("energy", "energy");
  return "";
}

std::string names_of(const std::map<std::string, std::int64_t>& counts) {
  std::string text;
  for (const auto& [name, count] : counts) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

std::string cache_origin(const FrameFile& file, std::size_t index) { return file.path + ": frame " + std::to_string(index); }

}  // namespace

const Frame& FrameSet::get(std::size_t k, Frame& space) const {
  const FrameInfo& info = infos_[k];
  const FrameFile& file = *files_[info.file];
  if (!file.cache) return file.frames[info.index];
  file.cache->read(info.index, space);
  if (!info.stress) space.stress.reset();
  return space;
}

std::string FrameSet::origin(std::size_t k) const {
  const FrameFile& file = *files_[infos_[k].file];
  return file.cache ? cache_origin(file, infos_[k].index) : file.origins[infos_[k].index];
}

void FrameSet::for_each(const std::function<void(std::size_t, const Frame&)>& body) const {
  Frame space;
  for (std::size_t k = 0; k < size(); ++k) body(k, get(k, space));
}

void FrameSet::count_edges(double cutoff, int threads) {
  const auto n = static_cast<std::int64_t>(size());
  std::int64_t wrong = n;
  std::string reason;
#pragma omp parallel num_threads(threads > 0 ? threads : omp_get_max_threads())
  {
    NeighborList list(cutoff);
    Frame space;
#pragma omp for schedule(dynamic, 16)
    for (std::int64_t k = 0; k < n; ++k) {
      try {
        list.update(get(k, space).structure, 1);
        infos_[k].edges = static_cast<std::uint32_t>(std::min<std::size_t>(list.sender().size(), std::numeric_limits<std::uint32_t>::max()));
      } catch (const std::exception& error) {
#pragma omp critical(count_edges_error)
        if (k < wrong) wrong = k, reason = error.what();
      }
    }
  }
  if (wrong < n) throw DataError(origin(wrong) + ": " + reason);
}

void FrameSet::add_frame(const Frame& frame, const std::string& where, const RunConfig& config) {
  check(frame, where, config.loss);
  FrameInfo info;
  info.file = static_cast<std::uint32_t>(files_.size() - 1);
  info.atoms = static_cast<std::uint32_t>(frame.size());
  const std::string head = frame.head.empty() ? "Default" : frame.head;
  const auto found = std::find(heads_.begin(), heads_.end(), head);
  info.head = static_cast<std::uint16_t>(found - heads_.begin());
  if (found == heads_.end()) heads_.push_back(head), elements_.emplace_back();
  std::vector<int>& elements = elements_[info.head];
  info.energy = frame.energy.has_value();
  info.forces = !frame.forces.empty();
  info.stress = frame.stress && periodic(frame);  // of a slab or a molecule it means nothing
  for (const int z : frame.structure.numbers)
    if (const auto at = std::lower_bound(elements.begin(), elements.end(), z); at == elements.end() || *at != z) elements.insert(at, z);
  infos_.push_back(info);
}

void FrameSet::add(const std::string& path, const RunConfig& config, IsolatedAtoms* isolated) {
  if (!std::filesystem::exists(path)) throw DataError("there is no data file " + path);
  files_.push_back(std::make_shared<FrameFile>());
  FrameFile& file = *files_.back();
  file.path = path;
  file.hash = datasets::file_hash(path);
  std::string missing;  // told after the whole file: by then its reader knows whether a key is in no frame at all, and says so itself
  const auto take = [&](const Frame& frame, const std::string& where) {
    if (datasets::is_isolated_atom(frame)) {
      if (isolated && frame.energy && frame.size() == 1) keep_isolated(*isolated, frame, where);
      return false;
    }
    if (missing.empty())
      if (const std::string what = missing_label(frame, config.loss); !what.empty()) missing = where + ": " + what;
    if (missing.empty()) add_frame(frame, where, config);
    return missing.empty();
  };
  Frame frame;
  if (datasets::is_cache(path)) {
    file.cache = std::make_unique<datasets::CacheReader>(path);
    for (std::size_t i = 0; i < file.cache->size() && missing.empty(); ++i) {
      file.cache->read(i, frame);
      if (take(frame, cache_origin(file, i))) infos_.back().index = static_cast<std::uint32_t>(i);
    }
    if (!missing.empty()) throw DataError(missing + ". A training cache keeps labels under their meaning: the key is given to `adatom data convert`");
    return;
  }
  datasets::ExtxyzReader reader(path, config.data.keys);
  while (reader.next(frame))
    if (take(frame, reader.where())) {
      infos_.back().index = static_cast<std::uint32_t>(file.frames.size());
      if (!infos_.back().stress) frame.stress.reset();
      file.frames.push_back(frame);
      file.origins.push_back(reader.where());
    }
  if (!missing.empty())
    throw DataError(missing + ". The file's comment lines have the entries " + names_of(reader.entries()) + "; its columns are " + names_of(reader.columns()));
}

nlohmann::json FrameSet::provenance() const {
  std::vector<std::size_t> configurations(files_.size());
  for (const FrameInfo& info : infos_) ++configurations[info.file];
  nlohmann::json list = nlohmann::json::array();
  for (std::size_t k = 0; k < files_.size(); ++k)
    list.push_back({{"file", std::filesystem::path(files_[k]->path).filename().string()}, {"configurations", configurations[k]}, {"hash", files_[k]->hash}});
  return list;
}

FrameSet FrameSet::split(const std::vector<bool>& chosen) {
  FrameSet other;
  other.heads_ = heads_, other.elements_ = elements_, other.files_ = files_;
  std::vector<FrameInfo> rest;
  for (std::size_t k = 0; k < size(); ++k) (chosen[k] ? other.infos_ : rest).push_back(infos_[k]);
  infos_ = std::move(rest);
  return other;
}

}  // namespace adatom::training
