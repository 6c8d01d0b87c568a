#include "apps/memory_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/error.h"

namespace volley::apps {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::ThrowsMessage;

MemoryCheck check(int64_t free, int64_t copies = 1) {
  return {.plan = {.weights = 600, .caches = 300, .working = 100, .batch = 8},
          .devices = {{.name = "cuda:0", .free = int64_t{1} << 40},
                      {.name = "cuda:1", .copies = copies, .free = free}},
          .smaller_caches = "--batch below 8",
          .smaller_types = "bf16 or q8_0"};
}

TEST(MemoryCheckTest, TooLittleIsOneLineThatNamesDeviceAndBytes) {
  check(1000).require();
  check(0).require();  // not known
  EXPECT_THAT(
      [] { check(999).require(); },
      ThrowsMessage<Error>("cuda:1: too little memory: 1000 bytes needed (weights 600, caches 300, working "
                           "memory 100), 999 free; --batch below 8 takes smaller caches, --dtype bf16 or "
                           "q8_0 smaller weights"));
  MemoryCheck smallest = check(999);
  smallest.smaller_caches.clear();
  smallest.smaller_types.clear();
  EXPECT_THAT([&] { smallest.require(); }, ThrowsMessage<Error>(EndsWith("999 free")));
  EXPECT_THAT([] { check(1999, 2).require(); }, ThrowsMessage<Error>(HasSubstr("2000 bytes needed")));
  check(2000, 2).require();
}

TEST(MemoryCheckTest, AModelTwiceOnADeviceCountsTwice) {
  EXPECT_EQ(check(5, 2).json()[1]["total"], 2000);
  EXPECT_EQ(check(5, 2).json()[0]["total"], 1000);
  EXPECT_EQ(check(5).lines().size(), 2u);
}

}  // namespace
}  // namespace volley::apps
