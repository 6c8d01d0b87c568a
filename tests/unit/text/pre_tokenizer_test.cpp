#include "text/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/text/message_of.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

std::vector<std::string> pieces(const PreTokenizer& splitter, std::string_view text) {
  std::vector<std::string> all;
  splitter.split({text, true}, [&](const Piece& piece) { all.emplace_back(piece.text); });
  return all;
}

using Pieces = std::vector<std::string>;

// Characters that the patterns tell apart, with others of every plane, and bytes that are no UTF-8.
std::string odd_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {
      "'",  "s",  "S",  "t",    "re",     "LL",     "\xc5\xbf", " ",      "  ",     "\n",        "\r\n",
      "\t", "a",  "Zz", "é",    "中",     "1",      "22",       "333",    "½",      "٣",         "_",
      "-",  "!?", ".",  "🙂", "\u0301", "\u00a0", "\u3000",   "\u2028", "\u180e", "\u0085",    "\u200b",
      "ǅ",  "Ⅷ",  "ʰ",  "ª",    "\x01",   "\xff",   "\xe4\xb8", "\xc3",   "\u1c89", "\U00010d40"};
  std::string text;
  const int count = std::uniform_int_distribution(0, 24)(random);
  for (int i = 0; i < count; ++i) {
    const int kind = std::uniform_int_distribution(0, 9)(random);
    if (kind == 0) {
      // Assigned when the library's tables were made: planes 0 and 1 below the newest blocks.
      const auto code = std::uniform_int_distribution<uint32_t>(1, 0x1fffu)(random);
      append_utf8(text, code);
    } else if (kind == 1) {
      append_utf8(text, std::uniform_int_distribution<uint32_t>(0x3000, 0xa7ca)(random));
    } else {
      text += kParts[std::uniform_int_distribution<size_t>(0, kParts.size() - 1)(random)];
    }
  }
  return text;
}

// Characters of Unicode 15 and 16, which the regular expression library of Debian 12 has no classes for.
bool has_new_characters(std::string_view text) {
  return text.find("\u1c89") != text.npos || text.find("\u1c8a") != text.npos ||
         text.find("\U00010d40") != text.npos;
}

TEST(PreTokenizer, ScannersEqualTheirRegularExpressions) {
  std::mt19937 random(5);
  for (const SplitPattern pattern : {SplitPattern::kGpt2, SplitPattern::kLlama3, SplitPattern::kQwen2}) {
    const PreTokenizerPtr scanner = make_scanner(pattern);
    const PreTokenizerPtr regex = make_regex_split({.pattern = std::string(regex_of(pattern))}, "test");
    int64_t compared = 0;
    for (int i = 0; i < 60000; ++i) {
      const std::string text = odd_text(random);
      const Pieces found = pieces(*scanner, text);
      std::string joined;
      for (const std::string& piece : found) joined += piece;
      ASSERT_EQ(joined, text);
      if (has_new_characters(text)) continue;
      ASSERT_EQ(found, pieces(*regex, text)) << text;
      ++compared;
    }
    EXPECT_GT(compared, 30000);
  }
}

TEST(PreTokenizer, ScannersKnowUnicode16) {
  const PreTokenizerPtr scanner = make_scanner(SplitPattern::kLlama3);
  EXPECT_EQ(pieces(*scanner, "a\u1c89 \U00010d40\U00010d41"),
            (Pieces{"a\u1c89", " ", "\U00010d40\U00010d41"}));
}

TEST(PreTokenizer, PublishedPatternsGetScanners) {
  // The scanner counts U+1C89 as a letter; the library does not.
  for (const SplitPattern pattern : {SplitPattern::kGpt2, SplitPattern::kLlama3, SplitPattern::kQwen2}) {
    EXPECT_EQ(pieces(*make_split({.pattern = std::string(regex_of(pattern))}, "test"), "a\u1c89"),
              (Pieces{"a\u1c89"}));
  }
}

TEST(PreTokenizer, SplitBehaviors) {
  const auto split = [](SplitBehavior behavior, SplitRule::Matches matches = SplitRule::Matches::kAsFound) {
    return pieces(
        *make_split(
            {.pattern = "-", .kind = SplitRule::Kind::kLiteral, .behavior = behavior, .matches = matches},
            "test"),
        "the-final--countdown");
  };
  EXPECT_EQ(split(SplitBehavior::kRemoved), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated), (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious), (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous), (Pieces{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved, SplitRule::Matches::kInverted), (Pieces{"-", "-", "-"}));
}

