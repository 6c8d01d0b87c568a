#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace volley::apps {

// Which contents a part is of, as the server told. Kept beside it in PART.json.
struct PartIdentity {
  std::string
      hub;  // X-Linked-ETag of the address asked for: the contents' own name, a SHA-256 for large files
  std::string validator;  // strong ETag, else Last-Modified, of the host that sent the bytes
  bool operator==(const PartIdentity&) const = default;
};

// A file that is not whole yet. Throws Error naming it when the system refuses.
class PartFile {
 public:
  explicit PartFile(std::string path);
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  ~PartFile();

  int64_t size() const { return size_; }
  const PartIdentity& identity() const { return identity_; }
  const std::string& path() const { return path_; }

  // Bytes at hand are of no use: start with none.
  void restart();
  // Before the first byte of these contents.
  void set_identity(PartIdentity identity);
  // Throws Error if there is no room on the disk for so many more.
  void require_room(int64_t bytes) const;
  void append(std::string_view bytes);
  // Closes it and gives it its name, once its bytes lie on the disk.
  void finish(const std::string& path);
  void remove();

 private:
  [[noreturn]] void fail(const std::string& action, int code) const;
  std::string identity_path() const { return path_ + ".json"; }

  std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
  PartIdentity identity_;
};

}  // namespace volley::apps
