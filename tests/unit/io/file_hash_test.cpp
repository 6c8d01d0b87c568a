#include "core/io/file_hash.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/io/byte_reader.h"
#include "core/io/open_weights.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

TEST(FileHash, IsTheHashOfTheFilesOneAfterTheOther) {
  const TempFolder folder;
  const std::string first(9 << 20, 'a'), second = "the rest";  // more than two pieces
  write_text(folder.file("a"), first);
  write_text(folder.file("b"), second);
  write_text(folder.file("empty"), "");
  EXPECT_EQ(FileHash({folder.file("a")}).hex(), sha256_hex(as_bytes(first)));
  EXPECT_EQ(FileHash({folder.file("a"), folder.file("empty"), folder.file("b")}).hex(),
            sha256_hex(as_bytes(first + second)));
  EXPECT_EQ(FileHash({folder.file("empty")}).hex(), sha256_hex({}));
}

TEST(FileHash, ManyMayWaitForOne) {
  const TempFolder folder;
  write_text(folder.file("a"), std::string(5 << 20, 'x'));
  const FileHash hash({folder.file("a")});
  std::vector<std::string> seen(4);
  {
    std::vector<std::jthread> waiting;
    for (std::string& text : seen) waiting.emplace_back([&] { text = hash.hex(); });
  }
  for (const std::string& text : seen) EXPECT_EQ(text, sha256_hex(as_bytes(std::string(5 << 20, 'x'))));
}

TEST(FileHash, IsOfTheFilesAsTheyWereWhenItWasMade) {
  const TempFolder folder;
  write_text(folder.file("a"), "old");
  const FileHash hash({folder.file("a")});
  std::filesystem::remove(folder.file("a"));
  write_text(folder.file("a"), "new");
  hash.begin();
  hash.begin();
  EXPECT_EQ(hash.hex(), sha256_hex(as_bytes(std::string("old"))));
}

TEST(FileHash, EndsWithoutHavingBegun) {
  const TempFolder folder;
  write_text(folder.file("a"), "x");
  const FileHash hash({folder.file("a")});
}

TEST(FileHash, NamesTheFileThatIsNotThere) {
  const TempFolder folder;
  try {
    FileHash({folder.file("nowhere")});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find(folder.file("nowhere") + ": cannot open"), 0u) << error.what();
  }
}

TEST(WeightFiles, AreTheIndexAndItsShards) {
  const TempFolder folder;
  const std::string index = folder.file("model.safetensors.index.json");
  write_text(index, R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors","c":"two.safetensors"}})");
  const std::vector<std::string> expected{index, folder.file("one.safetensors"),
                                          folder.file("two.safetensors")};
  EXPECT_EQ(weight_files(index), expected);
  EXPECT_EQ(weight_files(folder.path().string()), expected);
  EXPECT_EQ(weight_files(folder.file("model.safetensors.index.json")).size(), 3u);
  write_text(index, R"({"weight_map":{"a":"../two.safetensors"}})");
  EXPECT_THROW(weight_files(index), Error);
}

}  // namespace
}  // namespace volley::test
