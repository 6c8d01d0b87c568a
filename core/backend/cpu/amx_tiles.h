#pragma once

// What products by AMX have in common. Files that include it use VOLLEY_AMX functions only where has_amx().

#include <immintrin.h>

#include <array>
#include <cstdint>

#define VOLLEY_AMX \
  __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,f16c")))
// Of a part of a kernel: GCC keeps an array in registers only if it is inlined before loops are unrolled.
#define VOLLEY_AMX_INLINE VOLLEY_AMX __attribute__((always_inline))

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

// Bytes of tiles that few rows are to ask for ahead (groups_ahead.h).
inline constexpr int64_t kTileBytesAhead = 2048;

}  // namespace volley
