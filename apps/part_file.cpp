#include "apps/part_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "apps/console.h"
#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/disk_sync.h"
#include "core/io/json.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

// A file that is missing or spoilt says nothing, so that the part beside it is not used.
PartIdentity read_identity(const std::string& path) {
  std::error_code code;
  if (!fs::exists(path, code)) return {};
  try {
    const nlohmann::json json = read_json_file(path);
    const JsonFields fields(json, path);
    return {.hub = fields.text_or("hub", ""), .validator = fields.text_or("validator", "")};
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

PartFile::PartFile(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0644);
  if (descriptor_ < 0) fail("cannot open", errno);
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail("cannot stat", errno);
  size_ = status.st_size;
  identity_ = read_identity(identity_path());
}

PartFile::~PartFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (size_ > 0) return;
  // Nothing to go on with.
  std::error_code code;
  fs::remove(path_, code);
  fs::remove(identity_path(), code);
}

void PartFile::fail(const std::string& action, int code) const {
  throw Error(path_ + ": " + action + ": " + std::generic_category().message(code) +
              (size_ > 0 ? "; its " + byte_count(size_) + " are kept" : ""));
}

void PartFile::restart() {
  if (::ftruncate(descriptor_, 0) != 0) fail("cannot shorten", errno);
  size_ = 0;
  identity_ = {};
}

void PartFile::set_identity(PartIdentity identity) {
  if (identity == identity_) return;
  identity_ = std::move(identity);
  AtomicFile file(identity_path());
  file.write(nlohmann::json{{"hub", identity_.hub}, {"validator", identity_.validator}}.dump());
  file.commit();
}

void PartFile::require_room(int64_t bytes) const {
  std::error_code code;
  const fs::space_info space = fs::space(fs::path(path_).parent_path(), code);
  if (code || bytes <= 0 || space.available >= static_cast<uintmax_t>(bytes)) return;
  throw Error(path_ + ": no room on the disk: " + byte_count(bytes) + " to come, " +
              byte_count(static_cast<int64_t>(space.available)) + " free");
}

void PartFile::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot write", errno);
    size_ += count;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void PartFile::finish(const std::string& path) {
  if (const int code = sync_bytes(descriptor_)) fail("cannot write", code);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot write", errno);
  if (std::rename(path_.c_str(), path.c_str()) != 0) fail("cannot rename", errno);
  sync_folder_of(path);
  std::error_code code;
  fs::remove(identity_path(), code);
}

void PartFile::remove() {
  restart();
  ::close(std::exchange(descriptor_, -1));
  std::error_code code;
  fs::remove(path_, code);
  fs::remove(identity_path(), code);
}

}  // namespace volley::apps
