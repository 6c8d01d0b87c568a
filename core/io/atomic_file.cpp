#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "core/io/disk_sync.h"

namespace volley {
namespace {

constexpr int64_t kLargeFile = int64_t{1} << 20;  // its name too is waited for

// A hidden name beside the target that no other process or thread uses. Short whatever the target's name
// is, so that a name of the longest allowed length can still be written.
std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  return folder + ".volley-" + std::to_string(::getpid()) + "-" + std::to_string(counter++) + ".part";
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  struct stat status {};
  const bool exists = ::stat(path_.c_str(), &status) == 0;
  // The temporary name is short: without this, only the finished file would find out.
  if (!exists && errno == ENAMETOOLONG) fail("cannot create");
  if (exists && S_ISDIR(status.st_mode))
    throw Error(path_ + ": is a directory, expected a file name to write");
  if (exists && !S_ISREG(status.st_mode)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail("cannot open for writing");
    return;
  }
  // A left-over of a killed process that had the same id is skipped, never overwritten.
  do {
    temporary_ = temporary_name(path_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) {
    temporary_.clear();
    fail("cannot create");
  }
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  VOLLEY_ASSERT(descriptor_ >= 0);
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot write");
    bytes = bytes.subspan(static_cast<size_t>(count));
    bytes_ += count;
  }
}

void AtomicFile::write(std::string_view text) {
  write(as_bytes(text));
}

void AtomicFile::finish() {
  // A name that is on the disk before its bytes would show an empty file after a power cut.
  if (descriptor_ >= 0 && !temporary_.empty()) {
    const int code = sync_bytes(descriptor_);
    if (code != 0) {
      errno = code;
      fail("cannot write");
    }
  }
  // close reports what a network file system or a quota refused late.
  if (descriptor_ >= 0 && ::close(std::exchange(descriptor_, -1)) != 0) fail("cannot write");
}

void AtomicFile::settle_name() {
  temporary_.clear();
  if (bytes_ >= kLargeFile) sync_folder_of(path_);
}

bool AtomicFile::commit_new(const std::string& path) {
  VOLLEY_ASSERT(descriptor_ >= 0 || !temporary_.empty());
  finish();
  if (temporary_.empty()) return true;
  path_ = path;
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) != 0) {
    if (errno == EEXIST) return false;
    // A file system that cannot do that can make a second name, which fails alike.
    if (errno != EINVAL && errno != ENOSYS) fail("cannot rename the finished file");
    if (::link(temporary_.c_str(), path_.c_str()) != 0) {
      if (errno == EEXIST) return false;
      fail("cannot rename the finished file");
    }
    ::unlink(temporary_.c_str());
  }
  settle_name();
  return true;
}

void AtomicFile::commit() {
  VOLLEY_ASSERT(descriptor_ >= 0);
  finish();
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot rename the finished file");
  settle_name();
}

void AtomicFile::fail(const char* action) {
  const int code = errno;
  discard();
  throw Error(path_ + ": " + action + ": " + std::generic_category().message(code));
}

void AtomicFile::discard() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  if (!temporary_.empty()) ::unlink(std::exchange(temporary_, {}).c_str());
}

}  // namespace volley
