// SPDX-License-Identifier: MIT
#pragma once
#include <cstddef>
#include <filesystem>

namespace adatom {

/// A file that appears complete or not at all: written without a name in the same folder, and named by commit(), so that nothing is left of a process that
/// is killed. File systems that know no files without a name (NFS) get a temporary name.
/// A target that exists and is no regular file (a directory, a device, a pipe) is refused. Without commit() (an error, an exception) the temporary file is
/// removed. Errors are std::runtime_error with the system's reason.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void commit();  ///< waits until the data is on the disk, then renames

 private:
  [[noreturn]] void fail(int error) const;
  std::filesystem::path temporary_name(int attempt) const;

  std::filesystem::path target_, temporary_;  // the latter empty while the file has no name
  int descriptor_ = -1;
  std::size_t written_ = 0;
};

}  // namespace adatom
