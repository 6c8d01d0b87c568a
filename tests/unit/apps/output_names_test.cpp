#include "apps/output_names.h"

#include <gtest/gtest.h>

#include "apps/prompt_file.h"
#include "core/base/error.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::apps {
namespace {

using Paths = std::vector<std::string>;

OutputNames names(const SharedFlags& flags, const std::string& prefix, size_t count) {
  return name_outputs(flags, prefix, std::vector<OutputFields>(count));
}

std::string with_number(const std::string& pattern, int64_t number) {
  return fill_pattern("--out", pattern, number, {});
}

std::string message_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(OutputNames, PatternsHoldOneNumber) {
  EXPECT_EQ(with_number("a-%03d.png", 7), "a-007.png");
  EXPECT_EQ(with_number("a-%03d.png", 12345), "a-12345.png");
  EXPECT_EQ(with_number("%d%%.png", 3), "3%.png");
  EXPECT_EQ(with_number("100%%.png", 3), "100%.png");
  EXPECT_FALSE(has_place("--out", "a%%d.png"));
  EXPECT_TRUE(has_place("--out", "a%5d.png"));
  for (const char* bad : {"%", "%s", "%-3d", "%03", "%99999999999999999999d", "%d%d", "%1000d"}) {
    EXPECT_THROW(with_number(bad, 1), Error) << bad;
  }
}

TEST(OutputNames, NumbersGoOnBehindTheLargest) {
  const test::TempFolder folder;
  SharedFlags flags{.out_dir = folder.path().string()};
  EXPECT_EQ(names(flags, "", 2).paths, (Paths{folder.file("000.png"), folder.file("001.png")}));
  test::write_text(folder.file("004.png"), "");
  test::write_text(folder.file("1000.png"), "");
  test::write_text(folder.file("99999999999999999999.png"), "no number of ours");
  test::write_text(folder.file("grid-007.png"), "");
  test::write_text(folder.file("12x.png"), "");
  test::write_text(folder.file(".png"), "");
  EXPECT_EQ(names(flags, "", 1).paths, Paths{folder.file("1001.png")});
  EXPECT_EQ(names(flags, "grid-", 1).paths, Paths{folder.file("grid-008.png")});
}

TEST(OutputNames, AFolderThatIsNotThereIsMadeLater) {
  const test::TempFolder folder;
  const OutputNames found = names({.out = "x.png", .out_dir = folder.file("a/b")}, "", 1);
  EXPECT_EQ(found.paths, Paths{folder.file("a/b/x.png")});
  EXPECT_FALSE(std::filesystem::exists(folder.file("a")));
  prepare_outputs(found, {});
  EXPECT_TRUE(std::filesystem::is_directory(folder.file("a/b")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.file("a/b"))) << "the probe leaves nothing";
}

TEST(OutputNames, FilesInTheWayAreRefused) {
  const test::TempFolder folder;
  test::write_text(folder.file("b1.png"), "");
  const std::string pattern = folder.file("b%d.png");
  EXPECT_THROW(names({.out = pattern}, "", 2), Error);
  EXPECT_EQ(names({.out = pattern}, "", 1).paths, Paths{folder.file("b0.png")});
  EXPECT_EQ(names({.out = pattern, .overwrite = true}, "", 2).paths.size(), 2u);
  std::filesystem::create_symlink("nowhere", folder.file("dangling.png"));
  EXPECT_THROW(names({.out = folder.file("dangling.png")}, "", 1), Error);
}

TEST(OutputNames, FieldsStandForWhatTheFileIs) {
  const OutputFields fields{.prompt = "Red apple, \xc3\xa4hm!", .name = "", .line = 7, .seed = 42};
  EXPECT_EQ(fill_pattern("--out", "{prompt}-{line}-{seed}-%02d.png", 3, fields),
            "red-apple-\xc3\xa4hm-7-42-03.png");
  EXPECT_EQ(fill_pattern("--out", "{name}.png", 0, fields), "red-apple-\xc3\xa4hm.png")
      << "no name: the prompt";
  EXPECT_EQ(fill_pattern("--out", "{name}.png", 0, {.prompt = "x", .name = "My Cat"}), "My Cat.png");
  EXPECT_EQ(fill_pattern("--out", "{prompt}", 0, {.prompt = "../../etc/passwd"}), "etc-passwd");
  EXPECT_EQ(fill_pattern("--out", "{prompt}", 0, {.prompt = "?!"}), "picture");
  const std::string cut = fill_pattern(
      "--out", "{prompt}", 0,
      {.prompt = "a" + std::string(60, 'b') + "\xc3\xa4" + std::string(17, 'c') + "\xc3\xa4\xc3\xa4"});
  EXPECT_EQ(cut.size(), 80u);
  EXPECT_EQ(fill_pattern("--out", "{prompt}", 0, {.prompt = std::string(79, 'b') + "\xc3\xa4"}),
            std::string(79, 'b'))
      << "no half of a letter";
  EXPECT_EQ(fill_pattern("--out", "{}{ {A}", 0, fields), "{}{ {A}") << "other braces are text";
  EXPECT_NE(message_of([] { fill_pattern("--out", "{sed}.png", 0, {}); }).find("no field {sed}"),
            std::string::npos);
}

TEST(OutputNames, FormatsGiveEndings) {
  const test::TempFolder folder;
  const std::string place = folder.file("x.png");
  EXPECT_EQ(names({.out = place, .format = "webp,png"}, "", 1).paths, Paths{folder.file("x.webp")});
  const OutputNames two = names({.out = place, .format = "webp,jpg"}, "", 1);
  EXPECT_EQ(path_in_format(two, two.paths[0], 1), folder.file("x.jpg"));
  const OutputNames any = names({.out = folder.file("x.dat"), .format = "jpg"}, "", 1);
  EXPECT_EQ(any.paths, Paths{folder.file("x.dat")}) << "one format: whatever the ending";
  EXPECT_EQ(names({.out_dir = folder.path().string(), .format = "jpeg"}, "", 1).paths,
            Paths{folder.file("000.jpg")});
  test::write_text(folder.file("005.webp"), "");
  EXPECT_EQ(names({.out_dir = folder.path().string()}, "", 1).paths, Paths{folder.file("006.png")})
      << "numbers count in all formats";
  for (const char* bad : {"gif", "png,", "png,png", ""}) {
    if (*bad == '\0') continue;
    EXPECT_NE(message_of([&] { names({.out = place, .format = bad}, "", 1); }).find("--format"),
              std::string::npos)
        << bad;
  }
  test::write_text(folder.file("x.jpg"), "");
  EXPECT_NE(
      message_of([&] { names({.out = place, .format = "png,jpg"}, "", 1); }).find("x.jpg: exists already"),
      std::string::npos);
}

TEST(OutputNames, TwoPicturesNeverShareAFile) {
  const std::vector<OutputFields> files{{.prompt = "a cat"}, {.prompt = "dog"}, {.prompt = "A cat!"}};
  const std::string message = message_of([&] { name_outputs({.out = "{prompt}.png"}, "", files); });
  EXPECT_NE(message.find("pictures 0 and 2 would both be a-cat.png"), std::string::npos) << message;
  EXPECT_EQ(name_outputs({.out = "{prompt}-%d.png"}, "", files).paths.size(), 3u);
  EXPECT_NE(message_of([] {
              refuse_shared_places(std::vector<OutputPlace>{{"--animate", "a/../x.png"}, {"", "x.png"}});
            }).find("--animate a/../x.png: is also where x.png goes"),
            std::string::npos);
  EXPECT_NE(
      message_of([] {
        refuse_shared_places(std::vector<OutputPlace>{{"--animate", "x.png"}, {"--step-map", "./x.png"}});
      }).find("--step-map ./x.png: is also where --animate goes"),
      std::string::npos);
}

TEST(PromptFile, LinesAreTextOrObjects) {
  const auto lines = parse_prompt_lines(
      "\xEF\xBB\xBFred apple\r\n\n  # a remark\n  "
      "{\"prompt\":\"bird\",\"seed\":18446744073709551615,\"count\":3,\"name\":\"b\"}\n"
      "{\"class\":\"food-fruit\"}\nlast");
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].prompt, "red apple");
  EXPECT_EQ(lines[0].line, 1);
  EXPECT_EQ(lines[1].line, 4);
  EXPECT_EQ(lines[1].prompt, "bird");
  EXPECT_EQ(lines[1].seed, 18446744073709551615u);
  EXPECT_EQ(lines[1].count, 3);
  EXPECT_EQ(lines[1].name, "b");
  EXPECT_EQ(lines[2].class_name, "food-fruit");
  EXPECT_EQ(lines[3].prompt, "last");
  for (const PromptLine& line : lines) EXPECT_EQ(line.fault, "");
}

TEST(PromptFile, ABadLineIsOneFaultAndNoMore) {
  const auto lines = parse_prompt_lines(
      "{\"prompt\":\"a\"\n\xff\n{\"prompt\":\"a\",\"sed\":1}\n{}\n{\"prompt\":\"a\",\"class\":\"b\"}\n"
      "{\"prompt\":\"a\",\"name\":\"../"
      "x\"}\n{\"prompt\":\"a\",\"count\":0}\n{\"prompt\":\"a\",\"seed\":-1}\ngood");
  ASSERT_EQ(lines.size(), 9u);
  EXPECT_TRUE(parse_prompt_lines("{\"prompt\":").front().fault.starts_with("JSON: parse error"));
  const std::vector<std::string> parts{"JSON",       "not UTF-8",  "'sed'",
                                       "either key", "either key", "no part of a file name",
                                       "count",      "seed",       ""};
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_NE(lines[i].fault.find(parts[i]), std::string::npos) << lines[i].fault;
    EXPECT_EQ(lines[i].fault.empty(), i == 8) << i;
  }
}

}  // namespace
}  // namespace volley::apps
