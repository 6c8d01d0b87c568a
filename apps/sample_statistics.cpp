#include "apps/sample_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/error.h"

namespace volley::apps {

SampleSummary summarize(std::span<const double> samples) {
  const auto count = std::ssize(samples);
  VOLLEY_ASSERT(count >= 1 && count <= kMaxSamples);
  std::vector<double> sorted(samples.begin(), samples.end());
  std::ranges::sort(sorted);
  const auto at = [&](int64_t rank) { return sorted[static_cast<size_t>(rank - 1)]; };  // from 1
  SampleSummary summary{.median = std::midpoint(at((count + 1) / 2), at(count / 2 + 1))};
  // The probability that fewer than `rank` of the samples are below the median, for ranks from 1.
  double below = 0.0;
  double exactly = std::ldexp(1.0, -static_cast<int>(count));  // P(Binomial = rank - 1)
  int64_t chosen = 0;
  for (int64_t rank = 1; rank <= count / 2; ++rank) {
    below += exactly;
    if (1.0 - 2.0 * below < kLeastCoverage) break;
    chosen = rank;
    summary.coverage = 1.0 - 2.0 * below;
    exactly *= static_cast<double>(count - rank + 1) / static_cast<double>(rank);
  }
  summary.kind = chosen > 0 ? IntervalKind::kConfidence : IntervalKind::kRange;
  const int64_t rank = std::max<int64_t>(chosen, 1);
  summary.low = at(rank);
  summary.high = at(count + 1 - rank);
  return summary;
}

}  // namespace volley::apps
