// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>
#include <string>

#include "datasets/frame_source.hpp"
#include "potential/atomic_file.hpp"

namespace adatom::datasets {

/// Writes extxyz that ASE and ExtxyzReader with the same keys read back; numbers to the last bit. The file appears whole, at commit().
class ExtxyzWriter {
 public:
  /// `keys` names the entries; a label whose key is empty is left out. Virials are never written.
  explicit ExtxyzWriter(const std::filesystem::path& file, const LabelKeys& keys = {});

  /// Throws DataError for a frame with defects other than numbers that are not finite, std::runtime_error if the disk is full.
  void write(const Frame& frame);
  void write_text(std::string_view frame);  ///< a frame as it stands in another file
  void commit();
  std::int64_t frames() const { return frames_; }

 private:
  void flush();

  std::filesystem::path file_;
  LabelKeys keys_;
  AtomicFile out_;
  std::string buffer_;
  std::int64_t frames_ = 0;
};

}  // namespace adatom::datasets
