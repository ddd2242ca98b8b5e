// SPDX-License-Identifier: MIT
#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>

#include "datasets/cache.hpp"
#include "datasets/xxhash.hpp"

namespace adatom::datasets {
namespace {

using namespace cache_format;

constexpr std::size_t block_bytes = 1 << 20;

template <class T>
void append_to(std::string& bytes, const T* values, std::size_t n) {
  bytes.append(reinterpret_cast<const char*>(values), n * sizeof(T));
}

}  // namespace

CacheWriter::CacheWriter(const std::filesystem::path& file, std::string provenance) : file_(file), out_(file), provenance_(std::move(provenance)) {
  const auto document = nlohmann::json::parse(provenance_, nullptr, false);
  if (!document.is_object()) throw DataError(file.string() + ": the provenance of a training cache is no JSON object: " + provenance_);
  const Head head;
  append(&head, sizeof(head));
}

std::uint32_t CacheWriter::Names::number(const std::string& name) {
  const auto [found, is_new] = numbers.emplace(name, static_cast<std::uint32_t>(list.size()));
  if (is_new) list.push_back(name);
  return found->second;
}

void CacheWriter::add(const Frame& frame) {
  const auto found = defects(frame);
  if (!found.empty())
    throw DataError(file_.string() + ": frame " + std::to_string(index_.size()) + " (of those written) cannot be trained on: " + found.front());

  IndexEntry entry;
  entry.offset = written_;
  entry.atoms = static_cast<std::uint32_t>(frame.size());
  entry.config_type = config_types_.number(frame.config_type);
  const std::uint32_t head = heads_.number(frame.head);
  if (head > std::numeric_limits<std::uint16_t>::max()) throw DataError(file_.string() + ": more than 65536 heads: is the key of the head right?");
  entry.head = static_cast<std::uint16_t>(head);
  for (int k = 0; k < 3; ++k) entry.flags |= frame.structure.pbc[k] << k;
  if (frame.energy) entry.flags |= has_energy;
  if (!frame.forces.empty()) entry.flags |= has_forces;
  if (frame.stress) entry.flags |= has_stress;
  if (!frame.charges.empty()) entry.flags |= has_charges;

  Record record;
  for (int k = 0; k < 9; ++k) record.cell[k] = frame.structure.cell[k / 3][k % 3];
  record.energy = frame.energy.value_or(0.0);
  record.stress = frame.stress.value_or(Voigt{});
  record.weights = {frame.weights.config, frame.weights.energy, frame.weights.forces, frame.weights.stress};
  record.group = groups_.number(frame.group);

  std::string bytes;
  const std::uint64_t size = record_bytes(entry.atoms, entry.flags);
  bytes.reserve(size);
  append_to(bytes, &record, 1);
  append_to(bytes, frame.structure.positions.data(), frame.size());
  append_to(bytes, frame.forces.data(), frame.forces.size());
  append_to(bytes, frame.charges.data(), frame.charges.size());
  for (const int z : frame.structure.numbers) {
    bytes += static_cast<char>(z);
    elements_.set(z);
  }
  bytes.resize(size, '\0');
  entry.checksum = xxhash64(bytes.data(), bytes.size());
  append(bytes.data(), bytes.size());
  index_.push_back(entry);
}

void CacheWriter::append(const void* data, std::size_t bytes) {
  buffer_.append(static_cast<const char*>(data), bytes);
  written_ += bytes;
  if (buffer_.size() >= block_bytes) flush();
}

void CacheWriter::flush() {
  out_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void CacheWriter::commit() {
  nlohmann::ordered_json metadata;
  metadata["units"] = {{"energy", "eV"}, {"length", "angstrom"}};
  metadata["heads"] = heads_.list;
  metadata["config_types"] = config_types_.list;
  metadata["groups"] = groups_.list;
  std::vector<int> elements;
  for (std::size_t z = 0; z < elements_.size(); ++z)
    if (elements_[z]) elements.push_back(static_cast<int>(z));
  metadata["elements"] = elements;
  metadata["provenance"] = nlohmann::ordered_json::parse(provenance_);
  std::string text = metadata.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);

  Foot foot;
  foot.frames = index_.size();
  foot.index_offset = written_;
  foot.index_checksum = xxhash64(index_.data(), index_.size() * sizeof(IndexEntry));
  append(index_.data(), index_.size() * sizeof(IndexEntry));
  text.resize(padded(text.size()), ' ');
  foot.metadata_offset = written_, foot.metadata_bytes = text.size();
  foot.metadata_checksum = xxhash64(text.data(), text.size());
  append(text.data(), text.size());
  foot.file_bytes = written_ + sizeof(Foot);
  foot.foot_checksum = xxhash64(&foot, offsetof(Foot, foot_checksum));
  append(&foot, sizeof(foot));
  flush();
  out_.commit();
}

}  // namespace adatom::datasets
