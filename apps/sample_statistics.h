#pragma once

#include <cstdint>
#include <span>

namespace volley::apps {

enum class IntervalKind : uint8_t {
  kRange,       // smallest and largest sample: there are too few for more
  kConfidence,  // of the median, whatever the samples' distribution
};

// What is said of a measured quantity.
struct SampleSummary {
  double median = 0.0;
  double low = 0.0;
  double high = 0.0;
  IntervalKind kind = IntervalKind::kRange;
  double coverage = 0.0;  // probability that the interval of kConfidence holds the true median, at least 0.95
};

inline constexpr int64_t kMaxSamples = 1000;
inline constexpr double kLeastCoverage = 0.95;

// Of 1 to kMaxSamples finite samples in any order. The interval is the narrowest pair of order statistics
// x(k) .. x(n + 1 - k) that holds the median with probability kLeastCoverage, 1 - 2 P(Binomial(n, 1/2) < k);
// fewer than 6 samples have none, and their range is given.
// Source: David and Nagaraja, Order Statistics, 3rd edition, section 7.1.
SampleSummary summarize(std::span<const double> samples);

}  // namespace volley::apps
