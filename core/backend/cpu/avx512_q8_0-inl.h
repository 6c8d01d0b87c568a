#pragma once

// Products of q8_0 weights by VPDPBUSD; part of avx512_products.cpp and amx_products.cpp.

#include "core/backend/cpu/avx512_words.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {
namespace {

// Quants of some rows and a block. VPDPBUSD takes them unsigned, so 128 is added: 128 times the sum of the
// block's weights comes off again.
template <int kRows>
struct BiasedBlock {
  alignas(32) uint8_t quants[kRows][kDepthStep];

  VOLLEY_WORDS_INLINE BiasedBlock(const int8_t* x, int64_t stride) {
    const __m256i bias = _mm256_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + r * stride));
      _mm256_store_si256(reinterpret_cast<__m256i*>(quants[r]), _mm256_xor_si256(row, bias));
    }
  }
};

// sums[r] += float(dots of a row and a block of one group) * (weight scales * row scale).
template <int kRows>
VOLLEY_WORDS_INLINE inline void add_biased_block(const BiasedBlock<kRows>& rows, const float* row_scales,
                                                 const std::byte* block, const uint16_t* scales,
                                                 __m512 (&sums)[kRows]) {
  constexpr int kQuads = kDepthStep / 4;
  const __m512i bias = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i weights[kQuads];
  __m512i surplus = _mm512_setzero_si512(), others = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int q = 0; q < kQuads; q += 2) {
    weights[q] = _mm512_loadu_si512(block + q * 64);
    weights[q + 1] = _mm512_loadu_si512(block + q * 64 + 64);
    surplus = _mm512_dpbusd_epi32(surplus, bias, weights[q]);
    others = _mm512_dpbusd_epi32(others, bias, weights[q + 1]);
  }
  surplus = _mm512_add_epi32(surplus, others);
  const __m512 weight_scale = load_halves(scales);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    // Two sums, as each waits for the instruction before.
    __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int q = 0; q < kQuads; q += 2) {
      even = _mm512_dpbusd_epi32(even, every_quad(rows.quants[r] + q * 4), weights[q]);
      odd = _mm512_dpbusd_epi32(odd, every_quad(rows.quants[r] + q * 4 + 4), weights[q + 1]);
    }
    const __m512i dots = _mm512_sub_epi32(_mm512_add_epi32(even, odd), surplus);
    const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(row_scales[r]));
    sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, sums[r]);
  }
}

struct Q8_0Words {
  using Ahead = Q8_0BlocksAhead;

  template <int kRows, int kGroups, class Ahead>
  VOLLEY_WORDS static void multiply(const GroupedProductArgs& args, int64_t row, int64_t group,
                                    Ahead&& ahead) {
    constexpr int64_t kBlockBytes = Q8_0BlocksAhead::kBytes, kBlockScales = Q8_0BlocksAhead::kScales;
    const int64_t blocks = args.segment_depth / kDepthStep;
    const int64_t group_bytes = blocks * kBlockBytes, group_scales = blocks * kBlockScales;
    const auto* x = static_cast<const int8_t*>(args.x) + row * args.row_stride;
    const float* row_scales = args.row_scales + row;
    const std::byte* panel = args.panels + group * group_bytes;
    const uint16_t* scales = args.scales + group * group_scales;
    __m512 sums[kGroups][kRows];
    clear_sums(sums);
    for (int64_t b = 0; b < blocks; ++b) {
      const BiasedBlock<kRows> biased(x + b * kDepthStep, args.row_stride);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        const std::byte* block = panel + g * group_bytes + b * kBlockBytes;
        ahead(block, g);
        add_biased_block<kRows>(biased, row_scales + b * args.scale_stride, block,
                                scales + g * group_scales + b * kBlockScales, sums[g]);
      }
    }
    store_sums(args, row, group, sums);
  }
};

}  // namespace
}  // namespace volley
