// SPDX-License-Identifier: MIT
#include "training/frames.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <mutex>

#include "adatom/neighbor_list.hpp"
#include "datasets/extxyz_reader.hpp"
#include "datasets/xxhash.hpp"
#include "gnn/threads.hpp"
#include "training/label_checks.hpp"

namespace adatom::training {

using datasets::DataError;
using datasets::Frame;

namespace {

bool periodic(const Frame& frame) {
  const auto& pbc = frame.structure.pbc;
  return pbc[0] && pbc[1] && pbc[2];
}

void check(const Frame& frame, const std::string& where) {
  const std::vector<std::string> defects = datasets::defects(frame);
  if (!defects.empty()) throw DataError(where + ": " + defects.front() + "; `adatom data check` lists all that is wrong");
}

std::string file_hash(const std::string& path) {
  if (!std::filesystem::is_directory(path)) return datasets::file_hash(path);
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (entry.is_regular_file()) files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  std::string text;
  for (const std::string& file : files) text += std::filesystem::relative(file, path).string() + " " + datasets::file_hash(file) + "\n";
  return datasets::hash_text(datasets::xxhash64(text.data(), text.size()));
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
  std::mutex one_at_a_time;
  gnn::Threads& team = gnn::threads();
  gnn::parallel_for(team, threads > 0 ? threads : team.usual(), n, 16, [&](std::int64_t begin, std::int64_t end, int) {
    NeighborList list(cutoff);
    Frame space;
    for (std::int64_t k = begin; k < end; ++k) {
      try {
        list.update(get(k, space).structure, 1);
        infos_[k].edges = static_cast<std::uint32_t>(std::min<std::size_t>(list.sender().size(), std::numeric_limits<std::uint32_t>::max()));
      } catch (const std::exception& error) {
        const std::lock_guard lock(one_at_a_time);
        if (k < wrong) wrong = k, reason = error.what();
      }
    }
  });
  if (wrong < n) throw DataError(origin(wrong) + ": " + reason);
}

void FrameSet::add_frame(const Frame& frame, const std::string& where) {
  check(frame, where);
  FrameInfo info;
  info.file = static_cast<std::uint32_t>(files_.size() - 1);
  info.atoms = static_cast<std::uint32_t>(frame.size());
  const std::string head = frame.head.empty() ? "Default" : frame.head;
  const auto found = std::find(heads_.begin(), heads_.end(), head);
  info.head = static_cast<std::uint16_t>(found - heads_.begin());
  if (found == heads_.end()) heads_.push_back(head), elements_.emplace_back();
  info.energy = frame.energy.has_value();
  info.forces = !frame.forces.empty();
  info.stress = frame.stress && frame.weights.stress > 0 && periodic(frame);  // of a slab or a molecule it means nothing
  note_elements(info.head, frame.structure.numbers);
  infos_.push_back(info);
}

void FrameSet::note_elements(std::size_t head, const std::vector<int>& numbers) {
  std::vector<int>& elements = elements_[head];
  for (const int z : numbers)
    if (const auto at = std::lower_bound(elements.begin(), elements.end(), z); at == elements.end() || *at != z) elements.insert(at, z);
}

void FrameSet::find_elements() {
  elements_.assign(heads_.size(), {});
  for_each([&](std::size_t k, const Frame& frame) { note_elements(infos_[k].head, frame.structure.numbers); });
}

void FrameSet::add(const std::string& path, const RunConfig& config, IsolatedAtoms* isolated) {
  if (!std::filesystem::exists(path)) throw DataError("there is no data file " + path);
  files_.push_back(std::make_shared<FrameFile>());
  FrameFile& file = *files_.back();
  file.path = path;
  file.hash = file_hash(path);
  std::int64_t without_energy = 0, stresses = 0;
  std::string first_without, first_stress;
  std::string missing;  // told after the whole file: by then its reader knows whether a key is in no frame at all, and says so itself
  const auto take = [&](const Frame& frame, const std::string& where) {
    if (datasets::is_isolated_atom(frame)) {
      if (isolated && frame.energy && frame.size() == 1 && !datasets::is_ion(frame)) keep_isolated(*isolated, frame, where);
      if (isolated && datasets::is_ion(frame)) ions_.emplace(frame.structure.numbers.front(), where);
      if (isolated && !frame.energy && without_energy++ == 0) first_without = where;
      return false;
    }
    if (frame.stress && frame.weights.stress > 0 && !periodic(frame) && stresses++ == 0) first_stress = where;
    if (missing.empty())
      if (const std::string what = missing_label(frame, config.loss); !what.empty()) missing = where + ": " + what;
    if (missing.empty()) add_frame(frame, where);
    return missing.empty();
  };
  if (datasets::is_cache(path)) {
    Frame frame;
    file.cache = std::make_unique<datasets::CacheReader>(path);
    for (std::size_t i = 0; i < file.cache->size() && missing.empty(); ++i) {
      file.cache->read(i, frame);
      if (take(frame, cache_origin(file, i))) infos_.back().index = static_cast<std::uint32_t>(i);
    }
    if (!missing.empty()) throw DataError(missing + ". A training cache keeps labels under their meaning: the key is given to `adatom data convert`");
  } else {
    std::unique_ptr<datasets::FrameSource> source = config.data.open ? config.data.open(path, config.data.keys) : nullptr;
    if (!source) source = std::make_unique<datasets::ExtxyzReader>(path, config.data.keys);
    read(*source, file, take);
    if (!missing.empty()) throw DataError(missing + ". " + source->contents());
    if (without_energy > 0 && config.loss.energy > 0 && (config.data.atomic_energies == "auto" || config.data.atomic_energies == "isolated"))
      warnings_.push_back(first_without + ": the first of " + std::to_string(without_energy) +
                          " isolated atoms of the file without an energy, which give no atomic energies then: is it under another key than that of the other "
                          "configurations (data.keys.energy)? " +
                          source->contents());
  }
  if (stresses > 0 && config.loss.stress > 0)
    warnings_.push_back(first_stress + ": the first of " + std::to_string(stresses) +
                        " configurations of the file with a stress whose cell is not periodic in all directions: it means nothing there and is left out");
}

/// Frames that `take` takes are kept in memory.
void FrameSet::read(datasets::FrameSource& source, FrameFile& file, const std::function<bool(const Frame&, const std::string&)>& take) {
  for (Frame frame; source.next(frame);)
    if (take(frame, source.where())) {
      infos_.back().index = static_cast<std::uint32_t>(file.frames.size());
      if (!infos_.back().stress) frame.stress.reset();
      file.frames.push_back(frame);
      file.origins.push_back(source.where());
    }
  for (const datasets::ReadingNote& note : source.notes())
    if (note.kind != datasets::ReadingNote::Kind::unread) warnings_.push_back(file.path + ": " + note.message + "; " + note.advice);
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
  other.heads_ = heads_, other.files_ = files_;
  std::vector<FrameInfo> rest;
  for (std::size_t k = 0; k < size(); ++k) (chosen[k] ? other.infos_ : rest).push_back(infos_[k]);
  infos_ = std::move(rest);
  find_elements(), other.find_elements();
  return other;
}

}  // namespace adatom::training
