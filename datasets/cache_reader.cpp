// SPDX-License-Identifier: MIT
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "datasets/cache.hpp"
#include "datasets/extxyz_reader.hpp"
#include "datasets/text.hpp"
#include "datasets/xxhash.hpp"

namespace adatom::datasets {
namespace {

using namespace cache_format;

const std::string make_again = ": the file is damaged or was cut; make it again with `adatom data convert`, or copy it again";

/// Copies n values to `to` and moves `from` behind them.
template <class T>
void take(const char*& from, T* to, std::size_t n) {
  if (n > 0) std::memcpy(to, from, n * sizeof(T));
  from += n * sizeof(T);
}

}  // namespace

CacheReader::CacheReader(const std::filesystem::path& file) : file_(file) {
  try {
    open();
    read_metadata();
    check_index();
  } catch (...) {
    if (descriptor_ >= 0) ::close(descriptor_);
    throw;
  }
}

CacheReader::~CacheReader() { ::close(descriptor_); }

void CacheReader::fail(const std::string& what) const { throw DataError("training cache '" + file_.string() + "': " + what); }

void CacheReader::read_bytes(void* data, std::uint64_t bytes, std::uint64_t offset) const {
  char* p = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::pread(descriptor_, p, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot read it: " + std::string(std::strerror(errno)));
    if (n == 0) fail("it ends at byte " + std::to_string(offset) + make_again);
    p += n, bytes -= static_cast<std::uint64_t>(n), offset += static_cast<std::uint64_t>(n);
  }
}

void CacheReader::open() {
  if (std::filesystem::is_directory(file_)) fail("it is a folder: give the cache in it");
  descriptor_ = ::open(file_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) fail("cannot open it: " + std::string(std::strerror(errno)));
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail("cannot read it: " + std::string(std::strerror(errno)));
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size == 0) fail("it is empty" + make_again);
  Head head{.magic = {}, .version = 0};
  read_bytes(&head, std::min<std::uint64_t>(size, sizeof(head)), 0);
  if (head.magic != magic)
    fail("it is no training cache: it begins with " + in_quotes({head.magic.data(), head.magic.size()}) + ", expected " +
         in_quotes({magic.data(), magic.size()}) + "; make one with `adatom data convert`");
  if (size < sizeof(Head) + sizeof(Foot)) fail("it has only " + std::to_string(size) + " bytes" + make_again);
  if (head.version == 0 || head.version > version)
    fail("its format version is " + std::to_string(head.version) + ", this Adatom reads up to " + std::to_string(version) +
         ": update Adatom, or make the cache again");
  if (head.reserved != 0) fail("bytes 12 to 15 are not zero" + make_again);
  read_bytes(&foot_, sizeof(foot_), size - sizeof(foot_));
  if (foot_.end_magic != end_magic) fail("its last bytes are not those of a cache" + make_again);
  if (foot_.foot_checksum != xxhash64(&foot_, offsetof(Foot, foot_checksum))) fail("the checksum of its foot is wrong" + make_again);
  if (foot_.file_bytes != size) fail("it has " + std::to_string(size) + " bytes, expected " + std::to_string(foot_.file_bytes) + make_again);
  // The checksum says that the foot is as it was written; these say that it was written by something that knows the format.
  const std::uint64_t end = size - sizeof(Foot);
  if (foot_.frames > size / sizeof(IndexEntry) || foot_.index_offset > end || foot_.metadata_offset > end ||
      foot_.metadata_offset - foot_.index_offset != foot_.frames * sizeof(IndexEntry) || foot_.metadata_bytes > end - foot_.metadata_offset)
    fail("its foot contradicts itself" + make_again);
  index_.resize(foot_.frames);
  read_bytes(index_.data(), foot_.frames * sizeof(IndexEntry), foot_.index_offset);
  if (foot_.index_checksum != xxhash64(index_.data(), index_.size() * sizeof(IndexEntry))) fail("the checksum of its index is wrong" + make_again);
}

