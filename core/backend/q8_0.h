#pragma once

// The q8_0 rule that the host backends share: blocks of 32 neighbours, a scale and an 8-bit integer each.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/tensor/dtype.h"

namespace volley {

inline constexpr float kGreatestQuant = 127.0f;

// What values are multiplied with to become quants; 0 where a block is too small for the number to be finite.
inline float quant_inverse(float greatest) {
  const float inverse = greatest > 0.0f ? kGreatestQuant / greatest : 0.0f;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

// A weight's block: scale = greatest magnitude / 127 rounded to f16, quants to nearest multiple of it, ties
// to even. Returns the scale. `count` values at most 32; the other quants are 0. Ref: block_q8_0 of ggml,
// https://github.com/ggml-org/ggml (it divides by the scale before rounding it)
inline uint16_t quantize_weight_block(const float* values, int64_t count, int8_t* quants) {
  float greatest = 0.0f;
  for (int64_t k = 0; k < count; ++k) greatest = std::max(greatest, std::abs(values[k]));
  const uint16_t scale = f32_to_f16(greatest / kGreatestQuant);
  const float step = f16_to_f32(scale);
  if (!std::isfinite(step)) throw Error("a value is too large for q8_0");
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  for (int64_t k = 0; k < kQ8BlockSize; ++k) {
    const float scaled = k < count ? values[k] * inverse : 0.0f;
    quants[k] = static_cast<int8_t>(std::nearbyint(std::clamp(scaled, -kGreatestQuant, kGreatestQuant)));
  }
  return scale;
}

// A block of a product's row, as every kernel must round it: scale = greatest magnitude / 127 in f32. A block
// that is not finite has scale NaN, so that its products are NaN.
inline float quantize_row_block(const float* values, int64_t count, int8_t* quants) {
  float greatest = 0.0f;
  bool finite = true;
  for (int64_t k = 0; k < count; ++k) {
    finite = finite && std::isfinite(values[k]);
    greatest = std::max(greatest, std::abs(values[k]));
  }
  const float inverse = finite ? quant_inverse(greatest) : 0.0f;
  for (int64_t k = 0; k < kQ8BlockSize; ++k) {
    quants[k] = finite && k < count ? static_cast<int8_t>(std::nearbyint(values[k] * inverse)) : int8_t{0};
  }
  return finite ? greatest / kGreatestQuant : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace volley
