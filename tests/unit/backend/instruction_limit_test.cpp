// A program of its own: the limit is for the whole process and comes before the first backend.
#include <gtest/gtest.h>

#include "core/backend/cpu/cpu_backend.h"
#include "hwy/targets.h"

namespace volley::testing {
namespace {

// Without the limit the first fails where there is AVX-512, the second where there are products of bf16.
TEST(InstructionLimit, NothingBeyondAvx2IsUsed) {
  limit_to_avx2();
  EXPECT_EQ(hwy::SupportedTargets() & (HWY_AVX3 | HWY_AVX3_DL), 0);
  EXPECT_FALSE(make_cpu_backend(1)->info().has_bf16);
}

}  // namespace
}  // namespace volley::testing
