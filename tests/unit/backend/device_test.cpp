// What is said of devices.
#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

TEST(DeviceTest, WhatBitsDoNotDependOnDoesNotMakeDevicesUnlike) {
  const DeviceInfo small{.name = "cuda:0", .description = "H, 81559 MiB", .arithmetic = "cuda 9.0"},
      large{.name = "cuda:1", .description = "H, 143771 MiB", .arithmetic = "cuda 9.0"},
      older{.name = "cuda:2", .description = "H, 81559 MiB", .arithmetic = "cuda 8.0"};
  EXPECT_TRUE(compute_alike(small, large));
  EXPECT_FALSE(compute_alike(small, older));
  const auto one = tested_backend(1), two = tests_cpu() ? make_cpu_backend(2) : tested_backend();
  EXPECT_TRUE(compute_alike(one->info(), two->info()));
  EXPECT_FALSE(compute_alike(one->info(), make_reference_backend()->info()));
  // It says nothing of memory, nor of how many share the work.
  EXPECT_FALSE(one->info().arithmetic.empty());
  EXPECT_EQ(one->info().arithmetic.find("MiB"), std::string::npos);
}

}  // namespace
}  // namespace volley::testing
