#pragma once

// Direct convolution of one band of one picture, four output channels at a time.

#include <cstdint>

namespace volley {

inline constexpr int64_t kChannelTile = 4;  // output channels whose weights lie together

struct ConvolveTileArgs {
  // Input pixels that meet output position 0 in tap k (input channel, kernel row, kernel column) begin at
  // x + offsets[k], and position i meets the pixel i further on.
  const float* x = nullptr;
  const int64_t* offsets = nullptr;  // [taps]
  int64_t taps = 0;
  const float* weight = nullptr;  // [taps, kChannelTile]
  const float* bias = nullptr;    // [kChannelTile]
  int64_t positions = 0;
  // [kChannelTile, out_stride]; positions are written up to a multiple of kPositionPadding, and read as far in x.
  float* out = nullptr;
  int64_t out_stride = 0;
};
inline constexpr int64_t kPositionPadding = 16;

// out[o, i] = bias[o] + sum over taps in order: one chain of multiply-adds per element, whatever the tile.
void convolve_tile(const ConvolveTileArgs& args);

}  // namespace volley
