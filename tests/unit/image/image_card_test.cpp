#include "image/image_card.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "core/base/error.h"
#include "core/io/json.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

using nlohmann::json;

// What read_image_card says of a folder whose config.json was changed.
std::string message_with(const std::function<void(json&)>& change, ErrorKind kind = ErrorKind::kFailed) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string());
  const std::string path = folder.file("config.json");
  json config = read_json_file(path);
  change(config);
  test::write_text(path, config.dump());
  try {
    read_image_card(folder.path().string());
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.kind(), kind) << message;
    EXPECT_TRUE(message.starts_with(folder.path().string())) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message.substr(folder.path().string().size());
  }
  return "accepted";
}

TEST(ImageCard, ReadsAFolder) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string());
  const ImageCard card = read_image_card(folder.path().string());
  EXPECT_EQ(card.name, "toy");
  EXPECT_EQ(card.tokens(), test::kToyTokens);
  EXPECT_EQ(card.classes.size(), 4u);
  EXPECT_EQ(card.names.size(), 6u);
  EXPECT_EQ(card.llamagen->defaults.cfg, 2.0);
  EXPECT_EQ(card.llamagen->defaults.guidance, GuidanceSchedule::Kind::kConstant);
  EXPECT_EQ(card.arpg->defaults.steps, 16);
  EXPECT_EQ(card.arpg->defaults.guidance, GuidanceSchedule::Kind::kLinear);
  EXPECT_EQ(card.arpg->file, folder.file("arpg.safetensors"));
  EXPECT_EQ(card.arpg->ffn_dim, 32);
}

TEST(ImageCard, RefusesWhatDoesNotFitTogether) {
  EXPECT_EQ(message_with([](json& c) { c["format"] = "other/1"; }),
            "/config.json: key 'format': expected volley.image_model/1, found 'other/1'");
  EXPECT_EQ(message_with([](json& c) { c["image_size"] = 32; }),
            "/config.json: image_size: expected 16, found 32");
  EXPECT_EQ(message_with([](json& c) { c["classes"].push_back("one more"); }),
            "/config.json: llamagen: num_classes: expected 5, found 4");
  EXPECT_EQ(message_with([](json& c) { c["classes"][1] = "food-fruit"; }),
            "/config.json: key 'classes': 'food-fruit' stands twice");
  EXPECT_EQ(message_with([](json& c) { c["classes"] = json::array(); }),
            "/config.json: llamagen: num_classes: expected 0, found 4");
  EXPECT_EQ(message_with([](json& c) { c["llamagen"]["block_size"] = 16; }),
            "/config.json: llamagen: block_size: expected 64, found 16");
  EXPECT_EQ(message_with([](json& c) { c["arpg"]["vocab_size"] = 64; }),
            "/config.json: arpg: vocab_size 64 exceeds the codebook's 32");
  EXPECT_EQ(message_with([](json& c) { c["arpg"]["defaults"]["schedule"] = "sine"; }),
            "/config.json: arpg: defaults: key 'schedule': expected arccos or cosine, found 'sine'");
  EXPECT_EQ(message_with([](json& c) { c["arpg"]["defaults"]["guidance_schedule"] = "x"; }),
            "/config.json: arpg: defaults: key 'guidance_schedule': unknown value 'x'");
  EXPECT_NE(message_with([](json& c) { c.erase("arpg"), c.erase("llamagen"); }), "accepted");
  EXPECT_NE(message_with([](json& c) { c["grid"] = 1000000; }), "accepted");
  EXPECT_NE(message_with([](json& c) { c["grid"] = "8"; }), "accepted");
}

TEST(ImageCard, ATextEncoderFitsItsTransformers) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string(), {.has_text_encoder = true});
  const std::string path = folder.file("config.json");
  const json good = read_json_file(path);
  const ImageCard card = read_image_card(folder.path().string());
  EXPECT_EQ(card.text_encoder->file, folder.file("text_encoder.safetensors"));
  EXPECT_EQ(card.text_encoder->config.max_words, 3);
  EXPECT_FALSE(card.is_caption_model()) << "it needs no features from elsewhere";
  const auto message = [&](const std::function<void(json&)>& change) -> std::string {
    json config = good;
    change(config);
    test::write_text(path, config.dump());
    try {
      read_image_card(folder.path().string());
    } catch (const Error& error) {
      return std::string(error.what()).substr(path.size());
    }
    return "accepted";
  };
  EXPECT_EQ(message([](json& c) { c["text_encoder"]["num_classes"] = 5; }),
            ": text_encoder: num_classes: expected 4, found 5");
  EXPECT_EQ(message([](json& c) { c["text_encoder"]["n_head"] = 3; }),
            ": text_encoder: dim 8 is no multiple of 3 heads");
  EXPECT_EQ(message([](json& c) { c["text_encoder"]["max_words"] = 0; }).find("accepted"), std::string::npos);
  EXPECT_EQ(message([](json& c) { c["arpg"]["caption_dim"] = 16; }),
            ": arpg: caption_dim: expected 8, found 16");
  EXPECT_EQ(message([](json& c) { c["llamagen"]["model_type"] = "c2i", c["llamagen"]["num_classes"] = 4; }),
            ": llamagen: model_type c2i: beside a text_encoder, expected t2i");
  EXPECT_EQ(message([](json& c) { c.erase("text_encoder"); }),
            ": llamagen: model_type t2i: needs a text_encoder in config.json, or no classes");
  EXPECT_NE(message([](json& c) { c["text_encoder"]["file"] = "../x"; }).find("expected a plain file name"),
            std::string::npos);
}

TEST(ImageCard, FilesStayInsideTheFolder) {
  for (const char* file : {"../vq.safetensors", "/etc/passwd", "..", "", "a/b"}) {
    EXPECT_NE(message_with([&](json& c) { c["vq"]["file"] = file; }).find("expected a plain file name"),
              std::string::npos)
        << file;
  }
}

TEST(ImageCard, NamesMustHaveKnownClasses) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string());
  test::write_text(folder.file("names.json"), R"({"red apple": "nowhere"})");
  EXPECT_THROW(read_image_card(folder.path().string()), Error);
  test::write_text(folder.file("names.json"), R"(["red apple"])");
  EXPECT_THROW(read_image_card(folder.path().string()), Error);
}

TEST(ImageCard, WhatIsMissingIsAMissingModel) {
  const test::TempFolder folder;
  for (const std::string& path : {folder.file("nowhere"), folder.path().string()}) {
    try {
      read_image_card(path);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kModelMissing) << error.what();
    }
  }
}

}  // namespace
}  // namespace volley::image
