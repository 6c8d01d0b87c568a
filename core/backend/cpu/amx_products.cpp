// Products by AMX tiles: 16 rows of 64 bytes, multiplied 16 x 16 outputs at a time.
// Ref: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
#include "core/backend/cpu/grouped_products.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "core/backend/cpu/packed_weight.h"
#include "hwy/targets.h"

#define VOLLEY_AMX \
  __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,f16c")))

namespace volley {
namespace {

// Operand of LDTILECFG.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved{};
  std::array<uint16_t, 16> column_bytes{};
  std::array<uint8_t, 16> rows{};
};
static_assert(sizeof(TileConfig) == 64);

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

// How far ahead of the multiplication a weight is fetched into the caches.
constexpr int64_t kPrefetchBytes = 3072;

VOLLEY_AMX inline void prefetch_tile(const std::byte* tile) {
  for (int64_t line = 0; line < 16; ++line) {
    _mm_prefetch(reinterpret_cast<const char*>(tile + kPrefetchBytes + line * 64), _MM_HINT_T0);
  }
}

// Up to 16 rows times four groups; the tile configuration has upper = lower = the rows.
VOLLEY_AMX void multiply_four_groups(const GroupedProductArgs& args, const uint16_t* x, int64_t group,
                                     float* out) {
  const int64_t group_bytes = args.segments * args.segment_depth * kGroupColumns * 2;
  const std::byte* panel = args.panels + group * group_bytes;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* row = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += 1024) {
      _tile_loadd(4, row + k, args.row_stride * 2);
      prefetch_tile(panel);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
      prefetch_tile(panel + group_bytes);
      _tile_loadd(7, panel + group_bytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      prefetch_tile(panel + 2 * group_bytes);
      _tile_loadd(6, panel + 2 * group_bytes, 64);
      _tile_dpbf16ps(2, 4, 6);
      prefetch_tile(panel + 3 * group_bytes);
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
  const std::byte* panel = args.panels + group * args.segments * args.segment_depth * kGroupColumns * 2;
  _tile_zero(0);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* row = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += 1024) {
      _tile_loadd(4, row + k, args.row_stride * 2);
      prefetch_tile(panel);
      _tile_loadd(6, panel, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
  }
  _tile_stored(0, out, args.groups * kGroupColumns * 4);
}

// 17 to 32 rows times two groups: the tiles of the first 16 rows are the upper ones.
VOLLEY_AMX void multiply_two_by_two(const GroupedProductArgs& args, const uint16_t* x, int64_t group,
                                    float* out) {
  const int64_t group_bytes = args.segments * args.segment_depth * kGroupColumns * 2;
  const std::byte* panel = args.panels + group * group_bytes;
  const int64_t x_stride = args.row_stride * 2;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* upper = x + args.offsets[s];
    const uint16_t* lower = upper + 16 * args.row_stride;
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += 1024) {
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
  const std::byte* panel = args.panels + group * args.segments * args.segment_depth * kGroupColumns * 2;
  const int64_t x_stride = args.row_stride * 2;
  _tile_zero(0);
  _tile_zero(2);
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* upper = x + args.offsets[s];
    const uint16_t* lower = upper + 16 * args.row_stride;
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += 1024) {
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
  for (int64_t r = 0; r < args.rows; r += 32) {
    const int64_t rows = std::min<int64_t>(32, args.rows - r);
    const TileConfig config = rows > 16 ? bf16_config(16, rows - 16) : bf16_config(rows, rows);
    _tile_loadconfig(&config);
    const uint16_t* from = x + r * args.row_stride;
    float* out = args.out + r * out_stride;
    int64_t group = 0;
    if (rows > 16) {
      for (; group + 2 <= args.groups; group += 2) {
        multiply_two_by_two(args, from, group, out + group * kGroupColumns);
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

// ---- q8_0

// Tiles 0 to 3 are the integer sums of four blocks, 4 and 5 their rows, 6 and 7 their quants.
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

constexpr int64_t kBlockBytes = kDepthStep * kGroupColumns;

// sums[r] += float(dots[r]) * (weight scales * row scale), for one block.
template <int kRows>
VOLLEY_AMX inline void add_block(const int32_t* dots, const uint16_t* scales, const float* row_scales,
                                 int64_t blocks, __m512* sums) {
  const __m512 weight_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
  for (int r = 0; r < kRows; ++r) {
    const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(row_scales[r * blocks]));
    const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + r * 16));
    sums[r] = _mm512_fmadd_ps(dot, scale, sums[r]);
  }
}

// kRows is the number of rows or the next that there is a version for; rows beyond are computed from what is
// there and thrown away.
template <int kRows>
VOLLEY_AMX void multiply_q8_0_group(const GroupedProductArgs& args, int64_t first_row, int64_t rows,
                                    int64_t group) {
  alignas(64) int32_t dots[4][kRows * 16];
  const int64_t blocks = args.segment_depth / kDepthStep;
  const auto* x = static_cast<const int8_t*>(args.x) + first_row * args.row_stride;
  const float* row_scales = args.row_scales + first_row * blocks;
  const std::byte* panel = args.panels + group * blocks * kBlockBytes;
  const uint16_t* scales = args.scales + group * blocks * kGroupColumns;
  __m512 sums[kRows];
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  if constexpr (kRows > 1) {
    for (auto& tile : dots) std::fill(std::begin(tile), std::end(tile), 0);
  }
  int64_t b = 0;
  for (; b + 4 <= blocks; b += 4) {
    const std::byte* quants = panel + b * kBlockBytes;
    prefetch_tile(quants);
    prefetch_tile(quants + 1024);
    _tile_zero(0);
    _tile_loadd(4, x + b * 32, args.row_stride);
    _tile_loadd(6, quants, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_zero(1);
    _tile_loadd(5, x + b * 32 + 32, args.row_stride);
    _tile_loadd(7, quants + kBlockBytes, 64);
    _tile_dpbssd(1, 5, 7);
    _tile_zero(2);
    _tile_loadd(4, x + b * 32 + 64, args.row_stride);
    _tile_loadd(6, quants + 2 * kBlockBytes, 64);
    _tile_dpbssd(2, 4, 6);
    _tile_zero(3);
    _tile_loadd(5, x + b * 32 + 96, args.row_stride);
    _tile_loadd(7, quants + 3 * kBlockBytes, 64);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(0, dots[0], 64);
    _tile_stored(1, dots[1], 64);
    _tile_stored(2, dots[2], 64);
    _tile_stored(3, dots[3], 64);
    for (int i = 0; i < 4; ++i) {
      add_block<kRows>(dots[i], scales + (b + i) * kGroupColumns, row_scales + b + i, blocks, sums);
    }
  }
  for (; b < blocks; ++b) {
    _tile_zero(0);
    _tile_loadd(4, x + b * 32, args.row_stride);
    _tile_loadd(6, panel + b * kBlockBytes, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_stored(0, dots[0], 64);
    add_block<kRows>(dots[0], scales + b * kGroupColumns, row_scales + b, blocks, sums);
  }
  float* out = args.out + first_row * args.groups * kGroupColumns + group * kGroupColumns;
  for (int r = 0; r < kRows; ++r) {
    if (r < rows) _mm512_storeu_ps(out + r * args.groups * kGroupColumns, sums[r]);
  }
}

VOLLEY_AMX void multiply_q8_0_tiles(const GroupedProductArgs& args) {
  for (int64_t r = 0; r < args.rows; r += kRowTile) {
    const int64_t rows = std::min(kRowTile, args.rows - r);
    const TileConfig config = q8_0_config(rows);
    _tile_loadconfig(&config);
    for (int64_t group = 0; group < args.groups; ++group) {
      if (rows <= 1) {
        multiply_q8_0_group<1>(args, r, rows, group);
      } else if (rows <= 2) {
        multiply_q8_0_group<2>(args, r, rows, group);
      } else if (rows <= 4) {
        multiply_q8_0_group<4>(args, r, rows, group);
      } else if (rows <= 6) {
        multiply_q8_0_group<6>(args, r, rows, group);
      } else if (rows <= 8) {
        multiply_q8_0_group<8>(args, r, rows, group);
      } else if (rows <= 12) {
        multiply_q8_0_group<12>(args, r, rows, group);
      } else {
        multiply_q8_0_group<16>(args, r, rows, group);
      }
    }
  }
  _tile_release();
}

class AmxProducts : public GroupedProducts {
 public:
  std::string_view name() const override { return "amx"; }
  RowFormat row_format(WeightType type) const override {
    if (type == WeightType::kQ4_1) return vector_->row_format(type);
    return type == WeightType::kBF16 ? RowFormat::kBF16 : RowFormat::kSigned8;
  }
  void multiply_bf16(const GroupedProductArgs& args) const override { multiply_bf16_tiles(args); }
  void multiply_q8_0(const GroupedProductArgs& args) const override { multiply_q8_0_tiles(args); }
  void multiply_q4_1(const GroupedProductArgs& args) const override { vector_->multiply_q4_1(args); }

 private:
  const std::unique_ptr<const GroupedProducts> vector_ = make_vector_products();  // for 4-bit weights
};

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & kBf16) == 0 || (d & kTile) == 0 || (d & kInt8) == 0) return false;
  if ((hwy::SupportedTargets() & HWY_AVX3) == 0) return false;  // none there, or capped
  // Tile data are kept only for processes that ask. Ref: Linux, Documentation/arch/x86/xstate.rst.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

std::unique_ptr<const GroupedProducts> make_amx_products() {
  if (!has_amx()) return nullptr;
  return std::make_unique<AmxProducts>();
}

}  // namespace volley

#else

namespace volley {

std::unique_ptr<const GroupedProducts> make_amx_products() {
  return nullptr;
}

}  // namespace volley

#endif
