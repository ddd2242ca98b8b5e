// SPDX-License-Identifier: MIT
#include "potential/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

namespace adatom {
namespace {

constexpr const char* descriptors = "/proc/self/fd";

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(target) {
  std::error_code unreadable;  // then opening says why
  const std::filesystem::file_status status = std::filesystem::status(target_, unreadable);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw std::runtime_error("cannot write '" + target_.string() + "': it exists and is " +
                             (std::filesystem::is_directory(status) ? "a directory" : "no regular file (a device, pipe or socket)") +
                             ", which would be replaced; nothing was changed: give the name of a file");
#ifdef O_TMPFILE
  if (::access(descriptors, X_OK) == 0) {  // commit() needs it
    const std::filesystem::path folder = target_.has_parent_path() ? target_.parent_path() : ".";
    descriptor_ = ::open(folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
  }
#endif
  // O_EXCL never opens a file that another process is writing; the count passes over leftovers of a killed one with our process number.
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    temporary_ = temporary_name(attempt);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && (errno != EEXIST || attempt == 100)) fail(errno);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

std::filesystem::path AtomicFile::temporary_name(int attempt) const {
  std::filesystem::path name = target_;
  return name += ".tmp" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
}

void AtomicFile::fail(int error) const {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  throw std::runtime_error(
      "cannot write '" + target_.string() + "': " + std::strerror(error) + " after " + std::to_string(written_) +
      " bytes; nothing was changed: " + (full ? "free some space or write to another disk" : "check that the folder exists and that you may write to it"));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(descriptor_, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(errno);
    p += n, bytes -= n, written_ += n;
  }
}

void AtomicFile::commit() {
  // Some file systems report a full disk only here.
  if (::fsync(descriptor_) != 0 && errno != EINVAL) fail(errno);
  // A link cannot take the place of a file, so the name that it gets first is a temporary one.
  for (int attempt = 0; temporary_.empty(); ++attempt) {
    const std::filesystem::path name = temporary_name(attempt), open_file = descriptors / std::filesystem::path(std::to_string(descriptor_));
    if (::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0)
      temporary_ = name;
    else if (errno != EEXIST || attempt == 100)
      fail(errno);
  }
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno);
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) throw std::runtime_error("cannot close '" + target_.string() + "': " + std::strerror(errno));
}

}  // namespace adatom
