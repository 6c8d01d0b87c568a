#include "core/tensor/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace volley {
namespace {

// The value of a binary format with `mantissa_bits` and `exponent_bits`, by its definition.
double value_of(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto mantissa = static_cast<double>(bits & ((1u << mantissa_bits) - 1));
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const double sign = (bits >> (mantissa_bits + exponent_bits)) & 1u ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + std::ldexp(1.0, mantissa_bits), exponent - bias - mantissa_bits);
}

TEST(DTypeTest, EveryHalfBecomesItsFloat) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float got = f16_to_f32(static_cast<uint16_t>(bits));
    const double expected = value_of(bits, 5, 10);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << std::hex << bits;
      ASSERT_EQ(std::bit_cast<uint32_t>(got) >> 31, bits >> 15) << std::hex << bits;
    } else {
      ASSERT_EQ(static_cast<double>(got), expected) << std::hex << bits;
      ASSERT_EQ(std::signbit(got), std::signbit(expected)) << std::hex << bits;
    }
  }
}

TEST(DTypeTest, EveryBFloatBecomesItsFloatAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float got = bf16_to_f32(static_cast<uint16_t>(bits));
    const double expected = value_of(bits, 8, 7);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << std::hex << bits;
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(got)))) << std::hex << bits;
    } else {
      ASSERT_EQ(static_cast<double>(got), expected) << std::hex << bits;
      ASSERT_EQ(f32_to_bf16(got), bits);
    }
  }
}

// Between each two neighbours: just below the middle, the middle (to the even one), just above it.
TEST(DTypeTest, FloatsRoundToTheNearestBFloatTiesToEven) {
  for (uint32_t upper = 0; upper < 0x10000u; ++upper) {
    if ((upper & 0x7fffu) >= 0x7f80u) continue;  // infinities and NaNs
    const auto rounded = [upper](uint32_t lower) {
      return uint32_t{f32_to_bf16(std::bit_cast<float>((upper << 16) | lower))};
    };
    ASSERT_EQ(rounded(0x0001), upper);
    ASSERT_EQ(rounded(0x7fff), upper);
    ASSERT_EQ(rounded(0x8000), upper + (upper & 1u));
    ASSERT_EQ(rounded(0x8001), upper + 1);  // the largest finite values become infinite
    ASSERT_EQ(rounded(0xffff), upper + 1);
  }
}

// Every half survives the way through f32, and what lies between two neighbours goes to the nearer one, at
// equal distance to the even one.
TEST(DTypeTest, HalvesRoundToNearestEven) {
  for (uint32_t half = 0; half < 0x7c00u; ++half) {
    const auto bits = static_cast<uint16_t>(half);
    const float value = f16_to_f32(bits);
    ASSERT_EQ(f32_to_f16(value), bits);
    ASSERT_EQ(f32_to_f16(-value), bits | 0x8000u);
    if (half == 0x7bffu) continue;
    const float next = f16_to_f32(static_cast<uint16_t>(half + 1)), middle = value + (next - value) / 2;
    const auto neighbour = [](float x, int step) {
      return std::bit_cast<float>(std::bit_cast<int32_t>(x) + step);
    };
    ASSERT_EQ(f32_to_f16(neighbour(middle, -1)), half);
    ASSERT_EQ(f32_to_f16(middle), half + (half & 1u));
    ASSERT_EQ(f32_to_f16(neighbour(middle, 1)), half + 1);
  }
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(f32_to_f16(-1e30f), 0xfc00);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::nanf("")))));
}

TEST(DTypeTest, NaNsStayNaNs) {
  for (uint32_t mantissa = 1; mantissa < 0x00800000u; mantissa = mantissa * 3 / 2 + 1) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const uint16_t bits = f32_to_bf16(std::bit_cast<float>(sign | 0x7f800000u | mantissa));
      ASSERT_TRUE(std::isnan(bf16_to_f32(bits))) << std::hex << mantissa;
      ASSERT_EQ(bits >> 15, sign >> 31);
    }
  }
}

TEST(DTypeTest, SizesAndNames) {
  struct Row {
    DType type;
    int64_t size;
    std::string_view name;
  };
  for (const Row& row : {Row{DType::kF32, 4, "f32"}, Row{DType::kF16, 2, "f16"}, Row{DType::kBF16, 2, "bf16"},
                         Row{DType::kF64, 8, "f64"}, Row{DType::kI64, 8, "i64"}, Row{DType::kI32, 4, "i32"},
                         Row{DType::kI16, 2, "i16"}, Row{DType::kI8, 1, "i8"}, Row{DType::kU8, 1, "u8"},
                         Row{DType::kBool, 1, "bool"}}) {
    EXPECT_EQ(dtype_size(row.type), row.size);
    EXPECT_EQ(dtype_name(row.type), row.name);
    EXPECT_FALSE(is_block_type(row.type));
    EXPECT_EQ(dtype_bytes(row.type, 7), 7 * row.size);
  }
}

// Bits a value as the formats are known for: 4 + 16/32 and so on.
TEST(DTypeTest, BlockTypes) {
  struct Row {
    DType type;
    double bits;
    std::string_view name;
  };
  for (const Row& row :
       {Row{DType::kQ4_0, 4.5, "q4_0"}, Row{DType::kQ4_1, 5, "q4_1"}, Row{DType::kQ5_0, 5.5, "q5_0"},
        Row{DType::kQ5_1, 6, "q5_1"}, Row{DType::kQ8_0, 8.5, "q8_0"}, Row{DType::kQ4_K, 4.5, "q4_k"},
        Row{DType::kQ5_K, 5.5, "q5_k"}, Row{DType::kQ6_K, 6.5625, "q6_k"}}) {
    EXPECT_TRUE(is_block_type(row.type));
    EXPECT_EQ(dtype_size(row.type), 0);
    EXPECT_EQ(dtype_name(row.type), row.name);
    EXPECT_EQ(static_cast<double>(dtype_bytes(row.type, 1024)) * 8 / 1024, row.bits);
  }
}

}  // namespace
}  // namespace volley
