#include "text/text_stream.h"

#include <gtest/gtest.h>

#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

using text::StopFilter;

struct Cut {
  std::string text;
  bool is_stopped = false;
  bool operator==(const Cut&) const = default;
};

// `text` in parts of the given lengths, the last of which is repeated.
Cut filtered(const std::string& text, std::vector<std::string> stops, const std::vector<size_t>& lengths) {
  StopFilter filter(std::move(stops));
  Cut cut;
  size_t part = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = lengths[std::min(part++, lengths.size() - 1)];
    cut.text += filter.push(std::string_view(text).substr(at, length));
    at += length;
  }
  cut.text += filter.finish();
  cut.is_stopped = filter.is_stopped();
  return cut;
}

TEST(StopFilter, CutsBeforeTheTextHoweverItIsDivided) {
  for (const size_t length : {1, 2, 3, 5, 100}) {
    EXPECT_EQ(filtered("one two three", {"two"}, {length}), (Cut{"one ", true})) << length;
    EXPECT_EQ(filtered("one tw", {"two"}, {length}), (Cut{"one tw", false})) << length;
    EXPECT_EQ(filtered("aaab", {"aab"}, {length}), (Cut{"a", true})) << length;
    EXPECT_EQ(filtered("two", {"two"}, {length}), (Cut{"", true})) << length;
    EXPECT_EQ(filtered("häßlich", {"ß"}, {length}), (Cut{"hä", true})) << length;
    EXPECT_EQ(filtered("one", {}, {length}), (Cut{"one", false})) << length;
  }
}

TEST(StopFilter, TheFirstCompleteTextCountsAndOfThoseTheLongest) {
  for (const size_t length : {1, 2, 7}) {
    EXPECT_EQ(filtered("xabcd", {"abcd", "bc"}, {length}), (Cut{"xa", true})) << length;
    EXPECT_EQ(filtered("xabc", {"c", "abc"}, {length}), (Cut{"x", true})) << length;
  }
}

TEST(StopFilter, NothingOfAStopTextIsEverReleased) {
  StopFilter filter({"STOP"});
  EXPECT_EQ(filter.push("go S"), "go ");
  EXPECT_EQ(filter.push("TO"), "");
  EXPECT_EQ(filter.push("Q"), "STOQ") << "it was none";
  EXPECT_EQ(filter.push("ST"), "");
  EXPECT_EQ(filter.push("OP and more"), "");
  EXPECT_TRUE(filter.is_stopped());
  EXPECT_EQ(filter.push("more"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopFilter, EqualsTheSearchInTheWholeOverRandomTexts) {
  TestRandom random(5);
  const auto letters = [&](int64_t length) {
    std::string text;
    for (int64_t i = 0; i < length; ++i) text += static_cast<char>('a' + random.below(2));
    return text;
  };
  int stopped = 0, running = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string text = letters(random.below(12));
    const std::vector<std::string> stops{letters(1 + random.below(5)), letters(1 + random.below(5))};
    Cut expected{text, false};
    size_t first_end = std::string::npos;
    for (const std::string& stop : stops) {
      const size_t at = text.find(stop);
      if (at == std::string::npos) continue;
      const size_t end = at + stop.size();
      if (end > first_end || (end == first_end && at > expected.text.size())) continue;
      first_end = end;
      expected = {text.substr(0, at), true};
    }
    (expected.is_stopped ? stopped : running)++;
    ASSERT_EQ(filtered(text, stops, {static_cast<size_t>(1 + random.below(4))}), expected)
        << text << " " << stops[0] << " " << stops[1];
  }
  EXPECT_GT(stopped, 200);
  EXPECT_GT(running, 200);
}

}  // namespace
}  // namespace volley::test
