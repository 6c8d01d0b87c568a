// volley info and volley verify on pictures that are what they say, and on those that are not.
#include <signal.h>

#include <fstream>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "image/run_record.h"
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
    const auto text =
        std::ranges::find_if(texts, [](const image::PngText& t) { return t.keyword == image::kRunSchema; });
    ASSERT_NE(text, texts.end());
    nlohmann::json record = nlohmann::json::parse(text->text);
    EXPECT_EQ(schema_fault(record, "volley.run.1.json"), "");
    change(picture, record);
    text->text = record.dump();
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

TEST_F(CliVerify, ARecordThatCannotBeRunIsNamed) {
  volley({"image", "-m", "toy", "red apple", "-n", "2", "-o", "a%d.png", "--decoder", "jacobi"});
  const auto fails_with = [&](const std::string& key, nlohmann::json value, const std::string& part,
                              int exit_code = 1) {
    forge("a1.png", [&](image::Picture&, nlohmann::json& record) { record[key] = std::move(value); });
    const CommandResult result = volley({"verify", "forged.png"});
    expect_failure(result, exit_code, "volley: forged.png: run record: key '" + key + "': ");
    expect_failure(result, exit_code, part);
    EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
    EXPECT_EQ(result.err.find(" --"), std::string::npos) << "speaks of a flag: " << result.err;
    json_of({"verify", "forged.png"}, "volley.verify.1.json", exit_code);
  };
  fails_with("decoder", "zzz", "'decoder': zzz: no such method; nearest is ");
  fails_with("decoder", "masked", "'decoder': masked: needs a masked model");
  fails_with("decoder", "jacobi:window=x", "'decoder': jacobi: window=x: expected ");
  fails_with("device", "gpu:0", "'device': gpu:0: unknown device; known are cpu, ");
  fails_with("model", "nope", "'model': 'nope': no such model; ", 4);
  fails_with("count", 1, "'count': 1 in the run, but the file holds picture 1");
  fails_with("count", 1000000000, "'count': ");
  fails_with("only", {0, 1}, "'only': is of requests");
  fails_with("only", {0}, "'only': is of requests");
  fails_with("class", "", "'class': expected a name");
  fails_with("guidance", "steep", "unknown schedule 'steep'");
  // A folder that is there and would do, but that only a person may name.
  std::filesystem::copy(box_.file("toy"), path("toy-folder"));
  for (const std::string& model : {path("toy-folder"), std::string("../w/toy-folder"), std::string("..")}) {
    fails_with("model", model, "is no model's name; -m names a model folder");
  }
  fails_with("model", "toy-folder", "no such model; ", 4);
  fails_with("model", "toy-folder", "; -m names a model's folder or file", 4);
  EXPECT_NE(volley({"verify", "forged.png", "-m", "./toy-folder"}).out.find("record: model: "),
            std::string::npos);
  EXPECT_EQ(volley({"verify", "a1.png", "-m", "./toy-folder"}).exit_code, 0);
}

TEST_F(CliVerify, ThePromptMustNameTheClass) {
  volley({"image", "-m", "toy", "red apple", "-o", "a.png"});
  const auto difference_with = [&](const char* prompt) {
    forge("a.png", [&](image::Picture&, nlohmann::json& record) { record["prompt"] = prompt; });
    return difference();
  };
  EXPECT_EQ(difference_with("a bird"),
            "record: prompt: recorded 'a bird', which names class animal-bird, found class food-fruit");
  EXPECT_EQ(difference_with("zzz"),
            "record: prompt: recorded 'zzz', which names no class of the model, found class food-fruit");
}

TEST_F(CliVerify, WordsThatATextEncoderReadMakeThePicture) {
  write_toy_model_folder(box_.file("toy"), {.has_text_encoder = true});
  for (const char* decoder : {"jacobi", "parallel"}) {
    const auto made =
        json_of({"image", "-m", "toy", "Red apple", "-o", "a.png", "--overwrite", "--decoder", decoder},
                "volley.image.1.json");
    EXPECT_FALSE(made["request"].contains("class"));
    EXPECT_TRUE(made["weights"].contains("text_encoder")) << made;
    const auto json = json_of({"verify", "a.png"}, "volley.verify.1.json");
    EXPECT_EQ(json["identical"], true) << json;
    EXPECT_EQ(volley({"info", "a.png"}).out.find("\nclass "), std::string::npos);
    forge("a.png", [](image::Picture&, nlohmann::json& record) { record["prompt"] = "bird"; });
    EXPECT_TRUE(difference().starts_with("tokens: picture 0: hash")) << difference();
    forge("a.png", [](image::Picture&, nlohmann::json& record) { record["weights"].erase("text_encoder"); });
    EXPECT_TRUE(difference().starts_with("weights: text_encoder: recorded none")) << difference();
    // The program never writes both.
    forge("a.png", [](image::Picture&, nlohmann::json& record) {
      record["class"] = "food-fruit";
      record["class_id"] = 0;
    });
    EXPECT_EQ(difference(), "record: prompt: recorded Red apple, found a class, which stands alone");
    forge("a.png", [](image::Picture&, nlohmann::json& record) { record["prompt"] = "?!"; });
    EXPECT_EQ(difference(), "record: prompt: recorded ?!, found no words");
  }
  // Packed, the encoder comes along.
  const auto packed =
      json_of({"models", "convert", "-m", "toy", "-o", "packed", "--dtype", "q8_0"}, "volley.convert.1.json");
  EXPECT_EQ(packed["files"].size(), 4u);
  const auto hash = [&](const std::string& model) {
    const auto made =
        json_of({"image", "-m", model, "red apple", "--dtype", "q8_0", "-o", "p.png", "--overwrite"},
                "volley.image.1.json");
    return made["pictures"][0]["token_hash"].get<std::string>();
  };
  EXPECT_EQ(hash("packed"), hash("toy"));
  volley({"image", "-m", "toy", "--class", "animal-bird", "-o", "c.png"});
  EXPECT_EQ(json_of({"verify", "c.png"}, "volley.verify.1.json")["identical"], true);
  expect_failure(volley({"image", "-m", "toy", "?!"}), 2, "prompt '?!': holds no words");
  expect_failure(volley({"image", "-m", "toy", "\U0001f34e"}), 2, "': an emoji; name it in words");
  EXPECT_NE(volley({"image", "-m", "toy", "one two three four", "-o", "d.png"})
                .err.find("the first 3 words of the prompt are read, 4 are given"),
            std::string::npos);
  EXPECT_NE(volley({"models", "info", "toy"}).out.find("draws        prompts of up to 3 words"),
            std::string::npos);
}

