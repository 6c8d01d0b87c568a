#include "apps/output_names.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::apps {
namespace {

using Paths = std::vector<std::string>;

TEST(OutputNames, PatternsHoldOneNumber) {
  EXPECT_EQ(with_number("a-%03d.png", 7), "a-007.png");
  EXPECT_EQ(with_number("a-%03d.png", 12345), "a-12345.png");
  EXPECT_EQ(with_number("%d%%.png", 3), "3%.png");
  EXPECT_EQ(with_number("100%%.png", 3), "100%.png");
  EXPECT_FALSE(has_number("a%%d.png"));
  EXPECT_TRUE(has_number("a%5d.png"));
  for (const char* bad : {"%", "%s", "%-3d", "%03", "%99999999999999999999d", "%d%d", "%1000d"}) {
    EXPECT_THROW(with_number(bad, 1), Error) << bad;
  }
}

TEST(OutputNames, NumbersGoOnBehindTheLargest) {
  const test::TempFolder folder;
  SharedFlags flags{.out_dir = folder.path().string()};
  EXPECT_EQ(name_outputs(flags, "", 2).paths, (Paths{folder.file("000.png"), folder.file("001.png")}));
  test::write_text(folder.file("004.png"), "");
  test::write_text(folder.file("1000.png"), "");
  test::write_text(folder.file("99999999999999999999.png"), "no number of ours");
  test::write_text(folder.file("grid-007.png"), "");
  test::write_text(folder.file("12x.png"), "");
  test::write_text(folder.file(".png"), "");
  EXPECT_EQ(name_outputs(flags, "", 1).paths, Paths{folder.file("1001.png")});
  EXPECT_EQ(name_outputs(flags, "grid-", 1).paths, Paths{folder.file("grid-008.png")});
}

TEST(OutputNames, AFolderThatIsNotThereIsMadeLater) {
  const test::TempFolder folder;
  const OutputNames names = name_outputs({.out = "x.png", .out_dir = folder.file("a/b")}, "", 1);
  EXPECT_EQ(names.paths, Paths{folder.file("a/b/x.png")});
  EXPECT_FALSE(std::filesystem::exists(folder.file("a")));
  prepare_outputs(names);
  EXPECT_TRUE(std::filesystem::is_directory(folder.file("a/b")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.file("a/b"))) << "the probe leaves nothing";
}

TEST(OutputNames, FilesInTheWayAreRefused) {
  const test::TempFolder folder;
  test::write_text(folder.file("b1.png"), "");
  const std::string pattern = folder.file("b%d.png");
  EXPECT_THROW(name_outputs({.out = pattern}, "", 2), Error);
  EXPECT_EQ(name_outputs({.out = pattern}, "", 1).paths, Paths{folder.file("b0.png")});
  EXPECT_EQ(name_outputs({.out = pattern, .overwrite = true}, "", 2).paths.size(), 2u);
  std::filesystem::create_symlink("nowhere", folder.file("dangling.png"));
  EXPECT_THROW(name_outputs({.out = folder.file("dangling.png")}, "", 1), Error);
}

}  // namespace
}  // namespace volley::apps
