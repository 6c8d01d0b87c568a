#include "core/decode/unmasking.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"

namespace volley {
namespace {

// Places from the surest to the least sure.
std::vector<int32_t> ranked(Certainty certainty, std::span<const float> values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
    const float x = values[static_cast<size_t>(a)], y = values[static_cast<size_t>(b)];
    return certainty == Certainty::kEntropy ? x < y : x > y;
  });
  return order;
}

}  // namespace

std::vector<int32_t> UnmaskRule::choose(std::span<const float> values, int64_t scheduled) const {
  std::vector<int32_t> order = ranked(certainty, values);
  const auto is_sure = [&](size_t n) {
    const double value = values[static_cast<size_t>(order[n])];
    if (threshold && value == *threshold) return threshold_end == ThresholdEnd::kIncluded;
    if (threshold) return certainty == Certainty::kEntropy ? value < *threshold : value > *threshold;
    if (factor) return static_cast<double>(n + 2) * (1.0 - value) <= *factor;
    return static_cast<int64_t>(n) < scheduled;
  };
  size_t count = std::min<size_t>(1, order.size());
  while (count < order.size() && is_sure(count)) ++count;
  order.resize(count);
  std::ranges::sort(order);
  return order;
}

int32_t UnmaskRule::surest(std::span<const float> values) const {
  VOLLEY_ASSERT(!values.empty());
  return ranked(certainty, values).front();
}

int64_t confident_prefix(std::span<const float> values, double threshold) {
  const auto unsure = std::ranges::find_if(values, [&](float value) { return value <= threshold; });
  return std::min(std::ssize(values), std::max<int64_t>(1, unsure - values.begin()));
}

std::vector<int64_t> unmask_schedule(int64_t places, int64_t steps) {
  std::vector<int64_t> sizes;
  for (int64_t s = 0; s < std::min(steps, places); ++s)
    sizes.push_back(places / steps + (s < places % steps));
  return sizes;
}

}  // namespace volley
