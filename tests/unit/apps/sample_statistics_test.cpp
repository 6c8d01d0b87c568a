#include "apps/sample_statistics.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace volley::apps {
namespace {

// 1, 2, ... in an order that is not sorted.
std::vector<double> ranks(int64_t count) {
  std::vector<double> samples(static_cast<size_t>(count));
  std::iota(samples.begin(), samples.end(), 1.0);
  for (size_t i = 0; i + 1 < samples.size(); i += 2) std::swap(samples[i], samples[samples.size() - 1 - i]);
  return samples;
}

TEST(SampleStatistics, MediansOfOddAndEvenCounts) {
  EXPECT_EQ(summarize(std::vector{7.0}).median, 7.0);
  EXPECT_EQ(summarize(std::vector{3.0, 1.0}).median, 2.0);
  EXPECT_EQ(summarize(std::vector{9.0, 1.0, 4.0}).median, 4.0);
  EXPECT_EQ(summarize(std::vector{9.0, 1.0, 4.0, 5.0}).median, 4.5);
  EXPECT_EQ(summarize(std::vector{1.5e308, 1.7e308}).median, 1.6e308);
}

TEST(SampleStatistics, FewerThanSixSamplesHaveTheirRange) {
  for (int64_t count = 1; count < 6; ++count) {
    const SampleSummary summary = summarize(ranks(count));
    EXPECT_EQ(summary.kind, IntervalKind::kRange);
    EXPECT_EQ(summary.low, 1.0);
    EXPECT_EQ(summary.high, static_cast<double>(count));
    EXPECT_EQ(summary.coverage, 0.0);
  }
}

// The lower rank and the coverage in per cent, by exact sums of binomial coefficients: 1 - 2 sum(C(n, i), i <
// k) / 2^n.
TEST(SampleStatistics, RanksAreThoseOfExactSums) {
  struct Line {
    int64_t count, rank;
    double percent;
  };
  for (const Line& line :
       {Line{6, 1, 96.875}, Line{8, 1, 99.219}, Line{9, 2, 96.094}, Line{10, 2, 97.852}, Line{12, 3, 96.143},
        Line{15, 4, 96.484}, Line{20, 6, 95.861}, Line{25, 8, 95.671}, Line{100, 40, 96.480}}) {
    const SampleSummary summary = summarize(ranks(line.count));
    EXPECT_EQ(summary.kind, IntervalKind::kConfidence) << line.count;
    EXPECT_EQ(summary.low, static_cast<double>(line.rank)) << line.count;
    EXPECT_EQ(summary.high, static_cast<double>(line.count + 1 - line.rank)) << line.count;
    EXPECT_NEAR(100.0 * summary.coverage, line.percent, 5e-4) << line.count;
  }
  const SampleSummary most = summarize(ranks(kMaxSamples));
  EXPECT_EQ(most.low, 469.0);
  EXPECT_EQ(most.high, 532.0);
  EXPECT_GE(most.coverage, kLeastCoverage);
}

}  // namespace
}  // namespace volley::apps
