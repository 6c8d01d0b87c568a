#include "apps/image_flags.h"

#include <gtest/gtest.h>

namespace volley::apps {
namespace {

TEST(BatchFor, KeepsRunsOfAProcessorInterruptible) {
  const auto backend = make_backend("cpu", 1);
  ImageFlags flags;
  EXPECT_EQ(batch_for(flags, *backend), image::kProcessorBatch);
  EXPECT_LT(image::kProcessorBatch, image::kImageBatch);
  flags.batch = 3;
  EXPECT_EQ(batch_for(flags, *backend), 3);
}

}  // namespace
}  // namespace volley::apps
