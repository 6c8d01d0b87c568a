// Published checkpoints and model listings, as a person runs them.
#include "core/io/byte_reader.h"
#include "core/io/open_weights.h"
#include "core/io/safetensors.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/image/toy_checkpoints.h"
#include "tests/unit/io/gguf_builder.h"

namespace volley::test {
namespace {

class CliModels : public Cli {
 protected:
  // A bare checkpoint and its tokenizer in a folder of the working one.
  CliModels() {
    std::filesystem::create_directory(path("bare"));
    write_torch_checkpoint(path("bare/vq_ds16_c2i.pt"), *open_weights(box_.file("toy/vq.safetensors")),
                           {.wrapper = "model"});
    write_torch_checkpoint(path("bare/c2i.pt"), *open_weights(box_.file("toy/llamagen.safetensors")),
                           {.wrapper = "model", .has_training_state = true});
    write_text(path("bare/config.json"), R"({"n_head": 2})");
  }

  void write_features(const std::string& name, float start) const {
    std::vector<float> values;
    for (int64_t i = 0; i < 3 * kToyCaptionWidth; ++i) values.push_back(start + 0.1f * static_cast<float>(i));
    const NamedTensor tensor{
        "features", {reinterpret_cast<const std::byte*>(values.data()), DType::kF32, {3, kToyCaptionWidth}}};
    write_safetensors(path(name), {&tensor, 1});
  }
};

TEST_F(CliModels, ABareCheckpointDrawsAndVerifies) {
  for (const char* model : {"bare/c2i.pt", "bare/"}) {
    const auto made = json_of({"image", "-m", model, "--image-size", "16", "--class", "2", "-o", "x.png",
                               "--overwrite", "--cfg", "2", "--top-k", "0", "--dtype", "f32"},
                              "volley.image.1.json");
    const auto boxed = json_of({"image", "-m", "toy", "--class", "animal-bird", "--decoder", "jacobi", "-o",
                                "y.png", "--overwrite", "--dtype", "f32"},
                               "volley.image.1.json");
    EXPECT_EQ(made["request"]["class"], "2");
    EXPECT_EQ(made["pictures"][0]["token_hash"], boxed["pictures"][0]["token_hash"]);
    const auto x = image::decode_png(as_bytes(read_text(path("x.png"))));
    const auto y = image::decode_png(as_bytes(read_text(path("y.png"))));
    ASSERT_TRUE(x.ok() && y.ok());
    EXPECT_EQ(x.value(), y.value());
    EXPECT_EQ(json_of({"verify", "x.png", "-m", model}, "volley.verify.1.json")["identical"], true);
  }
  expect_failure(volley({"image", "-m", "bare/c2i.pt", "--class", "207"}), 2, "--class '207'");
  expect_failure(volley({"image", "-m", "bare/vq_ds16_c2i.pt", "--class", "1"}), 2, "is a tokenizer");
  std::filesystem::remove(path("bare/vq_ds16_c2i.pt"));
  expect_failure(volley({"image", "-m", "bare/c2i.pt", "--class", "1"}), 4,
                 "volley models pull llamagen-vq16 gets it, --vq names one");
}

TEST_F(CliModels, AGgufFileIsDescribed) {
  const GgufImage image{
      .metadata = {{"general.architecture", gguf::text("qwen2")}},
      .tensors = {{.name = "token_embd.weight",
                   .type = kGgufQ8_0,
                   .shape = {3, 64},
                   .bytes = q8_0_blocks(std::vector<float>(192, 0.5f))},
                  {.name = "output_norm.weight", .shape = {4}, .bytes = std::string(16, '\0')}}};
  write_text(path("a.gguf"), image.bytes());
  const auto weights = json_of({"models", "info", "a.gguf"}, "volley.models.1.json")["weights"]["model"];
  EXPECT_EQ(weights["family"], "qwen2");
  EXPECT_EQ(weights["tensors"], 2);
  EXPECT_EQ(weights["parameters"], 196);
  EXPECT_EQ(weights["bytes"], 6 * 34 + 16);
  EXPECT_EQ(weights["dtypes"], (nlohmann::json{{"f32", 4}, {"q8_0", 192}}));
}

TEST_F(CliModels, AnAssumedSizeIsSaid) {
  EXPECT_NE(volley({"models", "info", "bare/c2i.pt"}).out.find("256x256 pixels of 128x128 codes (assumed)"),
            std::string::npos);
  EXPECT_EQ(volley({"models", "info", "bare/c2i.pt", "--image-size", "16"}).out.find("assumed"),
            std::string::npos);
}

TEST_F(CliModels, PullingSaysWhatIsThereAndWhatNamesAre) {
  expect_failure(volley({"models", "pull", "toy"}), 2, "'toy': is in the box, in ");
  expect_failure(volley({"models", "pull", "toy"}), 2, "; there is nothing to pull");
  expect_failure(volley({"models", "remove", "toy"}), 2, "; there is nothing to remove");
  expect_failure(volley({"models", "pull"}), 2,
                 "volley: models pull: name is missing: a published model, see volley models list");
  expect_failure(volley({"models", "remove"}), 2, "volley: models remove: name is missing: a pulled model");
  expect_failure(volley({"verify"}), 2,
                 "volley: verify: file is missing: picture, animation or step map that volley made");
}

TEST_F(CliModels, CaptionsNeedTheirFeatures) {
  std::filesystem::remove(path("bare/c2i.pt"));
  write_toy_caption_checkpoint(path("bare/t2i.safetensors"));
  write_features("red.safetensors", 0.5f);
  write_features("blue.safetensors", -0.5f);
  const std::vector<std::string> base{"image", "-m", "bare/t2i.safetensors", "--image-size", "16"};
  const auto with = [&](std::vector<std::string> more) {
    std::vector<std::string> all = base;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  expect_failure(volley(with({"a red apple"})), 2, "volley has no such encoder: give --text-features FILE");
  expect_failure(volley(with({"--class", "1"})), 2, "draws captions, not classes");
  expect_failure(volley({"image", "-m", "toy", "bird", "--text-features", "red.safetensors"}), 2,
                 "draws classes, not captions");
  const auto red = json_of(with({"a red apple", "--text-features", "red.safetensors", "-o", "red.png"}),
                           "volley.image.1.json");
  const auto blue =
      json_of(with({"--text-features", "blue.safetensors", "-o", "blue.png"}), "volley.image.1.json");
  EXPECT_EQ(red["request"]["prompt"], "a red apple");
  EXPECT_FALSE(red["request"].contains("class"));
  EXPECT_NE(red["pictures"][0]["token_hash"], blue["pictures"][0]["token_hash"]);
  json_of({"info", "red.png"}, "volley.info.1.json");
  EXPECT_NE(volley({"info", "red.png"}).out.find("text         features "), std::string::npos);
  const std::vector<std::string> check{"verify", "red.png", "-m", "bare/t2i.safetensors", "--text-features"};
  const auto verify = [&](const std::string& file) {
    std::vector<std::string> all = check;
    all.push_back(file);
    return all;
  };
  EXPECT_EQ(json_of(verify("red.safetensors"), "volley.verify.1.json")["identical"], true);
  EXPECT_EQ(json_of(verify("blue.safetensors"), "volley.verify.1.json", 1)["identical"], false);
  expect_failure(volley({"verify", "red.png", "-m", "bare/t2i.safetensors"}), 2,
                 "--text-features names their file");
}

TEST_F(CliModels, InfoSaysWhatAModelNeeds) {
  const auto info = json_of({"models", "info", "bare/c2i.pt", "--image-size", "16"}, "volley.models.1.json");
  EXPECT_EQ(info["name"], "c2i");
  EXPECT_EQ(info["weights"]["llamagen"]["family"], "llamagen c2i");
  const int64_t parameters = info["weights"]["llamagen"]["parameters"].get<int64_t>() +
                             info["weights"]["vq"]["parameters"].get<int64_t>();
  EXPECT_EQ(info["memory"]["f32"], 4 * parameters);
  EXPECT_LT(info["memory"]["bf16"], info["memory"]["f32"]);
  EXPECT_LT(info["memory"]["q8_0"], info["memory"]["bf16"]);
  EXPECT_EQ(info["memory"]["cache_per_picture"], 4 * 2 * 2 * 16 * 65);
  // Without its tokenizer a transformer is a list of tensors.
  std::filesystem::remove(path("bare/vq_ds16_c2i.pt"));
  const auto alone = json_of({"models", "info", "bare/c2i.pt"}, "volley.models.1.json");
  EXPECT_EQ(alone["weights"]["model"]["family"], "llamagen c2i");
}

TEST_F(CliModels, SelftestPassesAndFails) {
  const auto toy = json_of({"models", "selftest", "-m", "toy", "-d", "cpu-reference", "--dtype", "f32"},
                           "volley.selftest.1.json");
  ASSERT_EQ(toy["runs"].size(), 2u);
  EXPECT_EQ(toy["runs"][0]["compared"], false);
  nlohmann::json config = read_json_file(box_.file("toy/config.json"));
  config["selftest"] = {{"llamagen", toy["runs"][0]["token_hash"]}, {"arpg", toy["runs"][1]["token_hash"]}};
  write_text(box_.file("toy/config.json"), config.dump());
  const auto stored = json_of({"models", "selftest", "-m", "toy"}, "volley.selftest.1.json");
  ASSERT_EQ(stored["runs"].size(), 4u);
  EXPECT_EQ(stored["runs"][1]["compared"], true);
  config["selftest"]["arpg"] = std::string(64, '0');
  write_text(box_.file("toy/config.json"), config.dump());
  expect_failure(volley({"models", "selftest", "-m", "toy"}), 1, "hash of its tokens: expected 0000");
  json_of({"models", "selftest", "-m", "bare/c2i.pt", "--image-size", "16"}, "volley.selftest.1.json");
  const auto emoji = json_of({"models", "selftest"}, "volley.selftest.1.json");
  EXPECT_EQ(emoji["runs"][1]["compared"], true) << "the card of the model in the box has no hash";
}

// A converted model gives the tokens and pixels of the model it was made from, in that storage.
TEST_F(CliModels, AConvertedModelDrawsTheSame) {
  for (const char* dtype : {"bf16", "q8_0", "q4_1"}) {
    const std::string folder = std::string("packed-") + dtype;
    const auto converted =
        json_of({"models", "convert", "-m", "toy", "-o", folder, "--dtype", dtype}, "volley.convert.1.json");
    EXPECT_EQ(converted["files"].size(), 3u);
    for (const char* decoder : {"jacobi", "parallel"}) {
      const auto draw = [&](const std::string& model, const std::string& out, bool states_storage) {
        std::vector<std::string> arguments{"image",     "-m",    model, "--class", "animal-bird",
                                           "--decoder", decoder, "-o",  out,       "--overwrite"};
        if (states_storage) arguments.insert(arguments.end(), {"--dtype", dtype});
        return json_of(arguments, "volley.image.1.json");
      };
      const auto expected = draw("toy", "a.png", true), made = draw(folder, "b.png", false);
      EXPECT_EQ(made["dtype"], dtype);
      EXPECT_EQ(made["pictures"][0]["token_hash"], expected["pictures"][0]["token_hash"]);
      const auto a = image::decode_png(as_bytes(read_text(path("a.png"))));
      const auto b = image::decode_png(as_bytes(read_text(path("b.png"))));
      ASSERT_TRUE(a.ok() && b.ok());
      EXPECT_EQ(a.value(), b.value());
      EXPECT_EQ(json_of({"verify", "b.png", "-m", folder}, "volley.verify.1.json")["identical"], true);
    }
    expect_failure(volley({"image", "-m", folder, "--class", "animal-bird", "--dtype", "f32"}), 2,
                   std::string("are packed as ") + dtype);
    expect_failure(volley({"image", "-m", folder, "--class", "animal-bird", "-d", "cpu-reference"}), 1,
                   "cpu-reference reads");
    expect_failure(volley({"models", "convert", "-m", "toy", "-o", folder}), 2, "exists already");
    expect_failure(volley({"models", "convert", "-m", folder, "-o", "again"}), 2, "is packed already");
    EXPECT_EQ(json_of({"models", "selftest", "-m", folder}, "volley.selftest.1.json")["runs"].size(), 2u);
    const auto info = json_of({"models", "info", folder}, "volley.models.1.json");
    const auto plain = json_of({"models", "info", "toy"}, "volley.models.1.json");
    for (const char* role : {"llamagen", "arpg"}) {
      EXPECT_EQ(info["weights"][role]["parameters"], plain["weights"][role]["parameters"]) << role;
    }
    EXPECT_EQ(info["memory"].size(), 2u);  // of this storage, and the cache
    EXPECT_TRUE(info["memory"].contains(dtype));
  }
  expect_failure(volley({"models", "convert", "-m", "toy", "-o", "f", "--dtype", "f32"}), 2, "--dtype f32");
  std::ofstream(box_.file("words.gguf")) << "GGUF";
  expect_failure(volley({"models", "convert", "-m", box_.file("words.gguf"), "-o", "f"}), 2,
                 "words.gguf: a text model, which volley text reads as it is");
  expect_failure(volley({"models", "convert", "-m", "toy", "-o", "f", "-d", "cpu-reference"}), 2,
                 "reads no packed weights");
  expect_failure(volley({"models", "convert", "-m", "toy", "-o", "missing/f"}), 1, "cannot make the folder");
}

TEST_F(CliModels, AConvertedCheckpointKnowsItsNames) {
  write_toy_class_checkpoint(path("bare/c2i.safetensors"), 1000);
  std::filesystem::remove(path("bare/c2i.pt"));
  json_of({"models", "convert", "-m", "bare/c2i.safetensors", "--image-size", "16", "-o", "packed"},
          "volley.convert.1.json");
  std::filesystem::remove_all(path("bare"));
  const auto made =
      json_of({"image", "-m", "packed", "golden retriever", "-o", "x.png"}, "volley.image.1.json");
  EXPECT_EQ(made["request"]["class"], "207");
  expect_failure(volley({"image", "-m", "packed", "golden retreiver"}), 2, "golden retriever");
  EXPECT_NE(volley({"models", "info", "packed"}).out.find("1000 names"), std::string::npos);
}

TEST_F(CliModels, AConvertedCheckpointIsAModelOfItsOwn) {
  json_of({"models", "convert", "-m", "bare/c2i.pt", "--image-size", "16", "-o", "packed"},
          "volley.convert.1.json");
  std::filesystem::remove_all(path("bare"));
  const auto made =
      json_of({"image", "-m", "packed", "--class", "2", "-o", "x.png", "--cfg", "2", "--top-k", "0"},
              "volley.image.1.json");
  EXPECT_EQ(made["dtype"], "bf16");
  // A broken file of weights leaves nothing behind.
  write_text(path("broken.safetensors"), "no weights");
  volley({"models", "convert", "-m", "broken.safetensors", "-o", "none"});
  EXPECT_FALSE(std::filesystem::exists(path("none")));
  for (const auto& entry : std::filesystem::directory_iterator(path("."))) {
    EXPECT_EQ(entry.path().filename().string().find("none"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace volley::test
