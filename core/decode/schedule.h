#pragma once

#include <array>
#include <cstdint>
#include <span>
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

// From the middle of the positions outwards; those of one distance in their random order. `positions` are the
// model's, of output 0, 1, ...
std::vector<int32_t> center_order(uint64_t seed, uint32_t stream,
                                  std::span<const std::array<int32_t, 3>> positions);

}  // namespace volley
