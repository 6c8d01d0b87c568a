#pragma once

// What products by AMX have in common. Files that include it use VOLLEY_AMX functions only where has_amx().

#include <immintrin.h>

#include <array>
#include <cstddef>
#include <cstdint>

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

// How far ahead of the multiplication a weight is fetched into the caches.
inline constexpr int64_t kPrefetchBytes = 2048;

// Asks for as much as a tile of a weight takes, 1024 bytes, so far behind it.
VOLLEY_AMX inline void prefetch_tile(const std::byte* tile) {
  for (int64_t line = 0; line < 16; ++line) {
    _mm_prefetch(reinterpret_cast<const char*>(tile + kPrefetchBytes + line * 64), _MM_HINT_T0);
  }
}

}  // namespace volley
