#include "core/io/zip.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "core/io/byte_reader.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

struct Read {
  std::string contents;
  std::string fault;
  size_t longest = 0;
};

Read read_member(const std::vector<ZipEntry>& entries, const std::string& name) {
  const std::string file = zip_bytes(entries);
  const ZipIndex index = parse_zip(as_bytes(file), ZipMethod::kDeflated).value_or_throw("zip");
  const ZipMember* member = index.find(name);
  if (member == nullptr) return {.fault = "no such member"};
  Read read;
  const auto fault = read_zip_member(*member, [&](std::span<const std::byte> piece) {
    read.contents += as_text(piece);
    read.longest = std::max(read.longest, piece.size());
  });
  if (fault) read.fault = fault->message;
  return read;
}

// Compresses to a third or so, over several pieces.
std::string long_contents() {
  std::string contents;
  for (uint32_t i = 0, state = 1; i < 1'000'000; ++i) {
    state = state * 1664525 + 1013904223;
    contents += static_cast<char>('a' + (state >> 24) % 7);
  }
  return contents;
}

TEST(Zip, ContentsOfStoredAndDeflatedMembers) {
  const std::string contents = long_contents();
  const ZipEntry deflated = deflated_entry("d", contents);
  ASSERT_LT(deflated.bytes.size(), contents.size() / 2);
  const std::vector<ZipEntry> entries{
      deflated, {.name = "s", .bytes = contents}, deflated_entry("empty", ""), {.name = "none"}};
  for (const char* name : {"d", "s"}) {
    const Read read = read_member(entries, name);
    EXPECT_EQ(read.fault, "") << name;
    EXPECT_TRUE(read.contents == contents) << name;
    EXPECT_LE(read.longest, size_t{256} << 10) << name;
  }
  for (const char* name : {"empty", "none"}) {
    const Read read = read_member(entries, name);
    EXPECT_EQ(read.fault, "") << name;
    EXPECT_EQ(read.contents, "") << name;
  }
}

TEST(Zip, WhatDeflatedMembersGetWrong) {
  const std::string contents = long_contents();
  const ZipEntry good = deflated_entry("d", contents);
  const auto fault_of = [](ZipEntry entry, auto change) {
    change(entry);
    return read_member({entry}, "d").fault;
  };
  EXPECT_EQ(fault_of(good, [](ZipEntry&) {}), "");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.crc = *e.crc ^ 1; }), "has a wrong CRC");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.plain_size = 999'999; }),
            "expands to more than its 999999 bytes");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.plain_size = 1'000'001; }),
            "expands to 1000000 bytes, expected 1000001");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.bytes.resize(e.bytes.size() / 2); }),
            "its deflate stream is broken or cut short");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.bytes[0] = '\xff'; }),
            "its deflate stream is broken or cut short");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.bytes.clear(); }),
            "its deflate stream is broken or cut short");
  EXPECT_EQ(fault_of(good, [](ZipEntry& e) { e.bytes += "more"; }),
            "bytes follow the end of its deflate stream");
  EXPECT_EQ(fault_of({.name = "d", .bytes = contents}, [](ZipEntry& e) { e.crc = 1; }), "has a wrong CRC");
}

// A bomb gives out no more than the directory says.
TEST(Zip, NoMoreIsGivenThanTheSizeSays) {
  ZipEntry bomb = deflated_entry("d", std::string(50'000'000, '\0'));
  bomb.plain_size = 600'000;
  const Read read = read_member({bomb}, "d");
  EXPECT_EQ(read.fault, "expands to more than its 600000 bytes");
  EXPECT_LE(read.contents.size(), 600'000u);
}

TEST(Zip, CompressionIsTakenOnlyWhereItIsAskedFor) {
  const std::string file = zip_bytes({deflated_entry("d", "contents")});
  const auto stored_only = parse_zip(as_bytes(file));
  ASSERT_FALSE(stored_only.ok());
  EXPECT_EQ(stored_only.fault().message, "zip: member 'd': is compressed (method 8), expected stored");
  ZipEntry other = deflated_entry("d", "contents");
  other.method = 12;
  const auto unknown = parse_zip(as_bytes(zip_bytes({other})), ZipMethod::kDeflated);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.fault().message,
            "zip: member 'd': is compressed (method 12), expected stored or deflated");
}

TEST(Zip, WhatTheTakerThrowsGoesThrough) {
  const std::string file = zip_bytes({deflated_entry("d", "contents")});
  const ZipIndex index = parse_zip(as_bytes(file), ZipMethod::kDeflated).value_or_throw("zip");
  const auto refuse = [](std::span<const std::byte>) { throw std::runtime_error("no room"); };
  EXPECT_THROW((void)read_zip_member(*index.find("d"), refuse), std::runtime_error);
}

}  // namespace
}  // namespace volley::test
