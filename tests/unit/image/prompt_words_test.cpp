// Words and rows of prompts against what tools/train/prompts.py printed.
#include "image/prompt_words.h"

#include <gtest/gtest.h>

#include "core/io/json.h"

namespace volley::image {
namespace {

TEST(PromptWords, EqualTheTrainingCodes) {
  const nlohmann::json examples =
      read_json_file(std::string(VOLLEY_SOURCE_DIR) + "/tests/unit/image/prompt_words.json");
  ASSERT_GE(examples.size(), 10u);
  for (const nlohmann::json& example : examples) {
    const std::string prompt = example["prompt"];
    SCOPED_TRACE(prompt);
    std::vector<std::string> words = prompt_words(prompt);
    if (words.size() > 15) words.resize(15);  // as the training code lists them
    EXPECT_EQ(words, example["words"].get<std::vector<std::string>>());
    for (size_t i = 0; i < words.size(); ++i)
      EXPECT_EQ(word_rows(words[i], 4096), example["rows"][i].get<std::vector<int32_t>>());
  }
}

TEST(PromptWords, PartsAreShorterThanTheMarkedWord) {
  EXPECT_EQ(word_rows("a", 4096).size(), 1u);        // <a>
  EXPECT_EQ(word_rows("ab", 4096).size(), 1u + 2u);  // <ab>, <ab ab>
  EXPECT_EQ(word_rows("apple", 4096).size(), 1u + 5u + 4u + 3u);
  EXPECT_EQ(word_rows("apple", 1), std::vector<int32_t>(13, 0));
}

TEST(PromptWords, BytesThatAreNoTextAreWordsAsTheyAre) {
  EXPECT_EQ(prompt_words("\xff\xfe A\x80"), (std::vector<std::string>{"\xff\xfe", "a\x80"}));
  EXPECT_EQ(prompt_words("\u201cRed\u201d"), std::vector<std::string>{"red"});
}

}  // namespace
}  // namespace volley::image
