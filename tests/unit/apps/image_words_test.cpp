// What volley image says of a run.
#include "apps/image_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace volley::apps {
namespace {

TEST(ImageWords, AClassOfANumberIsCalledByItsName) {
  const image::ImageCard card{.classes = {"0", "1", "2", "food-fruit"},
                              .names = {{"apple", 3}, {"crane 2", 2}, {"golden retriever", 1}}};
  const auto subject = [&](int64_t id) {
    return subject_text(card, {.class_name = card.classes[static_cast<size_t>(id)], .class_id = id});
  };
  EXPECT_EQ(subject(1), "golden retriever (1)");
  EXPECT_EQ(subject(2), "crane (2)") << "one of two of that name";
  EXPECT_EQ(subject(0), "0") << "has no name";
  EXPECT_EQ(subject(3), "food-fruit") << "has one of its own";
  EXPECT_EQ(subject_text(card, {.prompt = "red apple"}), "'red apple'");
  EXPECT_EQ(subject_text(card, {.features_hash = "x"}), "a caption");
}

TEST(ImageWords, WhatIsChangedIsSaid) {
  const auto line = [](const image::EditRequest& edit) {
    image::ImageRequest request{.edit = edit};
    request.decoder = {.name = "parallel"};
    return method_line(request);
  };
  const image::SourceFile init{.name = "a.png"};
  EXPECT_THAT(line({.init = init, .outpaint = {.right = 16}}),
              testing::EndsWith(", from a.png, widened by cells: right=16"));
  EXPECT_THAT(line({.init = init, .outpaint = {.left = 1, .right = 2, .up = 3, .down = 4}}),
              testing::EndsWith(", widened by cells: left=1,right=2,up=3,down=4"));
  EXPECT_THAT(line({.init = init, .mask = image::SourceFile{.name = "m.png"}}),
              testing::EndsWith(", from a.png where m.png is white"));
  EXPECT_THAT(line({.init = init, .strength = 0.5}), testing::EndsWith(", from a.png, strength 0.5"));
}

}  // namespace
}  // namespace volley::apps
