#pragma once

// How kernels that multiply few rows ask for the groups of a weight that they read next.

#include <cstddef>
#include <cstdint>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {

// Asks for tiles of a weight, some ahead of the one that is multiplied and in the same group, and at the end
// of a group in the one that takes its place: reading never stops.
class TilesAhead {
 public:
  // For groups of so many tiles; those of one ask for none of the next. `bytes_ahead`: of tiles of a group.
  // `to_next`: bytes from a group's end to the group that takes its place.
  TilesAhead(int64_t tiles, int64_t tile_bytes, int64_t bytes_ahead, int64_t to_next)
      : left_(tiles - bytes_ahead / tile_bytes), distance_(bytes_ahead), to_next_(to_next) {}

  // Before each tile of a group.
  void step() {
    if (left_-- == 0) distance_ += to_next_;
  }
  // kBytes: of a tile.
  template <int64_t kBytes>
  void ask(const std::byte* tile) const {
    const intptr_t ahead = reinterpret_cast<intptr_t>(tile) + distance_;
#pragma GCC unroll 16
    for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(reinterpret_cast<const void*>(ahead + at));
  }

 private:
  int64_t left_;
  int64_t distance_;
  int64_t to_next_;
};

// Bytes from the end of a group to the one that takes its place where `together` are multiplied side by side,
// from `group` on.
inline int64_t to_next_groups(const GroupedProductArgs& args, int64_t group, int64_t together,
                              int64_t group_bytes) {
  if (group + together < args.groups) return (together - 1) * group_bytes;
  if (args.next.panels == nullptr) return 0;
  return reinterpret_cast<intptr_t>(args.next.panels) -
         reinterpret_cast<intptr_t>(args.panels + (group + 1) * group_bytes);
}

// Asks for the blocks of quantised groups side by side that come next, and for the scales of the groups that
// take their place. kBlockBytes, kBlockScales: of a block of the depth and a group.
template <int64_t kBlockBytes, int64_t kBlockScales>
class BlocksAhead {
 public:
  static constexpr int64_t kBytes = kBlockBytes, kScales = kBlockScales;

  BlocksAhead(const GroupedProductArgs& args, int64_t group, int64_t together, int64_t bytes_ahead)
      : blocks_of_group_(args.segment_depth / kDepthStep),
        tiles_(blocks_of_group_, kBlockBytes, bytes_ahead,
               to_next_groups(args, group, together, blocks_of_group_ * kBlockBytes)),
        scales_(group + together < args.groups
                    ? args.scales + (group + together) * blocks_of_group_ * kBlockScales
                    : static_cast<const uint16_t*>(args.next.scales)) {}
  // Before a block of the first of the groups or of another is multiplied. `block_of_round`: where kernels
  // have rounds of several blocks.
  void operator()(const std::byte* block, int64_t group, [[maybe_unused]] int64_t block_of_round = 0) {
    if (group == 0) {
      tiles_.step();
      ++block_;
    }
    tiles_.template ask<kBlockBytes>(block);
    constexpr int64_t kBlocksOfLine = 64 / (kBlockScales * 2);
    if (block_ % kBlocksOfLine == kBlocksOfLine - 1 && scales_ != nullptr) {
      __builtin_prefetch(scales_ + (group * blocks_of_group_ + block_) * kBlockScales);
    }
  }

 private:
  int64_t blocks_of_group_;
  TilesAhead tiles_;
  const uint16_t* scales_;
  int64_t block_ = -1;  // before the first
};

using Q8_0BlocksAhead = BlocksAhead<kDepthStep * kGroupColumns, kGroupColumns>;
using Q4_1BlocksAhead = BlocksAhead<kDepthStep * kGroupColumns / 2, 2 * kGroupColumns>;

}  // namespace volley
