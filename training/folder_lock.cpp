// SPDX-License-Identifier: MIT
#include "training/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>

namespace adatom::training {

FolderLock::FolderLock(const std::filesystem::path& folder) : file_(folder / "running") {
  for (;;) {
    descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) throw std::runtime_error("cannot write '" + file_.string() + "': " + std::strerror(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      char text[32] = {};
      const bool known = ::read(descriptor_, text, sizeof text - 1) > 0;
      ::close(descriptor_);
      throw std::runtime_error("another training" + (known ? " (process " + std::string(text, std::strcspn(text, "\n")) + ")" : std::string()) + " works in " +
                               folder.string() + ": wait for it, or set 'output' to another folder");
    }
    struct stat held, there;  // the run before may have removed the file between the two calls
    if (::fstat(descriptor_, &held) == 0 && ::stat(file_.c_str(), &there) == 0 && held.st_ino == there.st_ino && held.st_dev == there.st_dev) break;
    ::close(descriptor_);
  }
  const std::string text = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor_, 0) != 0 || ::write(descriptor_, text.data(), text.size()) < 0) return;  // the number is for people; the lock holds without
}

FolderLock::~FolderLock() {
  ::unlink(file_.c_str());
  ::close(descriptor_);
}

}  // namespace adatom::training
