#include "core/decode/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "core/base/noise.h"

namespace volley {

std::vector<int64_t> schedule_steps(StepSchedule schedule, int64_t total, int64_t steps) {
  std::vector<int64_t> sizes;
  int64_t done = 0;
  for (int64_t s = 0; s < steps && done < total; ++s) {
    const double ratio = static_cast<double>(s + 1) / static_cast<double>(steps);
    const double hidden = schedule == StepSchedule::kArccos ? std::acos(ratio) / (std::numbers::pi * 0.5)
                                                            : std::cos(std::numbers::pi / 2.0 * ratio);
    const auto wanted = static_cast<int64_t>(std::floor(static_cast<double>(total) * hidden));
    const int64_t left = std::max<int64_t>(1, std::min(total - done - 1, wanted));
    const int64_t size = s == steps - 1 ? total - done : total - done - left;
    if (size <= 0) continue;
    sizes.push_back(size);
    done += size;
  }
  return sizes;
}

std::vector<int32_t> random_order(uint64_t seed, uint32_t stream, int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = count - 1; i > 0; --i) {  // Fisher-Yates
    const uint32_t bits = noise_bits({.seed = seed,
                                      .stream = stream,
                                      .purpose = NoisePurpose::kOrder,
                                      .position = static_cast<uint32_t>(i)},
                                     0);
    const auto j = static_cast<size_t>((uint64_t{bits} * static_cast<uint64_t>(i + 1)) >> 32);
    std::swap(order[static_cast<size_t>(i)], order[j]);
  }
  return order;
}

std::vector<int32_t> center_order(uint64_t seed, uint32_t stream,
                                  std::span<const std::array<int32_t, 3>> positions) {
  std::array<int64_t, 3> twice_middle{};
  for (size_t c = 0; c < 3; ++c) {
    const auto [low, high] =
        std::ranges::minmax(positions, {}, [c](const std::array<int32_t, 3>& p) { return p[c]; });
    twice_middle[c] = int64_t{low[c]} + high[c];
  }
  std::vector<int64_t> distance;  // four times its square: whole numbers
  for (const std::array<int32_t, 3>& position : positions) {
    int64_t sum = 0;
    for (size_t c = 0; c < 3; ++c) {
      const int64_t twice = 2 * int64_t{position[c]} - twice_middle[c];
      sum += twice * twice;
    }
    distance.push_back(sum);
  }
  std::vector<int32_t> order = random_order(seed, stream, std::ssize(positions));
  std::ranges::stable_sort(order, {}, [&](int32_t i) { return distance[static_cast<size_t>(i)]; });
  return order;
}

}  // namespace volley
