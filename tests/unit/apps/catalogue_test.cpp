#include "apps/catalogue.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "apps/model_store.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::apps {
namespace {

TEST(Catalogue, EveryModelHasANameOfItsOwnAndAPlace) {
  std::set<std::string> names;
  for (const CatalogueEntry& entry : catalogue()) {
    SCOPED_TRACE(entry.name());
    EXPECT_TRUE(names.insert(entry.name()).second);
    EXPECT_EQ(entry.name().find_first_of("/ "), std::string::npos) << "a name of a folder";
    EXPECT_FALSE(entry.name().starts_with('.'));
    EXPECT_NE(entry.image == nullptr, entry.text == nullptr);
    EXPECT_EQ(std::ranges::count(entry.files.repository, '/'), 1);
    EXPECT_FALSE(entry.files.licence.empty());
    ASSERT_FALSE(entry.files.files.empty());
    if (!entry.files.wheel) continue;
    const PublishedWheel& wheel = *entry.files.wheel;
    EXPECT_EQ(wheel.sha256.size(), 64u) << "pinned";
    EXPECT_NE(wheel.file.find("-" + wheel.version + "-"), std::string::npos);
    EXPECT_TRUE(wheel.file.ends_with(".whl"));
    EXPECT_FALSE(wheel.licence.empty());
  }
}

TEST(Catalogue, AFolderIsWholeWithAllShards) {
  const test::TempFolder folder;
  const PublishedFiles files = find_published("smollm2-135m").files;
  const auto whole = [&] { return is_whole(files, folder.path().string()); };
  EXPECT_FALSE(whole());
  test::write_text(folder.file("config.json"), "{}");
  test::write_text(folder.file("model.safetensors"), "x");
  EXPECT_FALSE(whole()) << "without tokenizer.json";
  test::write_text(folder.file("tokenizer.json"), "{}");
  EXPECT_TRUE(whole());
  std::filesystem::remove(folder.file("model.safetensors"));
  EXPECT_FALSE(whole());
  test::write_text(folder.file("model.safetensors.index.json"),
                   R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  test::write_text(folder.file("one.safetensors"), "x");
  EXPECT_FALSE(whole());
  test::write_text(folder.file("two.safetensors"), "x");
  EXPECT_TRUE(whole());
  test::write_text(folder.file("model.safetensors.index.json"), "{");
  EXPECT_FALSE(whole());
}

}  // namespace
}  // namespace volley::apps
