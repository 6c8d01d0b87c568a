#include "core/backend/q8_0.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>

namespace volley {
namespace {

TEST(Q80, RoundsToTheNearestTiesToEven) {
  for (int i = -127 * 4; i <= 127 * 4; ++i) {
    const float value = static_cast<float>(i) / 4;
    for (const float near : {value, std::nextafter(value, -200.0f), std::nextafter(value, 200.0f)})
      EXPECT_EQ(round_to_quant(near), static_cast<int>(std::nearbyint(near))) << near;
  }
  std::mt19937 random(1);
  std::uniform_real_distribution<float> values(-127.49f, 127.49f);
  for (int i = 0; i < 100000; ++i) {
    const float value = values(random);
    ASSERT_EQ(round_to_quant(value), static_cast<int>(std::nearbyint(value))) << value;
  }
}

TEST(Q80, BlocksKeepTheirGreatestMagnitude) {
  std::array<float, kQ8BlockSize> block{};
  std::array<int8_t, kQ8BlockSize> quants{};
  block[3] = -5.0f;
  block[7] = 2.5f;
  EXPECT_EQ(quantize_row_block(block.data(), 8, quants.data()), 5.0f / 127.0f);
  EXPECT_EQ(quants[3], -127);
  EXPECT_EQ(quants[7], 64);  // 63.5 to even
  EXPECT_EQ(quants[0], 0);
  // What lies beyond the count is not read.
  block[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(quantize_row_block(block.data(), 7, quants.data()), 5.0f / 127.0f);
  EXPECT_EQ(quants[7], 0);
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    block[7] = odd;
    EXPECT_TRUE(std::isnan(quantize_row_block(block.data(), 8, quants.data())));
    EXPECT_EQ(quants[3], 0);
  }
  block.fill(0.0f);
  EXPECT_EQ(quantize_row_block(block.data(), kQ8BlockSize, quants.data()), 0.0f);
  EXPECT_EQ(quantize_weight_block(block.data(), kQ8BlockSize, quants.data()), 0);
  block[0] = 1e9f;
  EXPECT_THROW(quantize_weight_block(block.data(), kQ8BlockSize, quants.data()), Error);
}

}  // namespace
}  // namespace volley
