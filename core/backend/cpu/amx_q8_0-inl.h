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

// How far ahead of the multiplication quants are fetched into the caches.
constexpr int64_t kQuantPrefetchBytes = 2048;

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

// Asks for the lines of the groups behind, a share of them in each step.
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

// A block of the rows times a block of a group.
struct BlockPlace {
  const int8_t* x = nullptr;
  const std::byte* quants = nullptr;
  const uint16_t* scales = nullptr;
  const float* row_scales = nullptr;
};

// Two blocks; kFetches: asks for what lies behind their quants.
template <bool kFetches>
VOLLEY_AMX inline void multiply_two_blocks(const BlockPlace (&blocks)[2], int64_t stride,
                                           int32_t (&dots)[2][kRowTile * kGroupColumns]) {
  if constexpr (kFetches) {
    for (const BlockPlace& block : blocks) {
      for (int64_t line = 0; line < kBlockBytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(block.quants + kQuantPrefetchBytes + line), _MM_HINT_T0);
      }
    }
  }
  _tile_zero(0);
  _tile_loadd(4, blocks[0].x, stride);
  _tile_loadd(6, blocks[0].quants, 64);
  _tile_dpbssd(0, 4, 6);
  _tile_zero(1);
  _tile_loadd(5, blocks[1].x, stride);
  _tile_loadd(7, blocks[1].quants, 64);
  _tile_dpbssd(1, 5, 7);
  _tile_stored(0, dots[0], 64);
  _tile_stored(1, dots[1], 64);
}

// One group, or two side by side where their sums stay in registers: memory is read faster in two places.
// kRows is the number of rows or the next that there is a version for; rows beyond are computed from what is
// there and thrown away.
template <int kRows, int kGroups>
VOLLEY_AMX void multiply_q8_0_groups(const GroupedProductArgs& args, const RowSlice& slice, int64_t group,
                                     AheadLines& ahead) {
  alignas(64) int32_t dots[2][kRowTile * kGroupColumns];
  const int64_t blocks = args.segment_depth / kDepthStep;
  __m512 sums[kGroups][kRows];
  for (auto& of_group : sums) {
    for (auto& sum : of_group) sum = _mm512_setzero_ps();
  }
  BlockPlace first{.x = static_cast<const int8_t*>(args.x) + slice.first * args.row_stride,
                   .quants = args.panels + group * blocks * kBlockBytes,
                   .scales = args.scales + group * blocks * kGroupColumns,
                   .row_scales = args.row_scales + slice.first};
  const auto moved = [&](BlockPlace place, int64_t depth, int64_t lines) {
    place.x += depth * kDepthStep;
    place.quants += lines * kBlockBytes;
    place.scales += lines * kGroupColumns;
    place.row_scales += depth * args.scale_stride;
    return place;
  };
  constexpr int64_t kStep = 2 / kGroups;  // blocks of the depth
  int64_t b = 0;
  for (; b + kStep <= blocks; b += kStep, first = moved(first, kStep, kStep)) {
    const BlockPlace places[2] = {first, kGroups == 2 ? moved(first, 0, blocks) : moved(first, 1, 1)};
    if (slice.is_alone) {
      multiply_two_blocks<true>(places, args.row_stride, dots);
    } else {
      ahead.step();
      multiply_two_blocks<false>(places, args.row_stride, dots);
    }
    add_block<kRows>(dots[0], places[0].scales, places[0].row_scales, sums[0]);
    add_block<kRows>(dots[1], places[1].scales, places[1].row_scales, sums[kGroups - 1]);
  }
  if (b < blocks) {  // one is left
    multiply_two_blocks<false>({first, first}, args.row_stride, dots);
    add_block<kRows>(dots[0], first.scales, first.row_scales, sums[0]);
  }
  float* out = args.out + (slice.first * args.groups + group) * kGroupColumns;
  for (int r = 0; r < kRows && r < slice.rows; ++r, out += args.groups * kGroupColumns) {
    for (int g = 0; g < kGroups; ++g) _mm512_storeu_ps(out + g * kGroupColumns, sums[g][r]);
  }
}

// Groups [group, end), at most two.
template <int kRows>
VOLLEY_AMX void multiply_q8_0_rows(const GroupedProductArgs& args, const RowSlice& slice, int64_t group,
                                   int64_t end, AheadLines& ahead) {
  if constexpr (kRows <= 8) {
    if (end - group == 2) return multiply_q8_0_groups<kRows, 2>(args, slice, group, ahead);
  }
  for (; group < end; ++group) multiply_q8_0_groups<kRows, 1>(args, slice, group, ahead);
}

VOLLEY_AMX void multiply_q8_0_slice(const GroupedProductArgs& args, const RowSlice& slice, int64_t tile_rows,
                                    int64_t group, int64_t end, AheadLines& ahead) {
  if (tile_rows <= 1) return multiply_q8_0_rows<1>(args, slice, group, end, ahead);
  if (tile_rows <= 2) return multiply_q8_0_rows<2>(args, slice, group, end, ahead);
  if (tile_rows <= 4) return multiply_q8_0_rows<4>(args, slice, group, end, ahead);
  if (tile_rows <= 6) return multiply_q8_0_rows<6>(args, slice, group, end, ahead);
  if (tile_rows <= 8) return multiply_q8_0_rows<8>(args, slice, group, end, ahead);
  if (tile_rows <= 12) return multiply_q8_0_rows<12>(args, slice, group, end, ahead);
  multiply_q8_0_rows<16>(args, slice, group, end, ahead);
}

// Two groups stay in the cache while all rows are multiplied with them and the next ones are asked for.
VOLLEY_AMX void multiply_q8_0_tiles(const GroupedProductArgs& args) {
  const RowBlocks slices(args.rows, kRowTile);
  const int64_t tile_rows = (args.rows + slices.count - 1) / slices.count;  // of the largest slice
  const int64_t group_bytes = args.segment_depth * kGroupColumns, blocks = args.segment_depth / kDepthStep;
  const TileConfig config = q8_0_config(tile_rows);
  _tile_loadconfig(&config);
  for (int64_t group = 0; group < args.groups; group += 2) {
    const int64_t end = std::min(group + 2, args.groups), next = std::min(end + 2, args.groups);
    AheadLines ahead(
        next > end ? args.panels + end * group_bytes : static_cast<const std::byte*>(args.next.panels),
        next > end ? (next - end) * group_bytes : args.next.panel_bytes, slices.count * blocks);
    for (int64_t s = 0; s < slices.count; ++s) {
      const RowSlice slice{.first = slices.begin(s), .rows = slices.size(s), .is_alone = slices.count == 1};
      multiply_q8_0_slice(args, slice, tile_rows, group, end, ahead);
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace volley
