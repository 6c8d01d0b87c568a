#include "core/base/error.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace volley {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Fault{"expected an even number, found " + std::to_string(value)};
  return value / 2;
}

TEST(ResultTest, HoldsAValueOrAFault) {
  EXPECT_TRUE(half(4).ok());
  EXPECT_EQ(half(4).value(), 2);
  const Result<int> odd = half(5);
  EXPECT_FALSE(odd.ok());
  EXPECT_EQ(odd.fault().message, "expected an even number, found 5");
}

TEST(ResultTest, ValueOrThrowNamesTheSubject) {
  EXPECT_EQ(half(6).value_or_throw("a.json"), 3);
  try {
    half(7).value_or_throw("a.json");
    FAIL() << "no Error was thrown";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a.json: expected an even number, found 7");
    EXPECT_EQ(error.kind(), ErrorKind::kFailed);
  }
}

TEST(ResultTest, MovesWhatCannotBeCopied) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(3));
  const std::unique_ptr<int> value = std::move(result).value_or_throw("x");
  EXPECT_EQ(*value, 3);
}

TEST(AssertDeathTest, BrokenInvariantsNameTheirLine) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(VOLLEY_ASSERT(1 + 1 == 3), "error_test.cpp:[0-9]+: broken invariant: 1 \\+ 1 == 3");
}

}  // namespace
}  // namespace volley
