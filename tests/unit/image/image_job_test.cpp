#include "image/image_job.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/base/error.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

class Recorder : public ImageObserver {
 public:
  void on_step(const StepEvent& event) override {
    ++steps;
    EXPECT_LE(event.done, event.total);
    if (stop_after >= 0 && steps > stop_after) stop.request_stop();
  }
  void on_picture(const ImagePicture& picture) override {
    EXPECT_TRUE(pictures.emplace(picture.index, picture).second) << "delivered twice";
  }
  void on_check(const CheckOutcome& outcome) override { checks.push_back(outcome); }

  int64_t steps = 0;
  int64_t stop_after = -1;
  std::stop_source stop;
  std::map<int64_t, ImagePicture> pictures;
  std::vector<CheckOutcome> checks;
};

class ImageJob : public testing::Test {
 protected:
  ImageJob() { test::write_toy_model_folder(folder_.path().string()); }

  ImageRequest request(const std::string& decoder, int64_t count, Check check = Check::kNo) {
    const ImageCard card = read_image_card(folder_.path().string());
    ImageRequest made{
        .model = card.name, .class_name = "animal-bird", .class_id = 2, .count = count, .seed = 11};
    made.check = check;
    choose_method(card, {.decoder = decoder}, made);
    return made;
  }

  ImageResult run(const ImageRequest& request, Recorder& recorder, int64_t batch = kImageBatch,
                  int64_t threads = 1) {
    const ImageModel model(
        read_image_card(folder_.path().string()),
        {.backend = make_backend("cpu", threads), .transformer = transformer_for(request.decoder)});
    return run_image(model, request, {.observer = &recorder, .stop = recorder.stop.get_token()}, batch);
  }

  test::TempFolder folder_;
};

TEST_F(ImageJob, ATextEncoderDrawsWordsAndClasses) {
  test::write_toy_model_folder(folder_.path().string(), {.has_text_encoder = true});
  const auto tokens = [&](const std::string& decoder, const std::string& prompt, int64_t count = 1) {
    ImageRequest made = request(decoder, count);
    if (!prompt.empty()) {
      made.prompt = prompt;
      made.class_name.clear();
    }
    EXPECT_EQ(made.is_text(), !prompt.empty());
    Recorder recorder;
    const ImageResult result = run(made, recorder);
    EXPECT_EQ(result.weights.count("text_encoder"), 1u);
    return recorder.pictures.at(0).tokens;
  };
  for (const char* decoder : {"sequential", "parallel:steps=9"}) {
    SCOPED_TRACE(decoder);
    const auto apple = tokens(decoder, "red apple");
    EXPECT_NE(apple, tokens(decoder, "")) << "a class is not its words";
    EXPECT_NE(apple, tokens(decoder, "green apple"));
    EXPECT_NE(apple, tokens(decoder, "apple red")) << "the order of words counts";
    EXPECT_EQ(apple, tokens(decoder, "  RED, apple! "));
    EXPECT_EQ(apple, tokens(decoder, "red apple", 3)) << "in company";
    EXPECT_EQ(tokens(decoder, "one two three"), tokens(decoder, "one two three four")) << "three are read";
  }
  EXPECT_EQ(tokens("sequential", "bird"), tokens("jacobi:window=6", "bird"));
}

TEST_F(ImageJob, PicturesDoNotDependOnTheirCompany) {
  for (const char* decoder : {"sequential", "jacobi:window=6", "parallel:steps=9"}) {
    SCOPED_TRACE(decoder);
    Recorder together, in_twos, on_three_threads;
    const ImageRequest all = request(decoder, 5);
    const ImageResult result = run(all, together);
    run(all, in_twos, 2);
    run(all, on_three_threads, kImageBatch, 3);
    ASSERT_EQ(together.pictures.size(), 5u);
    EXPECT_FALSE(result.interrupted);
    EXPECT_NE(together.pictures.at(0).tokens, together.pictures.at(1).tokens);
    EXPECT_NE(together.pictures.at(0).picture, together.pictures.at(1).picture);
    for (const auto& [index, picture] : together.pictures) {
      EXPECT_EQ(picture.picture, in_twos.pictures.at(index).picture);
      EXPECT_EQ(picture.picture, on_three_threads.pictures.at(index).picture);
      Recorder alone;
      ImageRequest one = all;
      one.only = {index};
      run(one, alone);
      EXPECT_EQ(picture.tokens, alone.pictures.at(index).tokens);
      EXPECT_EQ(picture.picture, alone.pictures.at(index).picture);
      Recorder by_seed;
      one = all;
      one.count = 1;
      one.seed = all.seed + static_cast<uint64_t>(index);
      run(one, by_seed);
      EXPECT_EQ(picture.tokens, by_seed.pictures.at(0).tokens);
    }
  }
}