void CacheReader::read_metadata() {
  std::string text(foot_.metadata_bytes, '\0');
  read_bytes(text.data(), text.size(), foot_.metadata_offset);
  if (foot_.metadata_checksum != xxhash64(text.data(), text.size())) fail("the checksum of its metadata is wrong" + make_again);
  try {
    const auto metadata = nlohmann::ordered_json::parse(text);
    heads_ = metadata.at("heads").get<std::vector<std::string>>();
    config_types_ = metadata.at("config_types").get<std::vector<std::string>>();
    groups_ = metadata.at("groups").get<std::vector<std::string>>();
    elements_ = metadata.at("elements").get<std::vector<int>>();
    provenance_ = metadata.at("provenance").dump();
    const auto& units = metadata.at("units");
    if (units.at("energy") != "eV" || units.at("length") != "angstrom") fail("its units are " + units.dump() + ", expected eV and angstrom");
  } catch (const nlohmann::json::exception& error) {
    fail("its metadata cannot be read (" + std::string(error.what()) + ")" + make_again);
  }
}

void CacheReader::check_index() const {
  std::uint64_t offset = sizeof(Head);
  for (std::size_t i = 0; i < index_.size(); ++i) {
    const IndexEntry& entry = index_[i];
    if (entry.offset != offset || entry.atoms == 0 || (entry.flags & ~known_flags) != 0 || entry.head >= heads_.size() ||
        entry.config_type >= config_types_.size())
      fail("its index is wrong at frame " + std::to_string(i) + make_again);
    offset += record_bytes(entry.atoms, entry.flags);
  }
  if (offset != foot_.index_offset) fail("its records do not fill the space before the index" + make_again);
}

void CacheReader::read(std::size_t i, Frame& frame) const {
  if (i >= index_.size())
    throw std::out_of_range("training cache '" + file_.string() + "': frame " + std::to_string(i) + " of " + std::to_string(index_.size()));
  const IndexEntry& entry = index_[i];
  std::string bytes(record_bytes(entry.atoms, entry.flags), '\0');
  read_bytes(bytes.data(), bytes.size(), entry.offset);
  if (xxhash64(bytes.data(), bytes.size()) != entry.checksum) fail("the checksum of frame " + std::to_string(i) + " is wrong" + make_again);

  const char* p = bytes.data();
  Record record;
  take(p, &record, 1);
  if (record.group >= groups_.size()) fail("frame " + std::to_string(i) + " names a group that is not there" + make_again);
  Structure& s = frame.structure;
  for (int k = 0; k < 9; ++k) s.cell[k / 3][k % 3] = record.cell[k];
  for (int k = 0; k < 3; ++k) s.pbc[k] = entry.flags >> k & 1;
  frame.energy = has_energy(i) ? std::optional(record.energy) : std::nullopt;
  frame.stress = has_stress(i) ? std::optional(record.stress) : std::nullopt;
  frame.weights = {record.weights[0], record.weights[1], record.weights[2], record.weights[3]};
  frame.config_type = config_types_[entry.config_type];
  frame.group = groups_[record.group];
  frame.head = heads_[entry.head];
  const std::size_t n = entry.atoms;
  s.positions.resize(n);
  frame.forces.resize(has_forces(i) ? n : 0);
  frame.charges.resize(entry.flags & has_charges ? n : 0);
  take(p, s.positions.data(), n);
  take(p, frame.forces.data(), frame.forces.size());
  take(p, frame.charges.data(), frame.charges.size());
  s.numbers.resize(n);
  for (std::size_t a = 0; a < n; ++a) s.numbers[a] = static_cast<unsigned char>(p[a]);
}

Frame CacheReader::read(std::size_t i) const {
  Frame frame;
  read(i, frame);
  return frame;
}

std::string CacheReader::hash() const {
  const std::array<std::uint64_t, 2> sums = {foot_.index_checksum, foot_.metadata_checksum};  // the index has the checksum of each record
  const std::uint64_t sum = xxhash64(sums.data(), sizeof(sums));
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[sum >> shift & 15];
  return text;
}

void CacheReader::verify() const {
  Frame frame;
  for (std::size_t i = 0; i < size(); ++i) read(i, frame);
}

bool CacheSource::next(Frame& frame) {
  if (index_ + 1 >= static_cast<std::int64_t>(cache_.size())) return false;
  cache_.read(static_cast<std::size_t>(++index_), frame);
  return true;
}

bool is_cache(const std::filesystem::path& file) {
  std::array<char, magic.size()> start{};
  std::ifstream(file, std::ios::binary).read(start.data(), start.size());
  return start == magic;
}

std::unique_ptr<FrameSource> open_frames(const std::filesystem::path& file, const LabelKeys& keys) {
  if (is_cache(file)) return std::make_unique<CacheSource>(file);
  return std::make_unique<ExtxyzReader>(file, keys);
}

}  // namespace adatom::datasets
