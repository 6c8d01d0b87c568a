#include "core/base/noise.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace volley {
namespace {

uint32_t bits_of(float value) {
  return std::bit_cast<uint32_t>(value);
}

// Ref: Random123, tests/kat_vectors, the lines "philox4x32 10".
TEST(NoiseTest, PhiloxGivesTheAuthorsKnownAnswers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, 0, 0), (Block{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(philox4x32_10({~0u, ~0u, ~0u, ~0u}, ~0u, ~0u),
            (Block{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(philox4x32_10({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0xa4093822u, 0x299f31d0u),
            (Block{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

// The tables below were computed apart from the code, in exact fractions rounded to float after each
// operation. They are what every backend must give: a change of one bit changes the outputs of all seeds.
TEST(NoiseTest, LogarithmTable) {
  struct Row {
    uint32_t x, log;
  };
  for (const Row row : std::vector<Row>{{0x3f800000u, 0x00000000u},
                                        {0x3f000000u, 0xbf317218u},
                                        {0x40000000u, 0x3f317218u},
                                        {0x3f3504f3u, 0xbeb17218u},
                                        {0x3f3504f4u, 0xbeb17216u},
                                        {0x00800000u, 0xc2aeac50u},
                                        {0x7f7fffffu, 0x42b17218u},
                                        {0x3f7fffffu, 0xb3800000u},
                                        {0x3f800001u, 0x33ffffffu},
                                        {0x40490fdbu, 0x3f928682u}}) {
    EXPECT_EQ(bits_of(noise_log(std::bit_cast<float>(row.x))), row.log) << std::hex << row.x;
  }
}

TEST(NoiseTest, UniformAndGumbelTable) {
  struct Row {
    uint32_t bits, uniform, gumbel;
  };
  for (const Row row : std::vector<Row>{{0x00000000u, 0x33800000u, 0xc033f049u},
                                        {0x000001ffu, 0x33800000u, 0xc033f049u},
                                        {0x00000200u, 0x34400000u, 0xc02f90e7u},
                                        {0x80000000u, 0x3f000001u, 0x3ebba79au},
                                        {0x7fffffffu, 0x3efffffeu, 0x3ebba78fu},
                                        {0xffffffffu, 0x3f7fffffu, 0x41851592u},
                                        {0xfffffc00u, 0x3f7ffffdu, 0x41789739u},
                                        {0x12345678u, 0x3d91a2b8u, 0xbf78dc13u},
                                        {0xdeadbeefu, 0x3f5eadbfu, 0x3ffc2b26u},
                                        {0x5e2d58d8u, 0x3ebc5ab2u, 0x80000000u},
                                        {0xcafebabeu, 0x3f4afebbu, 0x3fbb0337u},
                                        {0x00010000u, 0x37808000u, 0xc019f763u},
                                        {0x3243f6a8u, 0x3e490fdcu, 0xbef97adeu},
                                        {0xb504f333u, 0x3f3504f3u, 0x3f87a2f1u}}) {
    EXPECT_EQ(bits_of(uniform_from_bits(row.bits)), row.uniform) << std::hex << row.bits;
    EXPECT_EQ(bits_of(gumbel_from_bits(row.bits)), row.gumbel) << std::hex << row.bits;
  }
}

// Each word of a key, alone and together.
TEST(NoiseTest, KeyTable) {
  struct Row {
    NoiseKey key;
    uint32_t id, bits, gumbel;
  };
  const std::vector<Row> table{
      {{}, 0, 0x6627e8d5u, 0x3dadb63fu},
      {{}, 1, 0xe169c58du, 0x4003f241u},
      {{}, 3, 0x9b00dbd8u, 0x3f308fa0u},
      {{}, 4, 0xf8e4cca4u, 0x40647d83u},
      {{.seed = 1}, 0, 0xe3e80670u, 0x4009bb9cu},
      {{.stream = 1}, 0, 0x2dce73e5u, 0xbf0af270u},
      {{.purpose = NoisePurpose::kAccept}, 0, 0x910223a1u, 0x3f10a0d8u},
      {{.draw = 1}, 0, 0x844515e1u, 0x3ed47c45u},
      {{.position = 1}, 0, 0x6ad0c5ecu, 0x3e09d1ecu},
      {{.seed = 0x123456789abcdef0u,
        .stream = 0xabcdef,
        .purpose = NoisePurpose::kInit,
        .draw = 7,
        .position = 255},
       16383,
       0xa6e88603u,
       0x3f5968e0u},
      {{.seed = ~uint64_t{0},
        .stream = 0xffffff,
        .purpose = NoisePurpose::kResidual,
        .draw = ~0u,
        .position = ~0u},
       ~0u,
       0x6eb463a4u,
       0x3e349918u},
  };
  for (const Row& row : table) {
    EXPECT_EQ(noise_bits(row.key, row.id), row.bits);
    EXPECT_EQ(bits_of(gumbel(row.key, row.id)), row.gumbel);
    EXPECT_EQ(noise_block(row.key, row.id / 4)[row.id % 4], row.bits);
  }
}

// All 2^23 uniforms there are: inside (0, 1), increasing, with a finite Gumbel value near the true one.
TEST(NoiseTest, EveryUniformHasAFiniteIncreasingGumbel) {
  float previous_uniform = 0.0f;
  double worst = 0.0;
  for (uint32_t step = 0; step < (1u << 23); ++step) {
    const uint32_t bits = step << 9;
    const float u = uniform_from_bits(bits);
    ASSERT_GT(u, previous_uniform);
    ASSERT_LT(u, 1.0f);
    previous_uniform = u;
    const float g = gumbel_from_bits(bits);
    ASSERT_TRUE(std::isfinite(g)) << bits;
    const double exact = -std::log(-std::log(static_cast<double>(u)));
    // Near u = 1/e the value crosses zero, so the error is measured against 1 there: the inner logarithm's
    // last bit.
    worst = std::max(worst, std::fabs(g - exact) / std::max(1.0, std::fabs(exact)));
  }
  EXPECT_LT(worst, 2.0 * 0x1p-23);
}

TEST(NoiseTest, LogarithmIsWithinAnUlpOverAllExponents) {
  double worst = 0.0;
  for (uint32_t bits = 0x00800000u; bits < 0x7f800000u; bits += 997) {
    const float x = std::bit_cast<float>(bits);
    const double exact = std::log(static_cast<double>(x));
    const double ulp = std::ldexp(1.0, std::max(-149, std::ilogb(exact == 0.0 ? 1e-30 : exact) - 23));
    worst = std::max(worst, std::fabs(noise_log(x) - exact) / ulp);
  }
  EXPECT_LT(worst, 1.5);
}

// argmax(logits + gumbel) draws from softmax(logits): the chi-squares of 20 seeds, 15 degrees of freedom
// each, together stay below the 99.9 % quantile of 300 degrees of freedom.
TEST(NoiseTest, ArgmaxWithGumbelDrawsFromTheSoftmax) {
  std::array<double, 16> logits{};
  double sum = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = std::sin(static_cast<double>(3 * i)) * 1.5;
    sum += std::exp(logits[i]);
  }
  constexpr int kDraws = 20000;
  double chi_square = 0.0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::array<int64_t, 16> counts{};
    for (uint32_t position = 0; position < kDraws; ++position) {
      const NoiseKey key{.seed = seed, .position = position};
      size_t best = 0;
      double best_value = -1e30;
      for (size_t i = 0; i < logits.size(); ++i) {
        const double value = logits[i] + static_cast<double>(gumbel(key, static_cast<uint32_t>(i)));
        if (value > best_value) {
          best_value = value;
          best = i;
        }
      }
      ++counts[best];
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      const double expected = kDraws * std::exp(logits[i]) / sum;
      const double difference = static_cast<double>(counts[i]) - expected;
      chi_square += difference * difference / expected;
    }
  }
  EXPECT_LT(chi_square, 381.5);
}

}  // namespace
}  // namespace volley
