#pragma once

// Vector kernels over plain arrays; each works on what one thread is given.

#include <cstdint>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/operations.h"

namespace volley {

// Nearest bf16, ties to even, NaN stays NaN: as f32_to_bf16.
void convert_to_bf16(const float* x, int64_t count, uint16_t* out);
void round_to_bf16(const float* x, int64_t count, float* out);

// A row as products of quantised weights read it (quantize_row_block of core/backend/q8_0.h): quants in
// `format`, one scale per block of 32, and its row sum (quant_row_sum of q4_1.h) if `sums` is given. `out`,
// `scales` and `sums` have room for whole blocks.
struct QuantizeRowArgs {
  const float* x = nullptr;
  int64_t width = 0;
  RowFormat format = RowFormat::kSigned8;
  void* out = nullptr;
  int64_t quad_stride = 4;  // of kInterleaved16: elements from four of the depth to the next four
  float* scales = nullptr;
  float* sums = nullptr;
  int64_t scale_stride = 1;  // elements from a block's scale (and sum) to the next one's
};
void quantize_row(const QuantizeRowArgs& args);

// out (+)= tile + bias, for the corner [rows, columns] of a tile.
struct StoreTileArgs {
  const float* tile = nullptr;
  int64_t tile_stride = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  const float* bias = nullptr;  // [columns] or null
  Accumulate accumulate = Accumulate::kAssign;
  float* out = nullptr;
  int64_t out_stride = 0;
};
void store_tile(const StoreTileArgs& args);

void activate(Activation activation, float* x, int64_t count);
void silu_mul(const float* gate, const float* up, int64_t count, float* out);
void add(const float* a, const float* b, int64_t count, float* out);

// One row of a norm; `out` may be `x`.
struct NormRowArgs {
  const float* x = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;  // layer norm
  int64_t width = 0;
  float eps = 0.0f;
  float* out = nullptr;
};
void rms_norm_row(const NormRowArgs& args);
void layer_norm_row(const NormRowArgs& args);
void l2_normalize_row(const NormRowArgs& args);  // eps is the least norm

// Of one group of one picture: `channels` planes of `area` points that lie together.
struct GroupMomentsArgs {
  const float* x = nullptr;
  int64_t channels = 0;
  int64_t area = 0;
  float eps = 0.0f;
};
struct GroupMoments {
  float mean = 0.0f;
  float scale = 0.0f;  // 1 / sqrt(variance + eps)
};
GroupMoments group_moments(const GroupMomentsArgs& args);

// Some points of a channel by its group's moments. A point's bits do not depend on the others.
struct NormalizePointsArgs {
  const float* x = nullptr;
  int64_t count = 0;
  GroupMoments moments;
  float weight = 1.0f;
  float bias = 0.0f;
  Swish swish = Swish::kNone;
  float* out = nullptr;
};
void normalize_points(const NormalizePointsArgs& args);

// One head of a row: pair i turns by (cosines[i], sines[i]).
struct RotateArgs {
  float* x = nullptr;
  const float* cosines = nullptr;  // [width / 2]
  const float* sines = nullptr;    // [width / 2]
  int64_t width = 0;
  RopeLayout layout = RopeLayout::kSplitHalf;
};
void rotate_head(const RotateArgs& args);

}  // namespace volley
