#include "apps/config_file.h"

#include <gtest/gtest.h>

#include "core/base/error.h"

namespace volley::apps {
namespace {

std::string fault(std::string_view text) {
  try {
    parse_config(text, "c.toml");
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(ConfigFile, ReadsSectionsStringsNumbersAndBooleans) {
  const auto entries = parse_config(
      "# comment\nthreads = 2  # two\r\n\n[image]\nmodel = \"a # \\\"b\\\"\"\ncfg=1.5\n[ models.pull "
      "]\nno-progress = true\n"
      "endpoint = 'https://h\\x'",
      "c.toml");
  ASSERT_EQ(entries.size(), 5u);
  EXPECT_TRUE(entries[0].section.empty());
  EXPECT_EQ(entries[0].key, "threads");
  EXPECT_EQ(entries[0].value, "2");
  EXPECT_EQ(entries[0].line, 2);
  EXPECT_EQ(entries[1].value, "a # \"b\"");
  EXPECT_EQ(entries[2].value, "1.5");
  EXPECT_EQ(entries[3].section, (std::vector<std::string>{"models", "pull"}));
  EXPECT_EQ(entries[3].value, "true");
  EXPECT_EQ(entries[4].value, "https://h\\x");
  EXPECT_EQ(entries[4].line, 9);
}

TEST(ConfigFile, NamesTheLineThatIsNone) {
  EXPECT_EQ(fault("a = 1\nwords\n"), "c.toml:2: expected [section] or key = value");
  EXPECT_EQ(fault("a b = 1"), "c.toml:1: expected [section] or key = value");
  EXPECT_EQ(fault("a ="), "c.toml:1: expected one string in quotes, number, true or false");
  EXPECT_EQ(fault("a = [1, 2]"), "c.toml:1: expected one string in quotes, number, true or false");
  EXPECT_EQ(fault("a = 1 2"), "c.toml:1: unexpected '2'");
  EXPECT_EQ(fault("a = \"x"), "c.toml:1: string without its closing quote");
  EXPECT_EQ(fault("a = \"\\n\""), "c.toml:1: unknown escape; single quotes take text as it is");
  EXPECT_EQ(fault("[x"), "c.toml:1: section without ]");
  EXPECT_EQ(fault("[x..y]"), "c.toml:1: section 'x..y': expected names with dots between them");
  EXPECT_EQ(fault("a = 1\n[x]\na = 1\n[x]\na = 2"), "c.toml:5: key 'a' stands twice");
  EXPECT_EQ(fault("a = \"\xff\""), "c.toml: is not UTF-8");
}

}  // namespace
}  // namespace volley::apps
