#pragma once

// The q4_1 rule that the host backends share: a weight's row is cut into blocks of 32 neighbours, each 4-bit
// numbers q with a scale and an offset, w = q * scale + offset. Rows are quantised as for q8_0 (q8_0.h). A
// block of a product is
//   sum = fma(dot, weight scale * row scale, sum), dot the exact integer sum of q times the row's quants,
//   then sum = fma(offset, row sum, sum), row sum = row scale * the exact sum of the row's quants, rounded to
//   f32.
// Ref: block_q4_1 of ggml, https://github.com/ggml-org/ggml

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/backend/q8_0.h"
#include "core/io/block_formats.h"
#include "core/tensor/tensor.h"

namespace volley {

inline constexpr float kGreatestFourBits = 15.0f;

// A row [in] of a weight as blocks; the last block's missing numbers are 0.
struct FourBitRow {
  explicit FourBitRow(int64_t in)
      : blocks((in + kQ8BlockSize - 1) / kQ8BlockSize),
        quants(static_cast<size_t>(blocks * kQ8BlockSize)),
        scales(static_cast<size_t>(blocks)),
        offsets(static_cast<size_t>(blocks)) {}

  int64_t blocks = 0;
  std::vector<uint8_t> quants;
  std::vector<uint16_t> scales;   // f16
  std::vector<uint16_t> offsets;  // f16
};

// Rounds a block: offset = the least value, scale = the span / 15, both to f16, numbers to the nearest.
// Throws Error if a value is not finite or too large.
inline void quantize_four_bits(const float* values, int64_t count, int64_t block, FourBitRow& row) {
  float differences = 0.0f;  // x - x is 0 for finite numbers alone
  for (int64_t k = 0; k < count; ++k) differences += values[k] - values[k];
  if (differences != 0.0f) throw Error("weight with a value that is not finite");
  const auto [least, greatest] = std::minmax_element(values, values + count);
  const uint16_t offset = f32_to_f16(*least), scale = f32_to_f16((*greatest - *least) / kGreatestFourBits);
  const float step = f16_to_f32(scale), base = f16_to_f32(offset);
  if (!std::isfinite(step) || !std::isfinite(base)) throw Error("a value is too large for q4_1");
  const float inverse = step > 0.0f ? 1.0f / step : 0.0f;
  row.scales[static_cast<size_t>(block)] = scale;
  row.offsets[static_cast<size_t>(block)] = offset;
  uint8_t* quants = row.quants.data() + block * kQ8BlockSize;
  for (int64_t k = 0; k < kQ8BlockSize; ++k) {
    const float q = k < count ? std::clamp((values[k] - base) * inverse, 0.0f, kGreatestFourBits) : 0.0f;
    quants[k] = static_cast<uint8_t>(round_to_quant(q));
  }
}

// Row `n` of a weight [out, in] of any float type. Blocks of 4 bits are taken as they are (block_formats.h
// says what that means for each type), everything else is rounded. Throws Error if a value is not finite or
// too large.
inline void read_four_bit_row(const HostView& weight, int64_t n, FourBitRow& row) {
  const int64_t in = weight.shape[1];
  const int64_t row_bytes = dtype_bytes(weight.dtype, in);
  const std::byte* data = weight.data + n * row_bytes;
  if (has_four_bits(weight.dtype)) {
    split_four_bits(
        weight.dtype, {data, static_cast<size_t>(row_bytes)},
        {.quants = row.quants.data(), .scales = row.scales.data(), .offsets = row.offsets.data()});
    for (size_t b = 0; b < row.scales.size(); ++b) {
      if (!std::isfinite(f16_to_f32(row.scales[b])) || !std::isfinite(f16_to_f32(row.offsets[b])))
        throw Error("weight with a scale that is not finite or too large for q4_1");
    }
    return;
  }
  std::vector<float> values(static_cast<size_t>(in));
  copy_to_f32({data, weight.dtype, {in}}, values.data());
  for (int64_t b = 0; b < row.blocks; ++b) {
    quantize_four_bits(values.data() + b * kQ8BlockSize, std::min(kQ8BlockSize, in - b * kQ8BlockSize), b,
                       row);
  }
}

// The row sum of a block: what a weight's offset is multiplied with.
inline float quant_row_sum(const int8_t* quants, float scale) {
  int32_t sum = 0;
  for (int64_t k = 0; k < kQ8BlockSize; ++k) sum += quants[k];
  return scale * static_cast<float>(sum);
}

}  // namespace volley