TEST_F(CliVerify, ADifferenceNamesAnotherMaker) {
  volley({"image", "-m", "toy", "bird", "-o", "a.png", "-d", "cpu-reference", "--dtype", "f32"});
  forge("a.png", [](image::Picture& picture, nlohmann::json&) { picture.rgb[0] ^= 1; });
  EXPECT_TRUE(difference().ends_with("; all tokens are equal")) << difference();
  const std::string now = volley({"--version"}).out, version = now.substr(0, now.size() - 1);
  EXPECT_TRUE(difference({"-d", "cpu"})
                  .ends_with("; made by " + version + " on cpu-reference in f32, again by " + version +
                             " on cpu in f32"))
      << difference({"-d", "cpu"});
  forge("a.png", [](image::Picture& picture, nlohmann::json& record) {
    picture.rgb[0] ^= 1;
    record["volley"] = "0.0.1";
  });
  EXPECT_TRUE(difference().ends_with(
      "; all tokens are equal; made by volley 0.0.1 on cpu-reference in f32, again by " + version +
      " on cpu-reference in f32"))
      << difference();
  forge("a.png", [](image::Picture&, nlohmann::json& record) {
    record["volley"] = "0.0.1";
    record["pictures"][0]["token_hash"] = std::string(64, '0');
  });
  EXPECT_TRUE(difference().starts_with("tokens: "));
  EXPECT_NE(difference().find("; made by volley 0.0.1 on "), std::string::npos);
}

TEST_F(CliVerify, InterruptionIsOneLine) {
  // A record of so many pictures that making them takes long enough.
  constexpr int64_t kSide = 100;
  volley({"image", "-m", "toy", "bird", "-o", "a.png", "--decoder", "sequential"});
  forge("a.png", [&](image::Picture& picture, nlohmann::json& record) {
    picture = {.width = kSide * kToySide, .height = kSide * kToySide};
    picture.rgb.resize(static_cast<size_t>(3 * picture.width * picture.height));
    record["width"] = picture.width;
    record["height"] = picture.height;
    record["columns"] = record["rows"] = kSide;
    record["count"] = kSide * kSide;
    for (int64_t i = 1; i < kSide * kSide; ++i) {
      record["pictures"].push_back({{"index", i}, {"seed", i}, {"token_hash", std::string(64, '0')}});
    }
  });
  Command run = command({"verify", "forged.png", "--json", "-v"});
  run.awaited = "making 10000 pictures again: toy on cpu\n";
  run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
  const CommandResult result = run_command(run);
  expect_failure(result, 130, "volley: forged.png: interrupted before it was compared");
  EXPECT_EQ(result.error_lines().size(), 2u) << result.err;
  const auto json = parse_json(result.out).value_or_throw("standard output");
  EXPECT_EQ(schema_fault(json, "volley.verify.1.json"), "");
  EXPECT_EQ(json["error"]["kind"], "interrupted");
  EXPECT_EQ(json["error"]["exit_code"], 130);
}

TEST_F(CliVerify, OtherWeightsAreFoundFirst) {
  volley({"image", "-m", "toy", "bird", "-o", "forged.png", "--decoder", "jacobi"});
  write_toy_model_folder(box_.file("other"), {.seed = 77});
  EXPECT_TRUE(difference({"-m", "other"}).starts_with("weights: llamagen: recorded "));
  std::filesystem::remove_all(box_.file("toy"));
  expect_failure(volley({"verify", "forged.png"}), 4, "no such model; ");
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
    expect_failure(volley({verb, "damaged.png"}), 1, "damaged.png: PNG chunk tEXt at byte 33: wrong CRC");
    expect_failure(volley({verb, "text.png"}), 1, "text.png: is no PNG, JPEG, WebP or GIF file");
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
