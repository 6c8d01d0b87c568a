#pragma once

// Products of q8_0 weights by VPDPBUSD; part of avx512_products.cpp and amx_products.cpp.

#include "core/backend/cpu/avx512_words.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {
namespace {

struct Q8_0Words {
  using Ahead = Q8_0BlocksAhead;

  // VPDPBUSD takes the rows' quants unsigned, so 128 is added: 128 times the sum of the block's weights comes
  // off again.
  template <int kRows>
  struct Rows {
    alignas(32) uint8_t quants[kRows][kDepthStep];
    const int8_t* x;  // of the first row
    int64_t stride;
    const float* scales;
    int64_t scale_stride;

    VOLLEY_WORDS_INLINE Rows(const GroupedProductArgs& args, int64_t row)
        : x(static_cast<const int8_t*>(args.x) + row * args.row_stride),
          stride(args.row_stride),
          scales(args.row_scales + row),
          scale_stride(args.scale_stride) {}
    VOLLEY_WORDS_INLINE void read() {
      const __m256i bias = _mm256_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + r * stride));
        _mm256_store_si256(reinterpret_cast<__m256i*>(quants[r]), _mm256_xor_si256(values, bias));
      }
    }
    VOLLEY_WORDS_INLINE void advance() {
      x += kDepthStep;
      scales += scale_stride;
    }
  };

  // sums[r] += float(dots of a row and the block) * (weight scales * row scale).
  template <int kRows>
  VOLLEY_WORDS_INLINE static void add_block(const Rows<kRows>& rows, const std::byte* block,
                                            const uint16_t* scales, __m512 (&sums)[kRows]) {
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
      const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(rows.scales[r]));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, sums[r]);
    }
  }
};

}  // namespace
}  // namespace volley
