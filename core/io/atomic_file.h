#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace volley {

// Writes a file so that its name only ever shows the old or the whole new contents: the bytes go to a
// temporary name in the same folder, `commit` renames it. Without `commit` the temporary file is removed.
// A target that exists and is no regular file (/dev/null, a pipe) is written directly; a link is replaced,
// not followed.
// `commit` and `commit_new` wait until the bytes lie on the disk before they rename, so that a power cut too
// leaves the old or the whole new contents. After a file of 1 MiB or more they wait for the folder as well,
// so that it is the new one; a smaller one is soon made again and costs one sync. All members throw Error
// naming the path.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  // The last call; nothing may be written afterwards.
  void commit();
  // Instead of `commit`: gives the finished file this name, in the same folder, unless something has it
  // already, whoever made it and however late. False if so; then another name may be tried.
  [[nodiscard]] bool commit_new(const std::string& path);

 private:
  [[noreturn]] void fail(const char* action);
  void finish();
  void settle_name();
  void discard();

  std::string path_;
  std::string temporary_;  // empty when the target is written directly
  int descriptor_ = -1;
  int64_t bytes_ = 0;  // written so far
};

}  // namespace volley
