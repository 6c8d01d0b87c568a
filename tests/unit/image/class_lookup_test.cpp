#include <gtest/gtest.h>

#include "core/base/error.h"
#include "image/image_card.h"

namespace volley::image {
namespace {

ImageCard test_card() {
  ImageCard card;
  card.classes = {"food-fruit", "food-drink", "animal-bird", "sky & weather", "hand-fingers-open", "time"};
  card.names = {{"apple", 0},
                {"apple juice", 1},
                {"bird", 2},
                {"cloud with rain", 3},
                {"red apple", 0},
                {"watch", 5},
                {"three o\u2019clock", 5},
                {"japanese \u201chere\u201d button", 4},
                {"strawberry", 0}};
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

TEST(ClassLookup, QuotesMayBePlainOrTypographic) {
  const ImageCard card = test_card();
  for (const char* prompt :
       {"three o'clock", "Three o\u2019clock", "three o\u2018clock", "three o\u02bcclock"}) {
    EXPECT_EQ(find_prompt(card, prompt).name, "time") << prompt;
  }
  EXPECT_EQ(find_prompt(card, "the japanese \"here\" button").name, "hand-fingers-open");
  ImageCard plain = test_card();
  plain.names.push_back({"four o'clock", 5});
  EXPECT_EQ(find_prompt(plain, "four o\u2019clock").name, "time");
}

TEST(ClassLookup, AnEmojiIsToBeNamedInWords) {
  const ImageCard card = test_card();
  for (const char* prompt : {"\U0001f34e", "\u2764\ufe0f", "\U0001f468\u200d\U0001f373 \U0001f34e"}) {
    const std::string message = message_of([&] { find_prompt(card, prompt); });
    EXPECT_TRUE(
        message.starts_with("prompt '" + std::string(prompt) + "': an emoji; name it in words, such as "))
        << message;
    EXPECT_EQ(std::ranges::count(message, ','), 5) << "five names and ours: " << message;
  }
  EXPECT_EQ(find_prompt(card, "\U0001f34e apple").name, "food-fruit");
  ImageCard numbered = test_card();
  for (size_t id = 0; id < numbered.classes.size(); ++id) numbered.classes[id] = std::to_string(id);
  const std::string offered = message_of([&] { find_prompt(numbered, "\U0001f34e"); });
  EXPECT_EQ(offered.find_first_of("0123456789"), std::string::npos) << "words, no numbers: " << offered;
  for (const char* prompt : {"\u00e9t\u00e9", "\u82f9\u679c", "7", " "}) {
    EXPECT_NE(message_of([&] { find_prompt(card, prompt); }).find(": no such class; nearest are "),
              std::string::npos)
        << prompt;
  }
}

TEST(ClassLookup, OffersForAPluralBeginWithItsSingular) {
  const ImageCard card = test_card();
  const auto offers = [&](const char* text, int64_t count) {
    std::vector<std::string> names;
    for (const EmojiName& entry : card.names) names.push_back(entry.name);
    names.push_back("green apple");
    names.push_back("pineapple");
    std::erase(names, "apple");
    return nearest_choices(text, names, count);
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(offers("apples", 4), (Names{"red apple", "apple juice", "green apple", "pineapple"}));
  EXPECT_EQ(offers("Strawberries", 1), Names{"strawberry"});
  EXPECT_EQ(offers("watches", 1), Names{"watch"});
  EXPECT_EQ(offers("straw", 1), Names{"strawberry"}) << "the start of a word";
}

TEST(ClassLookup, OffersForSeveralWordsHaveSomeOfThem) {
  const std::vector<std::string> names{"apron",    "hotdog",  "Eskimo dog", "bookcase",
                                       "dog sled", "red fox", "redbone"};
  using Names = std::vector<std::string>;
  EXPECT_EQ(nearest_choices("a dog", names, 3), (Names{"Eskimo dog", "dog sled", "hotdog"}))
      << "an article is no word to look for";
  EXPECT_EQ(nearest_choices("dog face", names, 2), (Names{"dog sled", "Eskimo dog"}));
  EXPECT_EQ(nearest_choices("sleds and a dog", names, 2), (Names{"dog sled", "Eskimo dog"}))
      << "two words are nearer than one";
  EXPECT_EQ(nearest_choices("a red apple", names, 1), Names{"red fox"});
  EXPECT_EQ(nearest_choices("the", names, 7).size(), 7u);
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
