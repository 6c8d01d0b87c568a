#pragma once

// Products of bf16 weights by AMX; part of amx_products.cpp.

#include <immintrin.h>

#include <algorithm>

#include "core/backend/cpu/ahead_lines.h"
#include "core/backend/cpu/amx_tiles.h"
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/groups_ahead.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {
namespace {

// Tiles 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 groups of the weight.
TileConfig bf16_config(int64_t upper_rows, int64_t lower_rows) {
  TileConfig config;
  const auto set = [&](int tile, int64_t rows) {
    config.rows[tile] = static_cast<uint8_t>(rows);
    config.column_bytes[tile] = 64;
  };
  for (const int tile : {0, 1, 4}) set(tile, upper_rows);
  for (const int tile : {2, 3, 5}) set(tile, lower_rows);
  for (const int tile : {6, 7}) set(tile, 16);
  return config;
}

constexpr int64_t kTileBytes = kDepthStep * kGroupColumns * 2;  // of a weight

int64_t group_bytes_of(const GroupedProductArgs& args) {
  return args.segments * args.segment_depth * kGroupColumns * 2;
}

// For `together` groups that are multiplied side by side.
TilesAhead tiles_ahead_of(const GroupedProductArgs& args, int64_t group, int64_t together) {
  const int64_t bytes = group_bytes_of(args);
  return TilesAhead(bytes / kTileBytes, kTileBytes, kTileBytesAhead,
                    to_next_groups(args, group, together, bytes));
}

// Up to 16 rows times four groups; the tile configuration has upper = lower = the rows.
VOLLEY_AMX void multiply_four_groups(const GroupedProductArgs& args, const uint16_t* x, int64_t group,
                                     float* out) {
  const int64_t group_bytes = group_bytes_of(args);
  const std::byte* panel = args.panels + group * group_bytes;
  TilesAhead ahead = tiles_ahead_of(args, group, 4);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* row = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += kTileBytes) {
      ahead.step();
      _tile_loadd(4, row + k, args.row_stride * 2);
      ahead.ask<kTileBytes>(panel);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
      ahead.ask<kTileBytes>(panel + group_bytes);
      _tile_loadd(7, panel + group_bytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      ahead.ask<kTileBytes>(panel + 2 * group_bytes);
      _tile_loadd(6, panel + 2 * group_bytes, 64);
      _tile_dpbf16ps(2, 4, 6);
      ahead.ask<kTileBytes>(panel + 3 * group_bytes);
      _tile_loadd(7, panel + 3 * group_bytes, 64);
      _tile_dpbf16ps(3, 4, 7);
    }
  }
  const int64_t stride = args.groups * kGroupColumns * 4;
  _tile_stored(0, out, stride);
  _tile_stored(1, out + 16, stride);
  _tile_stored(2, out + 32, stride);
  _tile_stored(3, out + 48, stride);
}

// Up to 16 rows times one group.
VOLLEY_AMX void multiply_one_group(const GroupedProductArgs& args, const uint16_t* x, int64_t group,
                                   float* out) {
  const std::byte* panel = args.panels + group * group_bytes_of(args);
  TilesAhead ahead = tiles_ahead_of(args, group, 1);
  _tile_zero(0);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* row = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += kTileBytes) {
      ahead.step();
      _tile_loadd(4, row + k, args.row_stride * 2);
      ahead.ask<kTileBytes>(panel);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
  }
  _tile_stored(0, out, args.groups * kGroupColumns * 4);
}

// 17 to 32 rows times two groups: the tiles of the first 16 rows are the upper ones.
VOLLEY_AMX void multiply_two_by_two(const GroupedProductArgs& args, const uint16_t* x, int64_t group,
                                    AheadLines ahead, float* out) {
  const int64_t group_bytes = group_bytes_of(args);
  const std::byte* panel = args.panels + group * group_bytes;
  const int64_t x_stride = args.row_stride * 2;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* upper = x + args.offsets[s];
    const uint16_t* lower = upper + 16 * args.row_stride;
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += kTileBytes) {
      ahead.step();
      _tile_loadd(4, upper + k, x_stride);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + group_bytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, lower + k, x_stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  const int64_t out_stride = args.groups * kGroupColumns;
  _tile_stored(0, out, out_stride * 4);
  _tile_stored(1, out + 16, out_stride * 4);
  _tile_stored(2, out + 16 * out_stride, out_stride * 4);
  _tile_stored(3, out + 16 * out_stride + 16, out_stride * 4);
}

VOLLEY_AMX void multiply_two_by_one(const GroupedProductArgs& args, const uint16_t* x, int64_t group,
                                    float* out) {
  const std::byte* panel = args.panels + group * group_bytes_of(args);
  const int64_t x_stride = args.row_stride * 2;
  _tile_zero(0);
  _tile_zero(2);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* upper = x + args.offsets[s];
    const uint16_t* lower = upper + 16 * args.row_stride;
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += kTileBytes) {
      _tile_loadd(4, upper + k, x_stride);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, lower + k, x_stride);
      _tile_dpbf16ps(2, 5, 6);
    }
  }
  const int64_t out_stride = args.groups * kGroupColumns;
  _tile_stored(0, out, out_stride * 4);
  _tile_stored(2, out + 16 * out_stride, out_stride * 4);
}

VOLLEY_AMX void multiply_bf16_tiles(const GroupedProductArgs& args) {
  const auto* x = static_cast<const uint16_t*>(args.x);
  const int64_t out_stride = args.groups * kGroupColumns;
  const int64_t steps = args.segments * (args.segment_depth / kDepthStep);
  const int64_t group_bytes = steps * kDepthStep * kGroupColumns * 2;
  // The first rows ask for the groups behind those that they are multiplied with; the others find them there.
  const auto ahead_of = [&](int64_t group, int64_t row) {
    if (row > 0) return AheadLines(nullptr, 0, steps);
    const int64_t next = group + 2, count = std::min<int64_t>(2, args.groups - next);
    if (count <= 0) return AheadLines(args.next.panels, args.next.panel_bytes, steps);
    return AheadLines(args.panels + next * group_bytes, count * group_bytes, steps);
  };
  for (int64_t r = 0; r < args.rows; r += 32) {
    const int64_t rows = std::min<int64_t>(32, args.rows - r);
    const TileConfig config = rows > 16 ? bf16_config(16, rows - 16) : bf16_config(rows, rows);
    _tile_loadconfig(&config);
    const uint16_t* from = x + r * args.row_stride;
    float* out = args.out + r * out_stride;
    int64_t group = 0;
    if (rows > 16) {
      for (; group + 2 <= args.groups; group += 2) {
        multiply_two_by_two(args, from, group, ahead_of(group, r), out + group * kGroupColumns);
      }
      if (group < args.groups) multiply_two_by_one(args, from, group, out + group * kGroupColumns);
    } else {
      for (; group + 4 <= args.groups; group += 4) {
        multiply_four_groups(args, from, group, out + group * kGroupColumns);
      }
      for (; group < args.groups; ++group) {
        multiply_one_group(args, from, group, out + group * kGroupColumns);
      }
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace volley
