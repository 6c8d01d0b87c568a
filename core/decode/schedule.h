#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace volley {

// How many output positions each step of a parallel method decides.
enum class StepSchedule : uint8_t { kArccos, kCosine };

// Sizes of at most `steps` steps, each at least 1, that add up to `total`. Steps that would decide nothing
// are left out. Ref: hp-l33/ARPG, `generate`.
std::vector<int64_t> schedule_steps(StepSchedule schedule, int64_t total, int64_t steps);

// A random order of 0 .. count - 1, a function of the seed and stream alone.
std::vector<int32_t> random_order(uint64_t seed, uint32_t stream, int64_t count);

}  // namespace volley
