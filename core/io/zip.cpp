#include "core/io/zip.h"

#include <algorithm>
#include <optional>
#include <string>

#include "core/io/byte_reader.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kDirectoryEntry = 0x02014b50;
constexpr uint32_t kEndRecord = 0x06054b50;
constexpr uint32_t kEndRecord64 = 0x06064b50;
constexpr uint32_t kEndLocator64 = 0x07064b50;
constexpr size_t kEndRecordBytes = 22;
constexpr size_t kEndLocator64Bytes = 20;
constexpr uint64_t kMaxMembers = 4'000'000;
constexpr uint16_t kDeflate = 8;

// Where the central directory lies and what may lie before it.
struct Directory {
  uint64_t members = 0;
  uint64_t bytes = 0;
  uint64_t offset = 0;
  uint64_t end = 0;  // where the records after it begin
};

// The end record lies at the end but for a comment that may itself hold its signature: the only candidate
// taken is one whose comment ends exactly with the file, the last of those.
std::optional<size_t> find_end_record(std::span<const std::byte> file) {
  if (file.size() < kEndRecordBytes) return std::nullopt;
  const size_t last = file.size() - kEndRecordBytes;
  const size_t first = last > 0xffff ? last - 0xffff : 0;
  for (size_t at = last + 1; at-- > first;) {
    ByteReader reader(file.subspan(at));
    uint32_t signature = 0;
    uint16_t comment = 0;
    if (reader.read(signature) && signature == kEndRecord && reader.seek(20) && reader.read(comment) &&
        comment == reader.remaining()) {
      return at;
    }
  }
  return std::nullopt;
}

// The zip64 record that stands in for fields too small for the archive.
Result<Directory> read_directory64(std::span<const std::byte> file, size_t end_record) {
  if (end_record < kEndLocator64Bytes) return Fault{"zip: zip64 locator is missing"};
  ByteReader locator(file.subspan(end_record - kEndLocator64Bytes, kEndLocator64Bytes));
  uint32_t signature = 0, disk = 0, disks = 0;
  uint64_t offset = 0;
  if (!locator.read_all(signature, disk, offset, disks) || signature != kEndLocator64) {
    return Fault{"zip: zip64 locator is missing"};
  }
  if (disk != 0 || disks > 1) return Fault{"zip: archive of several disks"};
  ByteReader reader(file.first(end_record - kEndLocator64Bytes));
  uint64_t size = 0, members_here = 0;
  uint16_t made_by = 0, needed = 0;
  uint32_t directory_disk = 0;
  Directory directory;
  if (!reader.seek(offset) ||
      !reader.read_all(signature, size, made_by, needed, disk, directory_disk, members_here,
                       directory.members, directory.bytes, directory.offset) ||
      signature != kEndRecord64) {
    return Fault{"zip: zip64 end record is not where the locator says"};
  }
  if (disk != 0 || directory_disk != 0 || members_here != directory.members) {
    return Fault{"zip: archive of several disks"};
  }
  directory.end = offset;
  return directory;
}

Result<Directory> read_directory(std::span<const std::byte> file) {
  const std::optional<size_t> end_record = find_end_record(file);
  if (!end_record) return Fault{"zip: no end-of-directory record, the file is cut short or no zip archive"};
  ByteReader reader(file.subspan(*end_record));
  uint32_t signature = 0, bytes = 0, offset = 0;
  uint16_t disk = 0, directory_disk = 0, members_here = 0, members = 0;
  if (!reader.read_all(signature, disk, directory_disk, members_here, members, bytes, offset)) {
    return Fault{"zip: end-of-directory record is cut short"};
  }
  Directory directory{members, bytes, offset, *end_record};
  if (members == 0xffff || bytes == 0xffffffffu || offset == 0xffffffffu) {
    const Result<Directory> wide = read_directory64(file, *end_record);
    if (!wide) return wide.fault();
    directory = wide.value();
  } else if (disk != 0 || directory_disk != 0 || members_here != members) {
    return Fault{"zip: archive of several disks"};
  }
  if (directory.offset > directory.end || directory.bytes > directory.end - directory.offset) {
    return Fault{"zip: directory of " + std::to_string(directory.bytes) + " bytes at " +
                 std::to_string(directory.offset) + " reaches past its end record at " +
                 std::to_string(directory.end)};
  }
  if (directory.members > kMaxMembers) return Fault{"zip: more than 4000000 members"};
  return directory;
}

// Sizes and offset of a directory entry; 32-bit fields of all ones stand in the zip64 extra field.
struct Sizes {
  uint64_t plain = 0;
  uint64_t packed = 0;
  uint64_t offset = 0;
};

std::optional<Fault> widen(std::span<const std::byte> extra, Sizes& sizes) {
  constexpr uint64_t kElsewhere = 0xffffffffu;
  const bool needed = sizes.plain == kElsewhere || sizes.packed == kElsewhere || sizes.offset == kElsewhere;
  if (!needed) return std::nullopt;
  ByteReader reader(extra);
  uint16_t id = 0, length = 0;
  std::span<const std::byte> field;
  while (reader.read_all(id, length)) {
    if (!reader.take(length, field)) return Fault{"extra field is cut short"};
    if (id != 1) continue;
    ByteReader values(field);
    for (uint64_t* size : {&sizes.plain, &sizes.packed, &sizes.offset}) {
      if (*size == kElsewhere && !values.read(*size)) return Fault{"zip64 extra field is cut short"};
    }
    return std::nullopt;
  }
  return Fault{"zip64 extra field is missing"};
}

