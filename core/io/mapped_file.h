#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace volley {

// A regular file mapped read-only into memory until the object dies. The bytes are untrusted. Shortening
// the file while it is mapped raises SIGBUS on access, as with any mapping: checkpoints are not edited in
// place.
class MappedFile {
 public:
  // Faults: no such file, a directory, not a regular file, no permission. An empty file is fine.
  static Result<MappedFile> open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }

  // Gives the memory of whole pages within `part` back; when they are read again they come from the file
  // again. Nothing happens if `part` is of another mapping.
  void release(std::span<const std::byte> part) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace volley
