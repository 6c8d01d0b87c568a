#pragma once

// What the kernels of attention over the paged cache share: their arguments, the rows of a block, the grid.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/visible_keys.h"

namespace volley::cuda {

inline constexpr int kMostRows = 4;  // of a block: they share what is read

struct CacheAttention {
  RowTables tables;
  PlaneLayout layout;
  KeySource source;
  const float* q;
  const std::byte* keys;
  const std::byte* values;
  int64_t rows;
  int64_t together;  // rows that lie side by side and are likely of one sequence
  int heads;
  int group_heads;  // heads of a group
  float scale;
  float* out;

  // Offset of a head's group in a page.
  __device__ int64_t group_offset(int head) const { return head / group_heads * layout.group_stride(); }
};

inline CacheAttention device_args(const AttentionArgs& args) {
  return {.tables = RowTables(args.step, args.cache, args.first_row),
          .layout = PlaneLayout(args.plane),
          .source = args.source,
          .q = args.q.data,
          .keys = args.plane.keys,
          .values = args.plane.values,
          .rows = args.q.shape[0],
          .together = 1,
          .heads = static_cast<int>(args.q.shape[1]),
          .group_heads = static_cast<int>(args.q.shape[1] / args.plane.shape[1]),
          .scale = args.scale,
          .out = args.out.data};
}

// The rows of a block and their keys. In memory that the block shares.
template <int kRows>
struct BlockRows {
  alignas(16) std::byte memory[kRows * sizeof(VisibleKeys)];
  int counts[kRows];  // keys of each row, or kInactive: it is left alone

  static constexpr int kInactive = -1;

  __device__ const VisibleKeys& visible(int row) const {
    return reinterpret_cast<const VisibleKeys*>(memory)[row];
  }

  struct Range {
    int64_t first;
    int64_t end;  // beyond the rows that lie together
  };
  // Of the index-th rows that are taken together.
  static __device__ Range range(const CacheAttention& args, unsigned index) {
    const auto parts = static_cast<unsigned>((args.together + kRows - 1) / kRows);
    const int64_t part = index % parts, begin = index / parts * args.together;
    return {.first = begin + part * kRows, .end = min(args.rows, begin + args.together)};
  }

  // Of one row by each of `kRows` threads; the others may read behind a barrier. Reads tables only.
  __device__ void find(const CacheAttention& args, const Range& rows, int own) {
    if (own >= kRows) return;
    counts[own] = kInactive;
    if (rows.first + own >= rows.end) return;
    const VisibleKeys keys(args.tables, args.source, rows.first + own);
    reinterpret_cast<VisibleKeys*>(memory)[own] = keys;
    if (keys.active()) counts[own] = static_cast<int>(keys.size());
  }
};

// What is known of the rows of a block together.
template <int kRows>
struct RowCounts {
  int most = BlockRows<kRows>::kInactive;  // keys
  int shared = 0;                          // keys before this one are the same for all active rows

  explicit __device__ RowCounts(const BlockRows<kRows>& rows) {
    shared = max(rows.counts[0], 0);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      most = max(most, rows.counts[r]);
      if (r > 0 && rows.counts[r] >= 0)
        shared = rows.counts[0] < 0 ? 0 : min(shared, rows.visible(0).shared_with(rows.visible(r)));
    }
  }

  __device__ bool any() const {
    return most >= 0;
  }
};

// Calls `run` with the number of rows that a block shall take, as a constant: rows of one sequence lie side
// by side.
template <typename Run>
void with_rows(int64_t rows_together, const Run& run) {
  if (rows_together >= 3) {
    run(std::integral_constant<int, kMostRows>());
  } else if (rows_together >= 2) {
    run(std::integral_constant<int, 2>());
  } else {
    run(std::integral_constant<int, 1>());
  }
}

// Few rows are better spread over the device than read together.
inline bool is_few(const AttentionArgs& args) {
  constexpr int64_t kFewBlocks = 256;
  return args.q.shape[0] * args.q.shape[1] <= kFewBlocks;
}

// Rows of one sequence, where all have as many. Blocks whose rows belong to several share nothing; without
// one count for all, rows go as they come.
inline int64_t rows_together(const AttentionArgs& args) {
  const int64_t rows = args.q.shape[0];
  const int64_t sequences = std::max<int64_t>(args.step.sequence_slot.size(), 1);
  return rows % sequences == 0 ? rows / sequences : rows;
}

// Where attention of a block of `count` rows and a head is launched.
struct AttentionGrid {
  AttentionGrid(const AttentionArgs& args, int64_t count) : device(device_args(args)) {
    device.together = rows_together(args);
    blocks = dim3(static_cast<unsigned>(args.q.shape[1]),
                  blocks_of(device.rows, device.together) * blocks_of(device.together, count));
  }

  CacheAttention device;
  dim3 blocks;
};

}  // namespace volley::cuda
