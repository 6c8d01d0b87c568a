#pragma once

// What products by AMX have in common. Files that include it use VOLLEY_AMX functions only where has_amx().

#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/backend/cpu/grouped_products.h"

#define VOLLEY_AMX \
  __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,f16c")))

namespace volley {

// Operand of LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved{};
  std::array<uint16_t, 16> column_bytes{};
  std::array<uint8_t, 16> rows{};
};
static_assert(sizeof(TileConfig) == 64);

// Asks for tiles of a weight, some ahead of the one that is multiplied and in the same group, and at the end
// of a group in the one that takes its place: reading never stops.
class TilesAhead {
 public:
  static constexpr int64_t kBytesAhead = 2048;

  // For groups of so many tiles; those of one ask for none of the next. `to_next`: bytes from a group's end
  // to the group that takes its place.
  TilesAhead(int64_t tiles, int64_t tile_bytes, int64_t to_next)
      : left_(tiles - kBytesAhead / tile_bytes), distance_(kBytesAhead), to_next_(to_next) {}

  // Before each tile of a group.
  void step() {
    if (left_-- == 0) distance_ += to_next_;
  }
  // kBytes: of a tile.
  template <int64_t kBytes>
  VOLLEY_AMX void ask(const std::byte* tile) const {
    const intptr_t ahead = reinterpret_cast<intptr_t>(tile) + distance_;
    for (int64_t at = 0; at < kBytes; at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead + at), _MM_HINT_T0);
    }
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

}  // namespace volley
