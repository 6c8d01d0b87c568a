#pragma once

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <vector>

namespace volley {

// SHA-256 of a checkpoint's files one after the other, computed beside other work from construction on. Const
// and shareable. Destroying it abandons what is not done.
class FileHash {
 public:
  // Throws Error naming the file if one cannot be opened.
  explicit FileHash(const std::vector<std::string>& files);
  ~FileHash();
  FileHash(FileHash&&) noexcept = default;
  FileHash& operator=(FileHash&&) = delete;

  // The 64 hexadecimal digits; waits for them.
  std::string hex() const;

 private:
  std::unique_ptr<std::atomic<bool>> is_abandoned_;
  std::shared_future<std::string> result_;
};

}  // namespace volley
