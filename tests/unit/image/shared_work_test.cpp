// Pictures that several devices make together.
#include "image/shared_work.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <thread>

#include "core/base/error.h"
#include "tests/support/forwarding_backend.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

// `cpu` under another name, whose memory may come to an end.
class NamedDevice : public test::ForwardingBackend {
 public:
  explicit NamedDevice(std::string name) : ForwardingBackend(make_backend("cpu", 1)), info_(inner().info()) {
    info_.name = std::move(name);
  }
  void fail_from(int64_t allocation) { left_ = allocation; }

  const DeviceInfo& info() const override { return info_; }
  Buffer allocate(int64_t bytes) const override {
    if (left_-- == 0) throw Error(info_.name + ": too little memory");
    return inner().allocate(bytes);
  }

 private:
  DeviceInfo info_;
  mutable std::atomic<int64_t> left_ = -1;
};

// Expects to be called on the thread that made it, one step of a picture after the other.
class Recorder : public ImageObserver {
 public:
  void on_step(const StepEvent& event) override {
    EXPECT_EQ(std::this_thread::get_id(), thread);
    const int64_t step = steps[event.generation]++;
    EXPECT_EQ(event.step, step);
    workers[event.generation].insert(event.worker);
    for (size_t i = 0; i < event.positions.size(); ++i)
      tokens[event.generation][event.positions[i]] = event.tokens[i];
    if (stop_after >= 0 && ++seen > stop_after) stop.request_stop();
  }
  void on_picture(const ImagePicture& picture) override {
    EXPECT_EQ(std::this_thread::get_id(), thread);
    EXPECT_TRUE(pictures.emplace(picture.index, picture).second) << "delivered twice";
    if (fails_at == std::ssize(pictures)) throw Error("the disk is full");
  }
  void on_check(const CheckOutcome& outcome) override { checks.push_back(outcome); }

  std::thread::id thread = std::this_thread::get_id();
  int64_t seen = 0;
  int64_t stop_after = -1;
  int64_t fails_at = -1;
  std::stop_source stop;
  std::map<int64_t, int64_t> steps;
  std::map<int64_t, std::set<int64_t>> workers;
  std::map<int64_t, std::map<int32_t, int32_t>> tokens;
  std::map<int64_t, ImagePicture> pictures;
  std::vector<CheckOutcome> checks;
};

class SharedWork : public testing::Test {
 protected:
  SharedWork() { test::write_toy_model_folder(folder_.path().string()); }

  ImageRequest request(const std::string& decoder, int64_t count) {
    const ImageCard card = read_image_card(folder_.path().string());
    ImageRequest made{
        .model = card.name, .class_name = "animal-bird", .class_id = 2, .count = count, .seed = 11};
    choose_method(card, {.decoder = decoder}, made);
    return made;
  }

  // The model on devices of these names.
  void load(const ImageRequest& request, std::vector<std::string> names) {
    devices_.clear();
    models_.clear();
    for (std::string& name : names) {
      devices_.push_back(std::make_shared<NamedDevice>(std::move(name)));
      if (models_.empty()) {
        models_.push_back(std::make_unique<const ImageModel>(
            read_image_card(folder_.path().string()),
            ImageModel::Options{.backend = devices_.back(),
                                .transformer = transformer_for(request.decoder)}));
      } else {
        models_.push_back(std::make_unique<const ImageModel>(*models_.front(), devices_.back()));
      }
    }
  }

  ImageResult run(const ImageRequest& request, Recorder& recorder, int64_t batch = kImageBatch) {
    std::vector<const ImageModel*> models;
    for (const auto& model : models_) models.push_back(model.get());
    return run_image(models, request, {.observer = &recorder, .stop = recorder.stop.get_token()}, batch);
  }

  test::TempFolder folder_;
  std::vector<std::shared_ptr<NamedDevice>> devices_;
  std::vector<std::unique_ptr<const ImageModel>> models_;
};

TEST(BatchQueueTest, EveryWorkerHasAsMuchToDo) {
  struct Case {
    int64_t items, workers, most;
    std::vector<int64_t> sizes;
  };
  for (const Case& c : std::vector<Case>{{5, 2, 64, {3, 2}},
                                         {64, 2, 64, {32, 32}},
                                         {130, 2, 64, {33, 33, 33, 31}},
                                         {3, 4, 64, {1, 1, 1}},
                                         {65, 1, 64, {33, 32}},
                                         {7, 3, 1, {1, 1, 1, 1, 1, 1, 1}}}) {
    std::vector<int64_t> items(static_cast<size_t>(c.items)), taken, sizes;
    for (size_t i = 0; i < items.size(); ++i) items[i] = static_cast<int64_t>(3 * i);
    BatchQueue queue(items, {.workers = c.workers, .most = c.most});
    for (auto batch = queue.take(); !batch.empty(); batch = queue.take()) {
      sizes.push_back(std::ssize(batch));
      taken.insert(taken.end(), batch.begin(), batch.end());
    }
    EXPECT_EQ(sizes, c.sizes);
    EXPECT_EQ(taken, items);
    EXPECT_TRUE(queue.take().empty());
  }
}

