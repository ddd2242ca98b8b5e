// SPDX-License-Identifier: MIT
#pragma once
#include <filesystem>

namespace adatom::training {

/// Keeps a second run out of a folder: holds the file `running` in it, with the number of this process, until it is destroyed. A process that is killed
/// leaves the file, but not its lock. File systems without locks let everybody in.
class FolderLock {
 public:
  /// Throws std::runtime_error where another run, of this process or another one, holds the folder.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
};

}  // namespace adatom::training