// Follows a directory entry to the member's bytes, which end before the directory begins.
Result<std::span<const std::byte>> locate(std::span<const std::byte> before_directory, std::string_view name,
                                          const Sizes& sizes) {
  ByteReader reader(before_directory);
  uint32_t signature = 0;
  uint16_t name_length = 0, extra_length = 0;
  // The local header's own sizes are not used: writers that stream leave them zero.
  if (!reader.seek(sizes.offset) || !reader.read(signature) || signature != kLocalHeader) {
    return Fault{"no local header at offset " + std::to_string(sizes.offset)};
  }
  std::span<const std::byte> local_name, extra, bytes;
  if (!reader.seek(sizes.offset + 26) || !reader.read_all(name_length, extra_length) ||
      !reader.take(name_length, local_name) || !reader.take(extra_length, extra)) {
    return Fault{"local header is cut short"};
  }
  if (as_text(local_name) != name) return Fault{"local header names " + quote(as_text(local_name))};
  if (!reader.take(sizes.packed, bytes)) {
    return Fault{"size " + std::to_string(sizes.packed) + " reaches past the " +
                 std::to_string(reader.remaining()) + " bytes left before the directory"};
  }
  return bytes;
}

Result<ZipMember> read_member(ByteReader& directory, std::span<const std::byte> before_directory,
                              ZipMethod most) {
  uint32_t signature = 0, crc = 0, packed = 0, plain = 0, outer = 0, offset = 0;
  uint16_t made_by = 0, needed = 0, flags = 0, method = 0, time = 0, date = 0;
  uint16_t name_length = 0, extra_length = 0, comment_length = 0, disk = 0, inner = 0;
  std::span<const std::byte> name, extra, comment;
  if (!directory.read(signature) || signature != kDirectoryEntry) {
    return Fault{"zip: directory holds fewer members than its end record says"};
  }
  if (!directory.read_all(made_by, needed, flags, method, time, date, crc, packed, plain, name_length,
                          extra_length, comment_length, disk, inner, outer, offset) ||
      !directory.take(name_length, name) || !directory.take(extra_length, extra) ||
      !directory.take(comment_length, comment)) {
    return Fault{"zip: directory entry is cut short"};
  }
  const std::string subject = "zip: member " + quote(as_text(name)) + ": ";
  if ((flags & 1u) != 0) return Fault{subject + "is encrypted"};
  const bool is_deflated = method == kDeflate && most == ZipMethod::kDeflated;
  if (method != 0 && !is_deflated) {
    return Fault{subject + "is compressed (method " + std::to_string(method) + "), expected stored" +
                 (most == ZipMethod::kDeflated ? " or deflated" : "")};
  }
  Sizes sizes{plain, packed, offset};
  if (const auto fault = widen(extra, sizes)) return Fault{subject + fault->message};
  if (!is_deflated && sizes.plain != sizes.packed) {
    return Fault{subject + "stored size " + std::to_string(sizes.packed) + " differs from size " +
                 std::to_string(sizes.plain)};
  }
  const auto bytes = locate(before_directory, as_text(name), sizes);
  if (!bytes) return Fault{subject + bytes.fault().message};
  return ZipMember{.name = as_text(name),
                   .bytes = bytes.value(),
                   .header_offset = sizes.offset,
                   .crc = crc,
                   .size = sizes.plain,
                   .method = is_deflated ? ZipMethod::kDeflated : ZipMethod::kStored};
}

// Members that share bytes would make the total larger than the file.
std::optional<Fault> check_overlaps(std::span<const std::byte> file, std::vector<ZipMember> members) {
  std::ranges::sort(members, {}, &ZipMember::header_offset);
  uint64_t end = 0;
  for (const ZipMember& member : members) {
    if (member.header_offset < end) {
      return Fault{"zip: member " + quote(member.name) + " overlaps the one before it"};
    }
    end = static_cast<uint64_t>(member.bytes.data() - file.data()) + member.bytes.size();
  }
  return std::nullopt;
}

}  // namespace

const ZipMember* ZipIndex::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(members_, name, std::ranges::less{}, &ZipMember::name);
  return found != members_.end() && found->name == name ? &*found : nullptr;
}

Result<ZipIndex> parse_zip(std::span<const std::byte> file, ZipMethod most) {
  const Result<Directory> directory = read_directory(file);
  if (!directory) return directory.fault();
  const auto [count, bytes, offset, end] = directory.value();
  const auto before = file.first(static_cast<size_t>(offset));
  ByteReader reader(file.subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes)));
  ZipIndex index;
  for (uint64_t i = 0; i < count; ++i) {
    const Result<ZipMember> member = read_member(reader, before, most);
    if (!member) return member.fault();
    index.members_.push_back(member.value());
  }
  if (reader.remaining() != 0) return Fault{"zip: directory holds more members than its end record says"};
  if (const auto fault = check_overlaps(file, index.members_)) return *fault;
  std::ranges::sort(index.members_, {}, &ZipMember::name);
  const auto twin = std::ranges::adjacent_find(index.members_, {}, &ZipMember::name);
  if (twin != index.members_.end()) return Fault{"zip: member " + quote(twin->name) + " occurs twice"};
  return index;
}

}  // namespace volley