TEST_F(SharedWork, PicturesAreThoseOfOneDevice) {
  for (const char* decoder : {"sequential", "jacobi:window=6", "parallel:steps=9"}) {
    SCOPED_TRACE(decoder);
    ImageRequest made = request(decoder, 7);
    load(made, {"one"});
    Recorder alone;
    const ImageResult expected = run(made, alone, 2);
    for (const auto& names : std::vector<std::vector<std::string>>{{"one", "two"}, {"one", "two", "three"}}) {
      load(made, names);
      for (int64_t batch : {kImageBatch, int64_t{1}}) {
        Recorder together;
        const ImageResult result = run(made, together, batch);
        EXPECT_FALSE(result.interrupted);
        ASSERT_EQ(together.pictures.size(), 7u);
        ASSERT_EQ(result.pictures.size(), 7u);
        EXPECT_EQ(result.statistics.tokens, expected.statistics.tokens);
        EXPECT_EQ(result.statistics.rows, expected.statistics.rows);
        EXPECT_EQ(result.weights, expected.weights);
        for (int64_t i = 0; i < 7; ++i) {
          const ImagePicture &one = alone.pictures.at(i), &other = together.pictures.at(i);
          EXPECT_EQ(one.tokens, other.tokens);
          EXPECT_EQ(one.token_hash, other.token_hash);
          EXPECT_EQ(one.picture, other.picture);
          EXPECT_EQ(one.seed, other.seed);
          EXPECT_EQ(alone.tokens[i], together.tokens[i]);
          EXPECT_EQ(alone.steps[i], together.steps[i]);
          const PictureInfo& info = result.pictures[static_cast<size_t>(i)];
          EXPECT_EQ(info.index, i);
          EXPECT_EQ(info.device, other.device);
          EXPECT_EQ(together.workers[i].size(), 1u) << "one of them makes all of a picture";
          EXPECT_EQ(other.device, names[static_cast<size_t>(*together.workers[i].begin())]);
        }
      }
    }
    EXPECT_EQ(run(made, *std::make_unique<Recorder>()).device, "one,two,three");
  }
}

TEST_F(SharedWork, ChecksComeInOrder) {
  ImageRequest made = request("jacobi", 5);
  made.check = Check::kYes;
  load(made, {"one", "two"});
  Recorder recorder;
  const ImageResult result = run(made, recorder, 1);
  ASSERT_EQ(result.checks.size(), 5u);
  EXPECT_EQ(recorder.checks.size(), 5u);
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(result.checks[static_cast<size_t>(i)].index, i);
  EXPECT_TRUE(result.is_check_equal());
  EXPECT_FALSE(result.interrupted);
}

TEST_F(SharedWork, TheRecordNamesWhoMadeIt) {
  const ImageRequest made = request("sequential", 4);
  load(made, {"one", "two"});
  const auto record = [&](std::vector<std::string> makers) {
    std::vector<ImagePicture> pictures;
    for (std::string& maker : makers)
      pictures.push_back({.index = std::ssize(pictures), .device = std::move(maker)});
    return make_run_record(*models_.front(), made, pictures, {}).device;
  };
  EXPECT_EQ(record({"two"}), "two");
  EXPECT_EQ(record({"two", "one", "two"}), "one,two");
}

TEST_F(SharedWork, ADeviceThatFailsIsNamedAndWhatIsFinishedIsKept) {
  const ImageRequest made = request("sequential", 40);
  load(made, {"one"});
  Recorder alone;
  run(made, alone);
  for (int64_t allocation : {0, 3, 6}) {
    load(made, {"one", "two"});
    devices_[1]->fail_from(allocation);
    Recorder recorder;
    try {
      run(made, recorder, 2);
      ADD_FAILURE() << "all pictures were made";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "two: too little memory");
    }
    EXPECT_LT(recorder.pictures.size(), 40u);
    for (const auto& [index, picture] : recorder.pictures)
      EXPECT_EQ(picture.picture, alone.pictures.at(index).picture);
  }
}

TEST_F(SharedWork, StoppingKeepsWhatIsFinished) {
  const ImageRequest made = request("sequential", 200);
  load(made, {"one", "two"});
  Recorder recorder;
  recorder.stop_after = 6 * test::kToyTokens;
  const ImageResult result = run(made, recorder, 1);
  EXPECT_TRUE(result.interrupted);
  EXPECT_GT(result.pictures.size(), 0u);
  EXPECT_LT(result.pictures.size(), 200u);
  ASSERT_EQ(recorder.pictures.size(), result.pictures.size());
  for (const PictureInfo& info : result.pictures) EXPECT_TRUE(recorder.pictures.contains(info.index));
  Recorder stopped;
  stopped.stop.request_stop();
  EXPECT_TRUE(run(made, stopped).pictures.empty());
}

// More than the relay holds is on the way when the observer gives up.
TEST_F(SharedWork, AnObserverThatFailsEndsTheRun) {
  const ImageRequest made = request("sequential", 400);
  load(made, {"one", "two", "three"});
  Recorder recorder;
  recorder.fails_at = 2;
  EXPECT_THROW(run(made, recorder, 1), Error);
  EXPECT_EQ(recorder.pictures.size(), 2u);
}

}  // namespace
}  // namespace volley::image
