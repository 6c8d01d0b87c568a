#pragma once

// Values of about -1 .. 1 as bytes, channels side by side, on every device.

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/base/host_device.h"

namespace volley {

// clamp(127.5 x + 128, 0, 255), truncated; NaN becomes 0. Neither operation may be fused.
VOLLEY_HOST_DEVICE inline uint8_t channel_byte(float x) {
  const float value = 127.5f * x + 128.0f;
  const float clamped = value >= 0.0f ? (value < 255.0f ? value : 255.0f) : 0.0f;
  return static_cast<uint8_t>(static_cast<int32_t>(clamped));
}

// Points [begin, end) of planes [channels, area] to [area, channels].
inline void channel_bytes(const float* planes, int64_t channels, int64_t area, int64_t begin, int64_t end,
                          uint8_t* out) {
  constexpr int64_t kRun = 256;  // becomes bytes by vector instructions before it is woven
  std::array<uint8_t, kRun> bytes{};
  for (int64_t first = begin; first < end; first += kRun) {
    const int64_t count = std::min(kRun, end - first);
    for (int64_t c = 0; c < channels; ++c) {
      const float* plane = planes + c * area + first;
      for (int64_t i = 0; i < count; ++i) bytes[static_cast<size_t>(i)] = channel_byte(plane[i]);
      for (int64_t i = 0; i < count; ++i) out[(first + i) * channels + c] = bytes[static_cast<size_t>(i)];
    }
  }
}

}  // namespace volley
