#pragma once

// Products of q8_0 weights by AMX; part of amx_products.cpp.

#include <immintrin.h>

#include <algorithm>
#include <cstddef>

#include "core/backend/cpu/amx_tiles.h"
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {
namespace {

// Tiles 0 and 1 are the integer sums of two blocks, 4 and 5 their rows, 6 and 7 their quants.
TileConfig q8_0_config(int64_t rows) {
  TileConfig config;
  for (const int tile : {0, 1}) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.column_bytes[tile] = 64;
  }
  for (const int tile : {4, 5}) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.column_bytes[tile] = 32;
  }
  for (const int tile : {6, 7}) {
    config.rows[tile] = 8;
    config.column_bytes[tile] = 64;
  }
  return config;
}

constexpr int64_t kBlockBytes = kDepthStep * kGroupColumns;

// sums[r] += float(dots[r]) * (weight scales * row scale), for one block.
template <int kRows>
VOLLEY_AMX inline void add_block(const int32_t* dots, const uint16_t* scales, const float* row_scales,
                                 __m512* sums) {
  const __m512 weight_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(row_scales[r]));
    const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + r * kGroupColumns));
    sums[r] = _mm512_fmadd_ps(dot, scale, sums[r]);
  }
}

// Asks for a stretch of the weight, a share of it in each step.
struct AheadLines {
  AheadLines(const std::byte* begin, int64_t bytes, int64_t steps)
      : next(begin), end(begin + bytes), step_bytes((bytes + steps * 64 - 1) / (steps * 64) * 64) {}
  VOLLEY_AMX void step() {
    for (const std::byte* stop = end - next < step_bytes ? end : next + step_bytes; next < stop; next += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
    }
  }

  const std::byte* next;
  const std::byte* end;
  int64_t step_bytes;
};

// Rows of one call that are computed together, at most kRowTile.
struct RowSlice {
  int64_t first = 0;
  int64_t rows = 0;
  bool is_alone = false;  // then a group comes from memory as it is multiplied
};

// kRows is the number of rows or the next that there is a version for; rows beyond are computed from what is
// there and thrown away.
template <int kRows>
VOLLEY_AMX void multiply_q8_0_group(const GroupedProductArgs& args, const RowSlice& slice, int64_t group,
                                    AheadLines& ahead) {
  alignas(64) int32_t dots[2][kRowTile * kGroupColumns];
  const int64_t blocks = args.segment_depth / kDepthStep, stride = args.row_stride;
  const auto* x = static_cast<const int8_t*>(args.x) + slice.first * stride;
  const float* row_scales = args.row_scales + slice.first;
  const std::byte* quants = args.panels + group * blocks * kBlockBytes;
  const uint16_t* scales = args.scales + group * blocks * kGroupColumns;
  __m512 sums[kRows];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  int64_t b = 0;
  for (; b + 2 <= blocks; b += 2, x += 2 * kDepthStep, quants += 2 * kBlockBytes) {
    if (slice.is_alone) {
      prefetch_tile(quants);  // both blocks
    } else {
      ahead.step();
    }
    _tile_zero(0);
    _tile_loadd(4, x, stride);
    _tile_loadd(6, quants, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_zero(1);
    _tile_loadd(5, x + kDepthStep, stride);
    _tile_loadd(7, quants + kBlockBytes, 64);
    _tile_dpbssd(1, 5, 7);
    _tile_stored(0, dots[0], 64);
    _tile_stored(1, dots[1], 64);
    for (int i = 0; i < 2; ++i, scales += kGroupColumns, row_scales += args.scale_stride) {
      add_block<kRows>(dots[i], scales, row_scales, sums);
    }
  }
  if (b < blocks) {
    _tile_zero(0);
    _tile_loadd(4, x, stride);
    _tile_loadd(6, quants, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_stored(0, dots[0], 64);
    add_block<kRows>(dots[0], scales, row_scales, sums);
  }
  float* out = args.out + (slice.first * args.groups + group) * kGroupColumns;
  for (int r = 0; r < kRows && r < slice.rows; ++r) {
    _mm512_storeu_ps(out + r * args.groups * kGroupColumns, sums[r]);
  }
}

VOLLEY_AMX void multiply_q8_0_slice(const GroupedProductArgs& args, const RowSlice& slice, int64_t tile_rows,
                                    int64_t group, AheadLines& ahead) {
  if (tile_rows <= 1) return multiply_q8_0_group<1>(args, slice, group, ahead);
  if (tile_rows <= 2) return multiply_q8_0_group<2>(args, slice, group, ahead);
  if (tile_rows <= 4) return multiply_q8_0_group<4>(args, slice, group, ahead);
  if (tile_rows <= 6) return multiply_q8_0_group<6>(args, slice, group, ahead);
  if (tile_rows <= 8) return multiply_q8_0_group<8>(args, slice, group, ahead);
  if (tile_rows <= 12) return multiply_q8_0_group<12>(args, slice, group, ahead);
  multiply_q8_0_group<16>(args, slice, group, ahead);
}

// A group stays in the cache while all rows are multiplied with it and the next one is asked for.
VOLLEY_AMX void multiply_q8_0_tiles(const GroupedProductArgs& args) {
  const RowBlocks slices(args.rows, kRowTile);
  const int64_t tile_rows = (args.rows + slices.count - 1) / slices.count;  // of the largest slice
  const int64_t group_bytes = args.segment_depth * kGroupColumns;
  const int64_t steps = slices.count * (args.segment_depth / (2 * kDepthStep)) + 1;
  const TileConfig config = q8_0_config(tile_rows);
  _tile_loadconfig(&config);
  for (int64_t group = 0; group < args.groups; ++group) {
    const bool is_last = group + 1 == args.groups;
    AheadLines ahead(
        is_last ? static_cast<const std::byte*>(args.next.panels) : args.panels + (group + 1) * group_bytes,
        is_last ? std::min(args.next.panel_bytes, group_bytes) : group_bytes, steps);
    for (int64_t s = 0; s < slices.count; ++s) {
      const RowSlice slice{.first = slices.begin(s), .rows = slices.size(s), .is_alone = slices.count == 1};
      multiply_q8_0_slice(args, slice, tile_rows, group, ahead);
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace volley
