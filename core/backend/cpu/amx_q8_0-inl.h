#pragma once

// Products of q8_0 weights by AMX; part of amx_products.cpp.

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/backend/cpu/ahead_lines.h"
#include "core/backend/cpu/amx_tiles.h"
#include "core/backend/cpu/avx512_q8_0-inl.h"
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/groups_ahead.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {
namespace {

// Tiles 0 to 3 are the integer sums of a round, 4 and 5 rows, 6 and 7 quants.
TileConfig q8_0_config(int64_t rows) {
  TileConfig config;
  for (const int tile : {0, 1, 2, 3}) {
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

constexpr int64_t kTileNumbers = kRowTile * kGroupColumns;

// sums[r] += float(dots[r]) * (weight scales * row scale), for one block. This is what bounds the kernels:
// for some two hundred cycles after any instruction of tiles a core carries out one instruction of 512 bits a
// cycle and not two, and there are three for each row.
template <int kRows>
VOLLEY_AMX_INLINE inline void add_block(const int32_t* dots, const uint16_t* scales, const float* row_scales,
                                        __m512 (&sums)[kRows]) {
  const __m512 weight_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(row_scales[r]));
    const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + r * kGroupColumns));
    sums[r] = _mm512_fmadd_ps(dot, scale, sums[r]);
  }
}

// What is multiplied, stored and then scaled in one go.
struct Round {
  int groups = 1;
  int blocks = 1;  // of each group
  constexpr int tiles() const { return groups * blocks; }
};
// Where multiplying takes less time than reading, two groups are on their way at once; the sums of their rows
// must fit the registers.
constexpr Round kTwoGroups{.groups = 2};
// Else: with fewer tiles, multiplying and storing wait for each other.
constexpr Round kFourBlocks{.blocks = 4};

// Integer sums of a round, [blocks, groups] tiles: a block of one or two groups, or four blocks of one.
// Before each tile of quants ahead(quants, group, block of the round) asks for what is read later.
template <Round kRound, class Ahead>
VOLLEY_AMX inline void sum_round(const int8_t* x, int64_t stride, const std::byte* quants,
                                 int64_t group_bytes, Ahead& ahead, int32_t* dots) {
  ahead(quants, 0, 0);
  _tile_zero(0);
  _tile_loadd(4, x, stride);
  _tile_loadd(6, quants, 64);
  _tile_dpbssd(0, 4, 6);
  if constexpr (kRound.groups == 2) {
    ahead(quants + group_bytes, 1, 0);
    _tile_zero(1);
    _tile_loadd(7, quants + group_bytes, 64);
    _tile_dpbssd(1, 4, 7);
  } else if constexpr (kRound.blocks == 4) {
    ahead(quants + Q8_0BlocksAhead::kBytes, 0, 1);
    _tile_zero(1);
    _tile_loadd(5, x + kDepthStep, stride);
    _tile_loadd(7, quants + Q8_0BlocksAhead::kBytes, 64);
    _tile_dpbssd(1, 5, 7);
    ahead(quants + 2 * Q8_0BlocksAhead::kBytes, 0, 2);
    _tile_zero(2);
    _tile_loadd(4, x + 2 * kDepthStep, stride);
    _tile_loadd(6, quants + 2 * Q8_0BlocksAhead::kBytes, 64);
    _tile_dpbssd(2, 4, 6);
    ahead(quants + 3 * Q8_0BlocksAhead::kBytes, 0, 3);
    _tile_zero(3);
    _tile_loadd(5, x + 3 * kDepthStep, stride);
    _tile_loadd(7, quants + 3 * Q8_0BlocksAhead::kBytes, 64);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_stored(0, dots, 64);
  if constexpr (kRound.tiles() > 1) _tile_stored(1, dots + kTileNumbers, 64);
  if constexpr (kRound.tiles() > 2) {
    _tile_stored(2, dots + 2 * kTileNumbers, 64);
    _tile_stored(3, dots + 3 * kTileNumbers, 64);
  }
}

// Rows of one call that are computed together, at most kRowTile.
struct RowSlice {
  int64_t first = 0;
  int64_t rows = 0;
};

// kRows is the number of rows or the next that there is a version for; rows beyond are computed from what is
// there and thrown away.
template <int kRows, Round kRound, class Ahead>
VOLLEY_AMX void multiply_q8_0_groups(const GroupedProductArgs& args, const RowSlice& slice, int64_t group,
                                     Ahead& ahead) {
  alignas(64) int32_t dots[kRound.tiles() * kTileNumbers];
  const int64_t blocks = args.segment_depth / kDepthStep, stride = args.row_stride;
  const int64_t group_bytes = blocks * Q8_0BlocksAhead::kBytes, group_scales = blocks * kGroupColumns;
  const auto* x = static_cast<const int8_t*>(args.x) + slice.first * stride;
  const float* row_scales = args.row_scales + slice.first;
  const std::byte* quants = args.panels + group * group_bytes;
  const uint16_t* scales = args.scales + group * group_scales;
  __m512 sums[kRound.groups][kRows];
#pragma GCC unroll 2
  for (auto& of_group : sums) {
#pragma GCC unroll 16
    for (auto& sum : of_group) sum = _mm512_setzero_ps();
  }
  const auto run = [&]<Round kThis>() VOLLEY_AMX_INLINE {
    sum_round<kThis>(x, stride, quants, group_bytes, ahead, dots);
    // Every index is a constant, or compilers keep the sums in memory.
    const auto add = [&]<int t>() VOLLEY_AMX_INLINE {
      constexpr int b = t / kThis.groups, g = t % kThis.groups;
      add_block<kRows>(dots + t * kTileNumbers, scales + g * group_scales + b * kGroupColumns,
                       row_scales + b * args.scale_stride, sums[g]);
    };
    [&]<int... t>(std::integer_sequence<int, t...>) VOLLEY_AMX_INLINE {
      (add.template operator()<t>(), ...);
    }
    (std::make_integer_sequence<int, kThis.tiles()>());
    x += kThis.blocks * kDepthStep;
    quants += kThis.blocks * Q8_0BlocksAhead::kBytes;
    scales += kThis.blocks * kGroupColumns;
    row_scales += kThis.blocks * args.scale_stride;
  };
  int64_t b = 0;
  for (; b + kRound.blocks <= blocks; b += kRound.blocks) run.template operator()<kRound>();
  for (; b < blocks; ++b) run.template operator()<Round{.groups = kRound.groups}>();
#pragma GCC unroll 2
  for (int g = 0; g < kRound.groups; ++g) {
    float* out = args.out + (slice.first * args.groups + group + g) * kGroupColumns;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      if (r < slice.rows) _mm512_storeu_ps(out + r * args.groups * kGroupColumns, sums[g][r]);
    }
  }
}