TEST_F(ImageJob, ResultCountsWhatWasDelivered) {
  Recorder recorder;
  const ImageResult result = run(request("jacobi", 3), recorder);
  ASSERT_EQ(result.pictures.size(), 3u);
  int64_t forwards = 0, rows = 0;
  for (const PictureInfo& info : result.pictures) {
    EXPECT_EQ(info.token_hash, recorder.pictures.at(info.index).token_hash);
    EXPECT_EQ(info.token_hash, hash_tokens(recorder.pictures.at(info.index).tokens));
    EXPECT_EQ(info.seed, 11u + static_cast<uint64_t>(info.index));
    EXPECT_EQ(info.tokens, test::kToyTokens);
    EXPECT_GT(info.rows, info.forwards);
    forwards = std::max(forwards, info.forwards);
    rows += info.rows;
  }
  EXPECT_EQ(result.statistics.rows, rows) << "of both partners of guidance";
  EXPECT_EQ(result.statistics.forwards, forwards) << "one batch";
  EXPECT_EQ(result.statistics.tokens, 3 * test::kToyTokens);
  EXPECT_GT(result.statistics.peak_bytes, 0);
}

TEST_F(ImageJob, ARunIsOneBatchUpToTheBound) {
  Recorder recorder;
  const int64_t forwards = test::kToyTokens - 1;
  EXPECT_EQ(run(request("sequential", kImageBatch), recorder).statistics.forwards, forwards);
  Recorder one_more;
  EXPECT_EQ(run(request("sequential", kImageBatch + 1), one_more).statistics.forwards, 2 * forwards);
  EXPECT_EQ(one_more.pictures.size(), static_cast<size_t>(kImageBatch + 1));
}

TEST_F(ImageJob, CheckComparesWithSequentialDecoding) {
  for (const char* decoder : {"sequential", "jacobi", "lookup", "tree:widths=2x2"}) {
    Recorder recorder;
    const ImageResult result = run(request(decoder, 2, Check::kYes), recorder);
    ASSERT_EQ(result.checks.size(), 2u) << decoder;
    EXPECT_EQ(recorder.checks, result.checks);
    EXPECT_TRUE(result.is_check_equal()) << decoder;
    for (const CheckOutcome& check : result.checks) {
      EXPECT_EQ(check.equal, test::kToyTokens);
      EXPECT_EQ(check.sequential_forwards, test::kToyTokens - 1);
      EXPECT_LE(check.forwards, check.sequential_forwards);
    }
  }
}

TEST_F(ImageJob, StoppingKeepsWhatIsFinished) {
  Recorder recorder;
  recorder.stop_after = 2 * test::kToyTokens + 10;  // in the second batch of two
  const ImageResult result = run(request("sequential", 6), recorder, 2);
  EXPECT_TRUE(result.interrupted);
  EXPECT_EQ(result.pictures.size(), 2u);
  EXPECT_EQ(recorder.pictures.size(), 2u);
}

TEST_F(ImageJob, NoGuidanceNeedsNoPair) {
  Recorder guided, plain;
  ImageRequest with = request("sequential", 2), without = with;
  without.cfg = 1.0;
  const ImageResult guided_result = run(with, guided);
  const ImageResult plain_result = run(without, plain);
  EXPECT_EQ(guided_result.statistics.rows, 2 * plain_result.statistics.rows);
  EXPECT_EQ(guided_result.pictures[0].rows, 2 * guided_result.pictures[0].forwards);
  EXPECT_EQ(plain_result.pictures[0].rows, plain_result.pictures[0].forwards);
  EXPECT_NE(guided.pictures.at(0).tokens, plain.pictures.at(0).tokens);
}

TEST_F(ImageJob, ResultSurvivesJson) {
  Recorder recorder;
  ImageResult result = run(request("jacobi", 2, Check::kYes), recorder);
  result.threads = 2;
  result.load_seconds = 0.25;
  result.pictures.front().file = "out/000.png";
  result.checks.back().position = 3;  // as if it had failed
  result.checks.back().token = 1;
  result.checks.back().sequential_token = 2;
  const nlohmann::json json = to_json(result);
  const ImageResult again = read_image_result(json, "result");
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.pictures, result.pictures);
  EXPECT_EQ(again.checks, result.checks);
  EXPECT_FALSE(again.is_check_equal());
  EXPECT_EQ(again.statistics.accepted, result.statistics.accepted);
}

TEST_F(ImageJob, FfnDimIsThatOfTheWeightsOrUnsaid) {
  ImageCard card = read_image_card(folder_.path().string());
  const ImageModel::Options options{.backend = make_backend("cpu", 1), .transformer = Transformer::kArpg};
  card.arpg->ffn_dim.reset();
  EXPECT_NO_THROW(ImageModel(card, options));
  card.arpg->ffn_dim = 33;
  try {
    const ImageModel model(card, options);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), folder_.file("config.json") + ": arpg: ffn_dim: expected 32 as in " +
                                             folder_.file("arpg.safetensors") +
                                             ", tensor layers.self_dec.0.ffn.w1.weight; found 33");
  }
}

TEST_F(ImageJob, MissingTransformerAndWeightsAreNamed) {
  const ImageCard card = read_image_card(folder_.path().string());
  const ImageModel::Options options{.backend = make_backend("cpu", 1), .transformer = Transformer::kArpg};
  std::filesystem::remove(folder_.file("arpg.safetensors"));
  try {
    const ImageModel model(card, options);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kModelMissing);
    EXPECT_EQ(std::string(error.what()), folder_.file("arpg.safetensors") + ": no such file or folder");
  }
}

}  // namespace
}  // namespace volley::image
