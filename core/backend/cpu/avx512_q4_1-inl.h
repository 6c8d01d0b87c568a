#pragma once

// Products of q4_1 weights by VPDPBUSD, which takes the 4-bit numbers as they are; part of
// avx512_products.cpp and amx_products.cpp.

#include "core/backend/cpu/avx512_words.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {
namespace {

// dots += the dot products of four 4-bit numbers in every lane and of four bytes, the same for all. As an
// instruction: compilers would broadcast the bytes once for two groups, and have no registers for all of
// them.
VOLLEY_WORDS_INLINE inline void add_quad_dots(__m512i& dots, __m512i numbers, const int8_t* quad) {
  using Quad __attribute__((may_alias)) = int32_t;
  asm("vpdpbusd %[quad]%{1to16%}, %[numbers], %[dots]"
      : [dots] "+v"(dots)
      : [quad] "m"(*reinterpret_cast<const Quad*>(quad)), [numbers] "v"(numbers));
}

struct Q4_1Words {
  using Ahead = Q4_1BlocksAhead;

  template <int kRows>
  struct Rows {
    const int8_t* x;  // of the first row
    int64_t stride;
    const float* scales;
    const float* sums;
    int64_t scale_stride;

    VOLLEY_WORDS_INLINE Rows(const GroupedProductArgs& args, int64_t row)
        : x(static_cast<const int8_t*>(args.x) + row * args.row_stride),
          stride(args.row_stride),
          scales(args.row_scales + row),
          sums(args.row_sums + row),
          scale_stride(args.scale_stride) {}
    VOLLEY_WORDS_INLINE void read() {}
    VOLLEY_WORDS_INLINE void advance() {
      x += kDepthStep;
      scales += scale_stride;
      sums += scale_stride;
    }
  };

  // As core/backend/q4_1.h says.
  template <int kRows>
  VOLLEY_WORDS_INLINE static void add_block(const Rows<kRows>& rows, const std::byte* block,
                                            const uint16_t* scales, __m512 (&sums)[kRows]) {
    constexpr int kQuads = kDepthStep / 4;
    const __m512i lower = _mm512_set1_epi8(15);
    __m512i weights[kQuads];
#pragma GCC unroll 4
    for (int q = 0; q < kQuads; q += 2) {
      const __m512i both = _mm512_loadu_si512(block + q * 32);
      weights[q] = _mm512_and_si512(both, lower);
      weights[q + 1] = _mm512_and_si512(_mm512_srli_epi32(both, 4), lower);
    }
    const __m512 weight_scales = load_halves(scales), offsets = load_halves(scales + kGroupColumns);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int8_t* x = rows.x + r * rows.stride;
      // Two sums, as each waits for the instruction before.
      __m512i even = _mm512_setzero_si512(), odd = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int q = 0; q < kQuads; q += 2) {
        add_quad_dots(even, weights[q], x + q * 4);
        add_quad_dots(odd, weights[q + 1], x + q * 4 + 4);
      }
      const __m512 dots = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      const __m512 scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(rows.scales[r]));
      sums[r] = _mm512_fmadd_ps(offsets, _mm512_set1_ps(rows.sums[r]), _mm512_fmadd_ps(dots, scale, sums[r]));
    }
  }
};

}  // namespace
}  // namespace volley
