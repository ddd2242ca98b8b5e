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

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(target) {
  std::error_code unreadable;  // then opening says why
  const std::filesystem::file_status status = std::filesystem::status(target_, unreadable);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw std::runtime_error("cannot write '" + target_.string() + "': it exists and is " +
                             (std::filesystem::is_directory(status) ? "a directory" : "no regular file (a device, pipe or socket)") +
                             ", which would be replaced; nothing was changed: give the name of a file");
  // O_EXCL never opens a file that another process is writing; the count passes over leftovers of a killed one with our process number.
  for (int attempt = 0; descriptor_ < 0; ++attempt) {
    temporary_ = target_;
    temporary_ += ".tmp" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && (errno != EEXIST || attempt == 100)) fail(errno);
  }
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
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
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno);
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) throw std::runtime_error("cannot close '" + target_.string() + "': " + std::strerror(errno));
}

}  // namespace adatom
