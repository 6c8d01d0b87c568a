#include "image/memory_plan.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/backend/plan_backend.h"
#include "image/image_job.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

// How far the plan may be from what is then allocated: weights are padded in other ways, and each thread has
// working memory for single operations.
constexpr double kShare = 0.02;
constexpr int64_t kThreads = 2;
constexpr int64_t kBytes = kThreads * (int64_t{2} << 20);
constexpr double kRounding = 128;  // of single allocations

void expect_planned(const ImageCard& card, const ImageRequest& request, const std::string& device,
                    WeightType type, int64_t batch) {
  const auto backend = make_backend(device, kThreads);
  const MemoryPlan plan =
      plan_memory(card, request, {.backend = backend, .weight_type = type, .batch = batch});
  EXPECT_EQ(backend->peak_bytes(), 0) << "nothing is allocated";
  const ImageModel model(
      card, {.backend = backend, .weight_type = type, .transformer = transformer_for(request.decoder)});
  const auto near = [](int64_t planned, int64_t found) {
    return static_cast<double>(std::abs(planned - found)) <= kShare * static_cast<double>(found) + kBytes;
  };
  EXPECT_PRED2(near, plan.weights, backend->allocated_bytes());
  EXPECT_NEAR(static_cast<double>(plan.caches),
              static_cast<double>(cache_bytes(model, request, std::min<int64_t>(batch, request.count))),
              kRounding);
  const int64_t loaded = backend->allocated_bytes();
  ImageObserver observer;
  run_image(model, request, {.observer = &observer}, batch);
  EXPECT_PRED2(near, plan.total(), backend->peak_bytes());
  // The reference has no working memory of its own.
  if (device == "cpu-reference") {
    EXPECT_NEAR(static_cast<double>(plan.caches + plan.working),
                static_cast<double>(backend->peak_bytes() - loaded), 100 * kRounding);
  }
}

ImageRequest request_of(const ImageCard& card, const std::string& decoder, int64_t count) {
  ImageRequest made{.model = card.name, .class_name = card.classes[2], .class_id = 2, .count = count};
  choose_method(card, {.decoder = decoder}, made);
  return made;
}

class MemoryPlanTest : public testing::TestWithParam<const char*> {};

TEST_P(MemoryPlanTest, IsWhatARunAllocates) {
  const test::TempFolder folder;
  test::write_toy_model_folder(folder.path().string());
  const ImageCard card = read_image_card(folder.path().string());
  for (const char* decoder : {"sequential", "jacobi:window=6", "parallel:steps=9", "parallel:steps=2"}) {
    for (int64_t count : {1, 5, 64}) {
      SCOPED_TRACE(std::string(decoder) + ", " + std::to_string(count));
      expect_planned(card, request_of(card, decoder, count), GetParam(), WeightType::kF32, 16);
    }
  }
  ImageRequest checked = request_of(card, "jacobi", 3);
  checked.check = Check::kYes;
  expect_planned(card, checked, GetParam(), WeightType::kBF16, 16);
}

INSTANTIATE_TEST_SUITE_P(Devices, MemoryPlanTest, testing::Values("cpu", "cpu-reference"));

// Of networks of these sizes working memory is the larger part.
TEST(BoxedModelMemoryPlan, IsWhatARunAllocates) {
  const ImageCard card = read_image_card(VOLLEY_SOURCE_DIR "/assets/models/emoji-128");
  for (const WeightType type : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0}) {
    SCOPED_TRACE(std::string(weight_type_name(type)));
    expect_planned(card, request_of(card, "parallel:steps=4", 3), "cpu", type, 64);
  }
}

}  // namespace
}  // namespace volley::image
