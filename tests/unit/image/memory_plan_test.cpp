#include "image/memory_plan.h"

#include <gtest/gtest.h>

#include "core/backend/plan_backend.h"
#include "image/image_job.h"
#include "image/pixel_coder.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

// How far the plan may be beyond what is then allocated, and how far below. A plan does not know how many of
// the keys that a cache has room for are seen: attention on the host keeps the places of 8 rows' keys for
// each thread. Cards count single bytes, plans steps of 64.
constexpr int64_t kThreads = 2;
constexpr int64_t kBeyond = kThreads * (int64_t{64} << 10);
constexpr int64_t kBelow = 4 << 10;  // tables of single operations, such as moves in a cache

void expect_near(int64_t planned, int64_t found, const char* what) {
  EXPECT_LE(planned, found + kBeyond) << what;
  EXPECT_GE(planned, found - kBelow) << what;
}

void expect_planned(const ImageCard& card, const ImageRequest& request, const std::string& device,
                    WeightType type, int64_t batch) {
  const auto backend = make_backend(device, kThreads);
  const MemoryPlan plan =
      plan_memory(card, request, {.backend = backend, .weight_type = type, .batch = batch});
  EXPECT_EQ(backend->peak_bytes(), 0) << "nothing is allocated";
  const ImageModel model(
      card, {.backend = backend, .weight_type = type, .transformer = transformer_for(request.decoder)});
  expect_near(plan.weights, backend->allocated_bytes(), "weights");
  expect_near(plan.caches, cache_bytes(model, request, std::min<int64_t>(batch, request.count)), "caches");
  ImageObserver observer;
  run_image(model, request, {.observer = &observer}, batch);
  expect_near(plan.total(), backend->peak_bytes(), "total");
}

ImageRequest request_of(const ImageCard& card, const std::string& decoder, int64_t count) {
  ImageRequest made{.model = card.name, .class_name = card.classes[2], .class_id = 2, .count = count};
  choose_method(card, {.decoder = decoder}, made);
  return made;
}

class MemoryPlanTest : public testing::TestWithParam<std::string> {};

TEST_P(MemoryPlanTest, IsWhatARunAllocates) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string());
  const ImageCard card = read_image_card(folder.path().string());
  for (const char* decoder : {"sequential", "jacobi:window=6", "parallel:steps=9", "parallel:steps=2"}) {
    for (int64_t count : {1, 5, 64}) {
      if (test::kSanitized && (count > 5 || (count > 1 && GetParam() == "cpu-reference"))) continue;
      SCOPED_TRACE(std::string(decoder) + ", " + std::to_string(count));
      expect_planned(card, request_of(card, decoder, count), GetParam(), WeightType::kF32, 16);
    }
  }
  ImageRequest checked = request_of(card, "jacobi", 3);
  checked.check = Check::kYes;
  expect_planned(card, checked, GetParam(), WeightType::kBF16, 16);
}

// A picture in the making, as previews and animations decode it.
class Onlooker : public ImageObserver {
 public:
  Onlooker(const ImageModel& model, const ImageRequest& request) : maker_(model, request) {}
  void on_step(const StepEvent& event) override {
    maker_.partial(event.generation, std::vector<int32_t>(static_cast<size_t>(event.total), -1));
  }

 private:
  PictureMaker maker_;
};

TEST_P(MemoryPlanTest, KnowsWhoLooksOnAndWhatIsMissing) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string());
  const ImageCard card = read_image_card(folder.path().string());
  ImageRequest request = request_of(card, "parallel:steps=3", 20);
  request.only = {3, 17};
  const auto backend = make_backend(GetParam(), kThreads);
  const MemoryPlanOptions options{.backend = backend, .batch = 16, .watched = Watched::kYes};
  const MemoryPlan plan = plan_memory(card, request, options);
  EXPECT_EQ(plan.batch, 2);
  const ImageModel model(card, {.backend = backend, .transformer = transformer_for(request.decoder)});
  const int64_t loaded = backend->peak_bytes();
  MemoryPlanOptions none = options;
  none.batch = 0;
  expect_near(plan_memory(card, request, none).total(), loaded, "the model alone");
  Onlooker onlooker(model, request);
  run_image(model, request, {.observer = &onlooker}, 16);
  expect_near(plan.total(), backend->peak_bytes(), "total");
}

INSTANTIATE_TEST_SUITE_P(Devices, MemoryPlanTest, testing::ValuesIn(devices()),
                         [](const auto& info) { return test::device_name(info.param); });

class BoxedModelMemoryPlan : public testing::TestWithParam<std::string> {};

// Of networks of these sizes working memory is the larger part.
TEST_P(BoxedModelMemoryPlan, IsWhatARunAllocates) {
  const ImageCard card = read_image_card(VOLLEY_SOURCE_DIR "/assets/models/emoji-128");
  for (const WeightType type : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0}) {
    SCOPED_TRACE(std::string(weight_type_name(type)));
    expect_planned(card, request_of(card, "parallel:steps=4", 3), GetParam(), type, 64);
  }
}

// Without the reference, on which it would take minutes.
std::vector<std::string> fast_devices() {
  std::vector<std::string> names = devices();
  std::erase(names, "cpu-reference");
  return names;
}
INSTANTIATE_TEST_SUITE_P(Devices, BoxedModelMemoryPlan, testing::ValuesIn(fast_devices()),
                         [](const auto& info) { return test::device_name(info.param); });

}  // namespace
}  // namespace volley::image