template <int kRows>
VOLLEY_AMX void multiply_q8_0_few(const GroupedProductArgs& args) {
  const RowSlice all{.rows = args.rows};
  int64_t group = 0;
  for (; group + 2 <= args.groups; group += 2) {
    Q8_0BlocksAhead ahead(args, group, 2, kTileBytesAhead);
    multiply_q8_0_groups<kRows, kTwoGroups>(args, all, group, ahead);
  }
  if (group == args.groups) return;
  Q8_0BlocksAhead ahead(args, group, 1, kTileBytesAhead);
  multiply_q8_0_groups<kRows, kFourBlocks>(args, all, group, ahead);
}

// Asks for a slice's share of the group that is multiplied next, in four places by turns (AheadLines says
// why): of each place kLines lines in a round of four blocks. Without a count of what is due: whole numbers
// are added where vectors could be.
template <int kLines>
class GroupAhead {
 public:
  GroupAhead(const std::byte* group, int64_t group_bytes, const RowBlocks& slices, int64_t slice) {
    const int64_t place_lines = group_bytes / (kPlaces * kLine);
    for (int64_t p = 0; p < kPlaces; ++p) {
      places_[p] = group + (p * place_lines + place_lines * slice / slices.count) * kLine;
    }
  }
  void operator()(const std::byte*, int64_t, int64_t block) {
#pragma GCC unroll 2
    for (int64_t line = block * kLines / 4; line < (block + 1) * kLines / 4; ++line) {
#pragma GCC unroll 4
      for (const std::byte* place : places_) __builtin_prefetch(place + line * kLine, 0, 2);
    }
    if (block < 3) return;
#pragma GCC unroll 4
    for (const std::byte*& place : places_) place += kLines * kLine;
  }

 private:
  static constexpr int64_t kPlaces = 4, kLine = 64;
  const std::byte* places_[kPlaces];
};

// A group stays in the cache while all rows are multiplied with it and the next one is asked for.
template <int kRows, int kLines>
VOLLEY_AMX void multiply_q8_0_many(const GroupedProductArgs& args, const RowBlocks& slices) {
  const int64_t group_bytes = args.segment_depth * kGroupColumns;
  for (int64_t group = 0; group < args.groups; ++group) {
    const std::byte* next = args.panels + (group + 1) * group_bytes;
    if (group + 1 == args.groups) {
      const auto* behind = static_cast<const std::byte*>(args.next.panels);
      next = behind == nullptr ? args.panels : behind;
    }
    for (int64_t s = 0; s < slices.count; ++s) {
      GroupAhead<kLines> ahead(next, group_bytes, slices, s);
      multiply_q8_0_groups<kRows, kFourBlocks>(args, {.first = slices.begin(s), .rows = slices.size(s)},
                                               group, ahead);
    }
  }
}

template <int kRows>
VOLLEY_AMX void multiply_q8_0_many(const GroupedProductArgs& args, const RowBlocks& slices) {
  // A block is eight lines, two in each place: the slices share them.
  switch (slices.count) {
    case 1:
      return multiply_q8_0_many<kRows, 8>(args, slices);
    case 2:
      return multiply_q8_0_many<kRows, 4>(args, slices);
    case 3:
      return multiply_q8_0_many<kRows, 3>(args, slices);
    default:
      return multiply_q8_0_many<kRows, 2>(args, slices);
  }
}

VOLLEY_AMX void multiply_q8_0_tiles(const GroupedProductArgs& args) {
  // A tile takes as long for one row as for 16: of few rows vectors read memory faster.
  if (args.rows <= 2) return multiply_by_words<Q8_0Words>(args);
  const RowBlocks slices(args.rows, kRowTile);
  const int64_t tile_rows = (args.rows + slices.count - 1) / slices.count;  // of the largest slice
  const TileConfig config = q8_0_config(tile_rows);
  _tile_loadconfig(&config);
  if (tile_rows > 14) {
    multiply_q8_0_many<16>(args, slices);
  } else if (tile_rows > 12) {
    multiply_q8_0_many<14>(args, slices);
  } else if (slices.count > 1) {
    multiply_q8_0_many<12>(args, slices);
  } else if (tile_rows > 8) {
    multiply_q8_0_few<12>(args);
  } else if (tile_rows > 6) {
    multiply_q8_0_few<8>(args);
  } else if (tile_rows > 4) {
    multiply_q8_0_few<6>(args);
  } else {
    multiply_q8_0_few<4>(args);
  }
  _tile_release();
}

}  // namespace
}  // namespace volley
