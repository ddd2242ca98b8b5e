// SPDX-License-Identifier: MIT
#pragma once
#include <bitset>
#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "datasets/cache_format.hpp"
#include "datasets/frame_source.hpp"
#include "potential/atomic_file.hpp"

/// Training caches: a binary file that gives frame i at the cost of one read, however many frames it has.
namespace adatom::datasets {

/// Writes a cache; the file appears whole, at commit(). Memory: 32 bytes per frame.
class CacheWriter {
 public:
  /// `provenance`: a JSON object as text, kept in the file (sources, their hashes, the command).
  explicit CacheWriter(const std::filesystem::path& file, std::string provenance = "{}");

  /// Throws DataError for a frame with defects (see `defects`): what is in a cache can be trained on. std::runtime_error if the disk is full.
  void add(const Frame& frame);
  void commit();
  std::size_t size() const { return index_.size(); }

 private:
  /// Distinct texts, numbered in the order in which they came.
  struct Names {
    std::vector<std::string> list;
    std::unordered_map<std::string, std::uint32_t> numbers;
    std::uint32_t number(const std::string& name);
  };

  void append(const void* data, std::size_t bytes);
  void flush();

  std::filesystem::path file_;
  AtomicFile out_;
  std::string buffer_, provenance_;
  std::uint64_t written_ = 0;  // bytes, with those in the buffer
  std::vector<cache_format::IndexEntry> index_;
  Names heads_, config_types_, groups_;
  std::bitset<256> elements_;
};

/// Reads a cache. Opening checks the foot, the index and the metadata; each read checks its frame. Memory: 32 bytes per frame and the labels.
/// All members may be called by several threads at once.
class CacheReader {
 public:
  /// Throws DataError that says what the file is instead, or what is damaged.
  explicit CacheReader(const std::filesystem::path& file);
  ~CacheReader();
  CacheReader(const CacheReader&) = delete;
  CacheReader& operator=(const CacheReader&) = delete;

  std::size_t size() const { return index_.size(); }  ///< frames

  /// Frame i; `frame`'s memory is used again. Throws DataError if the record is damaged or cannot be read, std::out_of_range for i >= size().
  void read(std::size_t i, Frame& frame) const;
  Frame read(std::size_t i) const;

  /// From the index, without reading the frame: for batches by number of atoms, sampling by head and the like.
  int atoms(std::size_t i) const { return static_cast<int>(index_[i].atoms); }
  bool has_energy(std::size_t i) const { return index_[i].flags & cache_format::has_energy; }
  bool has_forces(std::size_t i) const { return index_[i].flags & cache_format::has_forces; }
  bool has_stress(std::size_t i) const { return index_[i].flags & cache_format::has_stress; }
  int head(std::size_t i) const { return index_[i].head; }                                  ///< index into heads()
  int config_type(std::size_t i) const { return static_cast<int>(index_[i].config_type); }  ///< index into config_types()

  const std::vector<std::string>& heads() const { return heads_; }  ///< in the order of their first frame; "" where frames had none
  const std::vector<std::string>& config_types() const { return config_types_; }
  const std::vector<int>& elements() const { return elements_; }  ///< atomic numbers, ascending
  const std::string& provenance() const { return provenance_; }   ///< JSON object
  std::string hash() const;                                       ///< 16 hex digits that change with any frame, label or name
  void verify() const;                                            ///< reads every frame; throws DataError for the first damaged one
  const std::filesystem::path& file() const { return file_; }

 private:
  [[noreturn]] void fail(const std::string& what) const;
  void read_bytes(void* data, std::uint64_t bytes, std::uint64_t offset) const;
  void open();
  void read_metadata();
  void check_index() const;

  std::filesystem::path file_;
  int descriptor_ = -1;
  cache_format::Foot foot_;
  std::vector<cache_format::IndexEntry> index_;
  std::vector<std::string> heads_, config_types_, groups_;
  std::vector<int> elements_;
  std::string provenance_;
};

/// A cache's frames in their order.
class CacheSource : public FrameSource {
 public:
  explicit CacheSource(const std::filesystem::path& file) : cache_(file) {}
  bool next(Frame& frame) override;
  std::int64_t index() const override { return index_; }
  std::string where() const override { return cache_.file().string() + ": frame " + std::to_string(index_); }

 private:
  CacheReader cache_;
  std::int64_t index_ = -1;
};

/// Whether the file begins as a cache does.
bool is_cache(const std::filesystem::path& file);

}  // namespace adatom::datasets
