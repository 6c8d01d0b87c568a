#pragma once

// The q8_0 rule that the host backends share: blocks of 32 neighbours, a scale and an 8-bit integer each.

#include <algorithm>
#include <array>
#include <bit>
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

// A block's values behind each other, zeros behind the last; loops of fixed length become vector code.
using QuantBlock = std::array<float, kQ8BlockSize>;
inline QuantBlock make_quant_block(const float* values, int64_t count) {
  QuantBlock block{};
  std::copy_n(values, count, block.begin());
  return block;
}

// The greatest magnitude; infinity or NaN where there is one. Magnitudes are ordered as their bits are.
inline float greatest_magnitude(const QuantBlock& block) {
  int32_t greatest = 0;
  for (const float value : block) greatest = std::max(greatest, std::bit_cast<int32_t>(value) & 0x7fffffff);
  return std::bit_cast<float>(greatest);
}

// 1.5 * 2^23: floats of its size are integers, so that adding it rounds magnitudes below 2^22 to the nearest,
// ties to even. The sum's lowest bits are the integer's.
inline constexpr float kNoFraction = 12582912.0f;
inline int8_t round_to_quant(float value) {
  return static_cast<int8_t>(static_cast<int32_t>(value + kNoFraction - kNoFraction));
}

// A weight's block: scale = greatest magnitude / 127 rounded to f16, quants to nearest multiple of it, ties
// to even. Returns the scale. `count` values at most 32; the other quants are 0. Ref: block_q8_0 of ggml,
// https://github.com/ggml-org/ggml (it divides by the scale before rounding it)
inline uint16_t quantize_weight_block(const float* values, int64_t count, int8_t* quants) {
  const QuantBlock block = make_quant_block(values, count);
  const uint16_t scale = f32_to_f16(greatest_magnitude(block) / kGreatestQuant);
  const float step = f16_to_f32(scale);
  if (!std::isfinite(step)) throw Error("a value is too large for q8_0");
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  for (int64_t k = 0; k < kQ8BlockSize; ++k)
    quants[k] =
        round_to_quant(std::clamp(block[static_cast<size_t>(k)] * inverse, -kGreatestQuant, kGreatestQuant));
  return scale;
}

// A block of a product's row, as every kernel must round it: scale = greatest magnitude / 127 in f32. A block
// that is not finite has scale NaN, so that its products are NaN.
inline float quantize_row_block(const float* values, int64_t count, int8_t* quants) {
  const QuantBlock block = make_quant_block(values, count);
  const float greatest = greatest_magnitude(block);
  if (!std::isfinite(greatest)) {
    std::fill_n(quants, kQ8BlockSize, int8_t{0});
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float inverse = quant_inverse(greatest);
  for (int64_t k = 0; k < kQ8BlockSize; ++k)
    quants[k] = round_to_quant(block[static_cast<size_t>(k)] * inverse);
  return greatest / kGreatestQuant;
}

}  // namespace volley
