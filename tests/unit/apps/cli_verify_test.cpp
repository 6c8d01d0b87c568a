// volley info and volley verify on pictures that are what they say, and on those that are not.
#include <fstream>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

class CliVerify : public Cli {
 protected:
  // Makes NAME and packs it again with other pixels or another record.
  void forge(const std::string& name, const std::function<void(image::Picture&, nlohmann::json&)>& change) {
    const std::string bytes = read_text(path(name));
    image::Picture picture = image::decode_png(as_bytes(bytes)).value_or_throw(name);
    auto texts =
        image::read_png_texts(image::parse_png(as_bytes(bytes)).value_or_throw(name)).value_or_throw(name);
    ASSERT_EQ(texts.size(), 1u);
    nlohmann::json record = nlohmann::json::parse(texts[0].text);
    EXPECT_EQ(schema_fault(record, "volley.run.1.json"), "");
    change(picture, record);
    texts[0].text = record.dump();
    write_text(path("forged.png"), image::encode_png(picture, texts));
  }
  std::string difference(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"verify", "forged.png"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto json = json_of(arguments, "volley.verify.1.json", 1);
    EXPECT_EQ(json["identical"], false);
    return json["difference"]["what"].get<std::string>() + ": " +
           json["difference"]["message"].get<std::string>();
  }
};

TEST_F(CliVerify, WhatWasMadeIsIdentical) {
  volley({"image", "-m", "toy", "bird", "-n", "3", "-o", "a%d.png", "-s", "9", "--decoder", "tree"});
  volley({"image", "-m", "toy", "bird", "-n", "5", "--grid", "-o", "g.png", "--decoder", "parallel",
          "--steps", "7"});
  volley(
      {"image", "-m", "toy", "bird", "-o", "r.png", "-d", "cpu-reference", "--dtype", "f32", "--cfg", "1"});
  for (const char* file : {"a0.png", "a2.png", "g.png", "r.png"}) {
    const auto json = json_of({"verify", file}, "volley.verify.1.json");
    EXPECT_EQ(json["identical"], true) << json;
    const CommandResult plain = volley({"verify", file, "-t", "1"});
    EXPECT_EQ(plain.exit_code, 0) << plain.out;
    EXPECT_NE(plain.out.find("identical"), std::string::npos);
  }
}

TEST_F(CliVerify, OnePixelOffIsFound) {
  volley({"image", "-m", "toy", "bird", "-o", "a.png"});
  forge("a.png",
        [](image::Picture& picture, nlohmann::json&) { picture.rgb[3 * (5 * kToySide + 9) + 1] ^= 1; });
  EXPECT_NE(difference().find("pixels: pixel at column 9, row 5: recorded rgb "), std::string::npos);
  EXPECT_EQ(volley({"verify", "forged.png"}).exit_code, 1);
}

TEST_F(CliVerify, AChangedRecordIsFound) {
  volley({"image", "-m", "toy", "bird", "-o", "a.png", "--decoder", "jacobi"});
  const auto difference_with = [&](const char* pointer, nlohmann::json value) {
    forge("a.png", [&](image::Picture&, nlohmann::json& record) {
      record[nlohmann::json::json_pointer(pointer)] = std::move(value);
    });
    return difference();
  };
  EXPECT_TRUE(difference_with("/seed", 1).starts_with("record: picture 0: seed: recorded 0, found 1"));
  EXPECT_TRUE(difference_with("/temperature", 0.0).starts_with("tokens: picture 0: hash"));
  EXPECT_TRUE(difference_with("/cfg", 4.0).starts_with("tokens: "));
  EXPECT_TRUE(
      difference_with("/class_id", 0).starts_with("record: class: recorded animal-bird, found food-fruit"));
  EXPECT_TRUE(difference_with("/class_id", 77).starts_with("record: class_id"));
  EXPECT_TRUE(
      difference_with("/pictures/0/token_hash", std::string(64, '0')).starts_with("tokens: picture 0: hash"));
  EXPECT_TRUE(difference_with("/decoder_class", "own model").starts_with("record: decoder_class: "));
  EXPECT_TRUE(difference_with("/width", 32).starts_with("record: size: "));
  EXPECT_TRUE(difference_with("/note", "hello").starts_with("record: note: "));
  EXPECT_TRUE(difference_with("/weights/vq", std::string(64, '0')).starts_with("weights: vq: "));
}

TEST_F(CliVerify, OtherWeightsAreFoundFirst) {
  volley({"image", "-m", "toy", "bird", "-o", "forged.png", "--decoder", "jacobi"});
  write_toy_model_folder(box_.file("other"), {.seed = 77});
  EXPECT_TRUE(difference({"-m", "other"}).starts_with("weights: llamagen: recorded "));
  std::filesystem::remove_all(box_.file("toy"));
  expect_failure(volley({"verify", "forged.png"}), 4, "no such model in the box");
}

TEST_F(CliVerify, ADamagedOrForeignFileIsNamed) {
  volley({"image", "-m", "toy", "bird", "-o", "a.png"});
  std::string bytes = read_text(path("a.png"));
  const image::Picture picture = image::decode_png(as_bytes(bytes)).value_or_throw("a.png");
  write_text(path("plain.png"), image::encode_png(picture, {}));
  write_text(path("cut.png"), bytes.substr(0, bytes.size() / 2));
  bytes[60] = static_cast<char>(bytes[60] ^ 1);
  write_text(path("damaged.png"), bytes);
  write_text(path("text.png"), "hello");
  const image::PngText text{.keyword = "volley.run/1", .text = "{\"schema\":"};
  write_text(path("json.png"), image::encode_png(picture, {&text, 1}));
  for (const char* verb : {"info", "verify"}) {
    expect_failure(volley({verb, "plain.png"}), 1, "plain.png: holds no run record");
    expect_failure(volley({verb, "cut.png"}), 1, "cut.png: PNG ");
    expect_failure(volley({verb, "damaged.png"}), 1, "damaged.png: PNG chunk iTXt at byte 33: wrong CRC");
    expect_failure(volley({verb, "text.png"}), 1, "text.png: is no PNG file");
    expect_failure(volley({verb, "json.png"}), 1, "json.png: run record: ");
    expect_failure(volley({verb, "nowhere.png"}), 1, "nowhere.png: ");
    expect_failure(volley({verb}), 2, "file");
  }
}

TEST_F(CliVerify, InfoPrintsTheRecord) {
  volley({"image", "-m", "toy", "red apple", "-n", "2", "--grid", "-o", "g.png", "-s", "3"});
  const auto json = json_of({"info", "g.png"}, "volley.info.1.json");
  EXPECT_EQ(json["record"]["prompt"], "red apple");
  EXPECT_EQ(json["record"]["pictures"][1]["seed"], 4);
  EXPECT_EQ(json["width"], 2 * kToySide);
  const std::string text = volley({"info", "g.png"}).out;
  EXPECT_NE(text.find("class        food-fruit (0)\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  picture 1  seed 4, tokens "), std::string::npos) << text;
  forge("g.png", [](image::Picture&, nlohmann::json& record) { record["prompt"] = "\x1b[2J\nclass"; });
  EXPECT_NE(volley({"info", "forged.png"}).out.find("\\x1b[2J\\x0aclass"), std::string::npos)
      << "a record cannot speak to the terminal";
}

}  // namespace
}  // namespace volley::test