TEST(PreTokenizer, MetaspaceAndDigits) {
  EXPECT_EQ(pieces(*make_metaspace({}), "a b  c"), (Pieces{"▁a", "▁b", "▁", "▁c"}));
  EXPECT_EQ(pieces(*make_metaspace({.cut = MetaspaceRule::Cut::kNone}), " a b"), (Pieces{"▁a▁b"}));
  EXPECT_EQ(pieces(*make_metaspace(
                       {.existing = MetaspaceRule::Existing::kIgnored, .cut = MetaspaceRule::Cut::kNone}),
                   " a"),
            (Pieces{"▁▁a"}));
  EXPECT_EQ(pieces(*make_cut_before("▁"), "a▁▁b▁c▁"), (Pieces{"a", "▁▁b", "▁c", "▁"}));
  auto joined = std::make_unique<BytePairs>();
  joined->add('a', 'b');
  joined->add('b', "é"[0]);
  EXPECT_EQ(pieces(*make_cut_unless_joined(std::move(joined)), "abébaab é"),
            (Pieces{"abé", "b", "a", "ab", " ", "é"}));
  EXPECT_EQ(pieces(*make_digit_split(DigitRuns::kSingle), "ab12c½"), (Pieces{"ab", "1", "2", "c", "½"}));
  EXPECT_EQ(pieces(*make_digit_split(DigitRuns::kRuns), "ab12c"), (Pieces{"ab", "12", "c"}));
  EXPECT_EQ(pieces(*make_whitespace_split(), " a\u3000b\n"), (Pieces{"a", "b"}));
}

TEST(Regex, WhiteSpaceIsUnicodes) {
  // PCRE's \s has U+180E; the property has not.
  const Regex regex(R"([a\s]+|\S)", "test");
  std::vector<std::pair<size_t, size_t>> found;
  regex.for_each_match("a \u00a0\u180e", [&](size_t begin, size_t end) { found.push_back({begin, end}); });
  EXPECT_EQ(found, (std::vector<std::pair<size_t, size_t>>{{0, 4}, {4, 7}}));
  EXPECT_EQ(pcre_spelling(R"(\\s[]\S]\d)"), R"(\\s[]\S]\d)");
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  const auto matches = [](const char* pattern, const std::string& text) {
    Pieces found;
    Regex(pattern, "test").for_each_match(text, [&](size_t begin, size_t end) {
      found.push_back(text.substr(begin, end - begin));
    });
    return found;
  };
  // As pre_tokenizers.Split of the PyPI package cuts these.
  EXPECT_EQ(matches(R"(\w+)", "e\u0301_1 a-b"), (Pieces{"e\u0301_1", "a", "b"}));
  EXPECT_EQ(matches(R"([^\w]+)", "a -b"), (Pieces{" -"}));
  EXPECT_EQ(matches(R"(\h+)", "af g 1"), (Pieces{"af", "1"}));
  EXPECT_EQ(matches("^b|a$", "a\nb"), (Pieces{"a", "b"}));
}

TEST(Regex, BytesThatAreNoUtf8CountAsOtherCharacters) {
  const Regex regex(R"(\p{L}+|[^\p{L}]+)", "test");
  std::vector<std::string> found;
  const std::string text =
      "ab\xff\xc3"
      "cd";
  regex.for_each_match(text,
                       [&](size_t begin, size_t end) { found.push_back(text.substr(begin, end - begin)); });
  EXPECT_EQ(found, (Pieces{"ab", "\xff\xc3", "cd"}));
}

TEST(Regex, FaultsNameThePattern) {
  EXPECT_EQ(message_of([] { Regex("(a", "t.json: Split"); }),
            "t.json: Split: regular expression '(a': missing closing parenthesis");
  // Backtracking without end is given up.
  const std::string hostile = message_of(
      [] { Regex("^(a|aa)+$", "t.json").for_each_match(std::string(60, 'a') + "b", [](size_t, size_t) {}); });
  EXPECT_EQ(hostile, "t.json: regular expression gave up on a text of 61 bytes");
}

}  // namespace
}  // namespace volley::text
