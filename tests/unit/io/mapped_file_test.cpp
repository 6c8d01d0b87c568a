#include "core/io/mapped_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "core/io/byte_reader.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

// Bytes of this process's mapping of `path` that lie in memory.
int64_t resident_kilobytes(const std::string& path) {
  std::ifstream maps("/proc/self/smaps");
  bool is_mapping = false;
  int64_t sum = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.ends_with(path)) is_mapping = true;
    if (!is_mapping || !line.starts_with("Rss:")) continue;
    sum += std::stoll(line.substr(4));
    is_mapping = false;
  }
  return sum;
}

TEST(MappedFile, WhatIsReleasedIsReadAgain) {
  const TempFolder folder;
  std::string bytes(5 * 4096 + 123, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  const std::string path = folder.file("file");
  write_text(path, bytes);
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  const std::string other = bytes;
  for (const auto& [begin, size] : std::vector<std::pair<size_t, size_t>>{
           {0, bytes.size()}, {100, 9000}, {4096, 4096}, {7, 5}, {5 * 4096, 123}}) {
    file.release(file.bytes().subspan(begin, size));
    file.release(
        {reinterpret_cast<const std::byte*>(other.data()), other.size()});  // not its own: nothing happens
    EXPECT_EQ(as_text(file.bytes()), bytes);                                // and in memory again
    EXPECT_EQ(other, bytes);
  }
  const int64_t whole = resident_kilobytes(path);
  EXPECT_GT(whole, 0);
  file.release(file.bytes());
  EXPECT_LT(resident_kilobytes(path), whole);
  MappedFile().release({reinterpret_cast<const std::byte*>(other.data()), other.size()});
}

}  // namespace
}  // namespace volley::test
