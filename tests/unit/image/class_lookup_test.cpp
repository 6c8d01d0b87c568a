#include <gtest/gtest.h>

#include "core/base/error.h"
#include "image/image_card.h"

namespace volley::image {
namespace {

ImageCard test_card() {
  ImageCard card;
  card.classes = {"food-fruit", "food-drink", "animal-bird", "sky & weather", "hand-fingers-open", "time"};
  card.names = {{"apple", 0},           {"apple juice", 1}, {"bird", 2},
                {"cloud with rain", 3}, {"red apple", 0},   {"watch", 5}};
  return card;
}

std::string message_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

TEST(ClassLookup, FindsAClassByItsExactName) {
  const ImageCard card = test_card();
  EXPECT_EQ(find_class(card, "sky & weather").id, 3);
  EXPECT_TRUE(find_class(card, "sky & weather").is_exact);
  EXPECT_EQ(find_prompt(card, "Food-Fruit").name, "food-fruit") << "prompts are not particular about case";
}

TEST(ClassLookup, APromptNamesAnEmojiOfAClass) {
  const ImageCard card = test_card();
  const ClassChoice choice = find_prompt(card, "a Red Apple, please");
  EXPECT_EQ(choice.name, "food-fruit");
  EXPECT_FALSE(choice.is_exact);
  EXPECT_EQ(find_prompt(card, "two birds").name, "animal-bird") << "a plural";
}

TEST(ClassLookup, TheLongestNameCountsAndOnlyWholeWords) {
  const ImageCard card = test_card();
  EXPECT_EQ(find_prompt(card, "an apple juice").name, "food-drink");
  EXPECT_NE(message_of([&] { find_prompt(card, "pineapple"); }), "");
  EXPECT_NE(message_of([&] { find_prompt(card, "watchmaker"); }), "");
}

TEST(ClassLookup, OffersTheFiveNearest) {
  const ImageCard card = test_card();
  EXPECT_EQ(message_of([&] { find_class(card, "food-friut"); }),
            "--class 'food-friut': no such class; nearest are food-fruit, food-drink, time, animal-bird, sky "
            "& weather");
  const std::string offer = message_of([&] { find_class(card, "fingers"); });
  EXPECT_NE(offer.find("nearest are hand-fingers-open, "), std::string::npos)
      << "what contains it comes first: " << offer;
  EXPECT_NE(message_of([&] { find_prompt(card, "rain"); }).find("nearest are cloud with rain, "),
            std::string::npos);
  EXPECT_NE(message_of([&] { find_prompt(card, "\x1b[31m\n"); }).find("\\x1b"), std::string::npos)
      << "fit for a terminal";
}

}  // namespace
}  // namespace volley::image
