#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley {

enum class ZipMethod : uint8_t { kStored, kDeflated };

// One member of a zip archive.
struct ZipMember {
  std::string_view name;             // points into the archive
  std::span<const std::byte> bytes;  // as they lie there: stored ones are the contents
  uint64_t header_offset = 0;
  uint32_t crc = 0;   // of the contents, as the directory states it
  uint64_t size = 0;  // of the contents, as the directory states it
  ZipMethod method = ZipMethod::kStored;
};

// The members of a zip archive, as its central directory lists them.
class ZipIndex {
 public:
  const std::vector<ZipMember>& members() const { return members_; }  // sorted by name
  // Null if there is no member of that name.
  const ZipMember* find(std::string_view name) const;

 private:
  friend Result<ZipIndex> parse_zip(std::span<const std::byte> file, ZipMethod most);
  std::vector<ZipMember> members_;
};

// Checks the directory of an archive, zip64 included. Faults: compression beyond `most`, encryption, several
// disks, bytes before the archive, members that overlap, repeat or reach outside.
// Ref: PKWARE APPNOTE 6.3.10
Result<ZipIndex> parse_zip(std::span<const std::byte> file, ZipMethod most = ZipMethod::kStored);

// Gives a member's contents to `take` in order, in pieces of at most a few hundred KiB. Memory does not grow
// with what the directory or the stream says. The fault, if there is one: a broken stream, contents of
// another size than the directory's (never more than that is given out) or of another CRC. Pieces given out
// before it are of no use then. What `take` throws goes through.
// Ref: RFC 1951
std::optional<Fault> read_zip_member(const ZipMember& member,
                                     const std::function<void(std::span<const std::byte>)>& take);

}  // namespace volley
