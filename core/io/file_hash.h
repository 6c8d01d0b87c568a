#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "core/io/mapped_file.h"

namespace volley {

// SHA-256 of a checkpoint's files one after the other, as they are when it is made, computed beside other
// work. Const and shareable. Destroying it abandons what is not done.
class FileHash {
 public:
  // Throws Error naming the file if one cannot be opened.
  explicit FileHash(const std::vector<std::string>& files);
  ~FileHash();
  FileHash(FileHash&&) noexcept = default;
  FileHash& operator=(FileHash&&) = delete;

  // From here on a processor is busy with it. Any number of threads may call this, and again.
  void begin() const;
  // The 64 hexadecimal digits; begins, and waits for them.
  std::string hex() const;

 private:
  enum class State : uint8_t { kWaiting, kBegun, kAbandoned };

  static std::string hash_files(const std::vector<MappedFile>& files, std::atomic<State>& state);

  std::unique_ptr<std::atomic<State>> state_;
  std::shared_future<std::string> result_;
};

}  // namespace volley
