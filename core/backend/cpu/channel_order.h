#pragma once

// From planes of one channel each to points with their channels side by side, and back.

#include <cstddef>
#include <cstdint>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/operations.h"

namespace volley {

// out[i, c] = planes[c * plane_stride + i * point_stride] rounded to bf16; channels from `channels` on are
// zero.
struct InterleaveChannelsArgs {
  const float* planes = nullptr;
  int64_t plane_stride = 0;
  int64_t channels = 0;
  int64_t padded_channels = 0;  // a multiple of kDepthStep
  int64_t points = 0;
  int64_t point_stride = 1;
  RowFormat format = RowFormat::kBF16;  // or kRoundedF32
  std::byte* out = nullptr;             // [points, padded_channels]
};
void interleave_channels(const InterleaveChannelsArgs& args);

// out[c * plane_stride + i] (+)= tile[i * tile_stride + c] + bias[c].
struct ScatterChannelsArgs {
  const float* tile = nullptr;
  int64_t tile_stride = 0;  // a multiple of kGroupColumns; so many channels of each point can be read
  int64_t points = 0;
  int64_t channels = 0;
  const float* bias = nullptr;
  Accumulate accumulate = Accumulate::kAssign;
  float* out = nullptr;
  int64_t plane_stride = 0;
};
void scatter_channels(const ScatterChannelsArgs& args);

}  // namespace volley
