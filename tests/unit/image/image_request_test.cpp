#include "image/image_request.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

class ChooseMethod : public testing::Test {
 protected:
  ChooseMethod() {
    test::write_toy_model_folder(folder_.path().string());
    card_ = read_image_card(folder_.path().string());
  }

  ImageRequest choose(const MethodChoices& choices, Check check = Check::kNo) {
    ImageRequest request{.check = check};
    choose_method(card_, choices, request);
    return request;
  }
  std::string message(const MethodChoices& choices, Check check = Check::kNo) {
    try {
      choose(choices, check);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  test::TempFolder folder_;
  ImageCard card_;
};

TEST_F(ChooseMethod, TheCardFillsWhatIsNotSaid) {
  const ImageRequest request = choose({.decoder = "parallel"});
  EXPECT_EQ(decoder_text(request.decoder), "parallel:order=random,schedule=arccos,steps=16");
  EXPECT_EQ(request.cfg, 3.0);
  EXPECT_EQ(request.guidance, GuidanceSchedule::Kind::kLinear);
  EXPECT_EQ(request.top_k, 8);
  const ImageRequest jacobi = choose({.decoder = "jacobi:window=4", .cfg = 1.5});
  EXPECT_EQ(decoder_text(jacobi.decoder), "jacobi:init=repeat,length=fixed,window=4");
  EXPECT_EQ(jacobi.cfg, 1.5);
  EXPECT_EQ(jacobi.guidance, GuidanceSchedule::Kind::kConstant);
  EXPECT_EQ(jacobi.top_k, 0);
}

TEST_F(ChooseMethod, AutoIsNeverOneThatCannotBeHad) {
  EXPECT_EQ(decoder_text(choose({}).decoder), "jacobi:init=repeat,length=adaptive,window=16");
  EXPECT_EQ(decoder_text(choose({.shows_steps = true}).decoder), "jacobi:init=repeat,length=fixed,window=16");
  EXPECT_EQ(decoder_text(choose({.decoder = "auto"}).decoder), decoder_text(choose({}).decoder));
  EXPECT_EQ(choose({}, Check::kYes).decoder.name, "jacobi");
  EXPECT_EQ(choose({.steps = 4}).decoder.name, "parallel");
  card_.llamagen.reset();
  EXPECT_EQ(choose({}).decoder.name, "parallel");
  card_ = read_image_card(folder_.path().string());
  card_.arpg.reset();
  EXPECT_EQ(choose({}).decoder.name, "jacobi");
  EXPECT_EQ(message({.decoder = "parallel"}), "--decoder parallel: model toy has no arpg transformer");
}

TEST_F(ChooseMethod, RefusesWhatDoesNotGoTogether) {
  EXPECT_EQ(decoder_text(choose({.steps = 5}).decoder), "parallel:order=random,schedule=arccos,steps=5");
  EXPECT_EQ(message({.decoder = "sequential", .steps = 5}),
            "--steps: decoder sequential has no steps; only parallel has");
  EXPECT_EQ(message({.decoder = "parallel:steps=4", .steps = 5}),
            "--steps: --decoder states steps as well; give one of the two");
  EXPECT_NE(message({.decoder = "parallel"}, Check::kYes).find("promises no sequential tokens"),
            std::string::npos);
  EXPECT_NE(message({.decoder = "tree:accept=rejection"}, Check::kYes).find("promises no"),
            std::string::npos);
  EXPECT_NE(message({.decoder = "draft"}).find("needs a draft model"), std::string::npos);
  EXPECT_NE(message({.decoder = "masked"}).find("needs a masked model"), std::string::npos);
  EXPECT_NE(message({.decoder = "diffusion"}).find("needs a masked model"), std::string::npos);
  EXPECT_NE(message({.decoder = "jakobi"}).find("nearest is jacobi"), std::string::npos);
  EXPECT_NE(message({.decoder = "jacobi:windows=3"}).find("window"), std::string::npos);
}

TEST(ImageRequest, SurvivesJson) {
  const ImageRequest request{.model = "toy",
                             .prompt = "red apple",
                             .class_name = "food-fruit",
                             .class_id = 3,
                             .count = 9,
                             .only = {1, 4, 8},
                             .seed = 0xffffffffffffff00,
                             .decoder = parse_decoder_spec("tree:accept=coupled,ngram=3,widths=2x2"),
                             .cfg = 1.1,
                             .guidance = GuidanceSchedule::Kind::kInterval,
                             .cfg_interval = 12,
                             .temperature = 0.7,
                             .top_k = 5,
                             .top_p = 0.9,
                             .check = Check::kYes};
  const nlohmann::json json = to_json(request);
  const ImageRequest again = read_request(JsonFields(json, "request"), "request");
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.seed, request.seed);
  EXPECT_EQ(again.cfg, request.cfg);
  EXPECT_EQ(again.items(), request.only);
  EXPECT_EQ(again.cfg_interval, 12);
  EXPECT_EQ(again.check, Check::kYes);
  EXPECT_EQ(decoder_text(again.decoder), decoder_text(request.decoder));
}

TEST(ImageRequest, WordsAloneSurviveJson) {
  const nlohmann::json json =
      to_json(ImageRequest{.model = "m", .prompt = "red apple", .decoder = {.name = "sequential"}});
  EXPECT_FALSE(json.contains("class"));
  const ImageRequest again = read_request(JsonFields(json, "r"), "r");
  EXPECT_TRUE(again.is_text());
  EXPECT_EQ(again.subject(), "'red apple'");
  nlohmann::json nothing = json;
  nothing.erase("prompt");
  EXPECT_THROW(read_request(JsonFields(nothing, "r"), "r"), Error);
}

TEST(ImageRequest, RefusesBadJson) {
  const nlohmann::json good =
      to_json(ImageRequest{.model = "m", .class_name = "c", .decoder = {.name = "sequential"}});
  EXPECT_NO_THROW(read_request(JsonFields(good, "r"), "r"));
  const auto refuses = [&](const char* key, nlohmann::json value) {
    nlohmann::json bad = good;
    bad[key] = std::move(value);
    try {
      read_request(JsonFields(bad, "r"), "r");
      ADD_FAILURE() << key;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFailed) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with("r: key '" + std::string(key) + "': "))
          << error.what();
      EXPECT_EQ(std::string(error.what()).find("--"), std::string::npos) << "no flag: " << error.what();
    }
  };
  refuses("count", 0);
  refuses("count", 1e30);
  refuses("seed", -1);
  refuses("seed", "0");
  refuses("decoder", "nonsense");
  refuses("decoder", "sequential:a=b");
  refuses("decoder", "masked");
  refuses("decoder", "jacobi:window");
  refuses("guidance", "steep");
  refuses("temperature", -1.0);
  refuses("top_p", 2);
  refuses("only", {0, 0});
  refuses("count", kMaxCount + 1);
  refuses("only", {5});
  refuses("class", "");
}

}  // namespace
}  // namespace volley::image
