#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley {

// One member of a zip archive, stored without compression.
struct ZipMember {
  std::string_view name;  // points into the archive
  std::span<const std::byte> bytes;
  uint64_t header_offset = 0;
  uint32_t crc = 0;  // as the directory states it; compare with crc32(bytes)
};

// The members of a zip archive, as its central directory lists them.
class ZipIndex {
 public:
  const std::vector<ZipMember>& members() const { return members_; }  // sorted by name
  // Null if there is no member of that name.
  const ZipMember* find(std::string_view name) const;

 private:
  friend Result<ZipIndex> parse_zip(std::span<const std::byte> file);
  std::vector<ZipMember> members_;
};

// Checks the directory of an archive of stored members, zip64 included. Faults: compression, encryption,
// several disks, bytes before the archive, members that overlap, repeat or reach outside.
// Ref: PKWARE APPNOTE 6.3.10
Result<ZipIndex> parse_zip(std::span<const std::byte> file);

}  // namespace volley
