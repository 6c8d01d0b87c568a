#include "core/base/noise.h"
#include "core/backend/cpu/sampling_kernels.h"
#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

// core/base/noise.h is the oracle: bit for bit, at every place of a vector, for keys with every word in use.
TEST(NoiseTest, VectorsEqualTheOracleBitForBit) {
  std::mt19937_64 generator(1);
  int64_t compared = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const NoiseKey key{.seed = generator(),
                       .stream = static_cast<uint32_t>(generator()) & 0xffffffu,
                       .purpose = static_cast<NoisePurpose>(generator() % 6),
                       .draw = static_cast<uint32_t>(generator()),
                       .position = static_cast<uint32_t>(generator())};
    const int64_t count = trial < 70 ? trial + 1 : 2048 + static_cast<int64_t>(generator() % 70);
    std::vector<float> noise(static_cast<size_t>(count + kGumbelPadding), 123.0f), expected;
    gumbel_row(key, count, noise.data());
    for (int64_t id = 0; id < count; ++id) expected.push_back(gumbel(key, static_cast<uint32_t>(id)));
    noise.resize(static_cast<size_t>(count));
    ASSERT_EQ(first_difference(noise, expected), -1) << "count " << count;
    compared += count;
  }
  EXPECT_GE(compared, 200000);
}

TEST(NoiseTest, SimpleKeysEqualTheOracle) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}, uint64_t{1} << 32}) {
    const NoiseKey key{.seed = seed};
    std::vector<float> noise(100000 + kGumbelPadding);
    gumbel_row(key, 100000, noise.data());
    for (uint32_t id = 0; id < 100000; ++id) ASSERT_EQ(noise[id], gumbel(key, id)) << id;
  }
}

}  // namespace
}  // namespace volley::testing
