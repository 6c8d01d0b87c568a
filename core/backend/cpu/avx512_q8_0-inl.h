#pragma once

// Products of q8_0 weights by VPDPBUSD; part of avx512_products.cpp and amx_products.cpp.

#include <immintrin.h>

#include <cstddef>
#include <cstring>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/groups_ahead.h"
#include "core/backend/cpu/packed_weight.h"

#define VOLLEY_AVX512_Q8_0 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma")))

namespace volley {
namespace {

// Four bytes of a row, beside each other in every lane.
VOLLEY_AVX512_Q8_0 inline __m512i every_quad(const uint8_t* quad) {
  int32_t word;
  std::memcpy(&word, quad, sizeof(word));
  return _mm512_set1_epi32(word);
}

// Quants of some rows and a block. VPDPBUSD takes them unsigned, so 128 is added: 128 times the sum of the
// block's weights comes off again.
template <int kRows>
struct BiasedBlock {
  alignas(32) uint8_t quants[kRows][kDepthStep];

  VOLLEY_AVX512_Q8_0 explicit BiasedBlock(const int8_t* x, int64_t stride) {
    const __m256i bias = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int r = 0; r < kRows; ++r) {
      const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + r * stride));
      _mm256_store_si256(reinterpret_cast<__m256i*>(quants[r]), _mm256_xor_si256(row, bias));
    }
  }
};

// sums[r] += float(dots of a row and a block of one group) * (weight scales * row scale).
template <int kRows>
VOLLEY_AVX512_Q8_0 inline void add_biased_block(const BiasedBlock<kRows>& rows, const float* row_scales,
                                                const std::byte* block, const uint16_t* scales,
                                                __m512* sums) {
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
  const __m512 weight_scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
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

// kRows rows of the call, from `row` on, times kGroups groups.
template <int kRows, int kGroups, class Ahead>
VOLLEY_AVX512_Q8_0 void multiply_q8_0_words(const GroupedProductArgs& args, int64_t row, int64_t group,
                                            Ahead&& ahead) {
  const int64_t blocks = args.segment_depth / kDepthStep;
  const int64_t group_bytes = blocks * kQ8BlockBytes, group_scales = blocks * kGroupColumns;
  const auto* x = static_cast<const int8_t*>(args.x) + row * args.row_stride;
  const float* row_scales = args.row_scales + row;
  const std::byte* panel = args.panels + group * group_bytes;
  const uint16_t* scales = args.scales + group * group_scales;
  __m512 sums[kGroups][kRows];
  for (auto& of_group : sums) {
    for (auto& sum : of_group) sum = _mm512_setzero_ps();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const BiasedBlock<kRows> biased(x + b * kDepthStep, args.row_stride);
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const std::byte* block = panel + g * group_bytes + b * kQ8BlockBytes;
      ahead(block, g);
      add_biased_block<kRows>(biased, row_scales + b * args.scale_stride, block,
                              scales + g * group_scales + b * kGroupColumns, sums[g]);
    }
  }
  for (int g = 0; g < kGroups; ++g) {
    float* out = args.out + (row * args.groups + group + g) * kGroupColumns;
    for (int r = 0; r < kRows; ++r) {
      _mm512_storeu_ps(out + r * args.groups * kGroupColumns, sums[g][r]);
    }
  }
}

// Of each of two groups that are read side by side: with twice as much, memory was read no faster.
inline constexpr int64_t kWordBytesAhead = 1024;

// Calls body.operator()<kRows>() for that number of rows, 1 to 8.
template <int kRows = 8, class Body>
VOLLEY_AVX512_Q8_0 inline void with_word_rows(int64_t rows, const Body& body) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return with_word_rows<kRows - 1>(rows, body);
  }
  body.template operator()<kRows>();
}

// The first rows ask for the groups behind those that they are multiplied with; the others find them in the
// cache.
template <int kGroups>
VOLLEY_AVX512_Q8_0 void multiply_q8_0_groups_by_words(const GroupedProductArgs& args, int64_t group) {
  constexpr int64_t kMostRows = 8;  // whose sums stay in registers
  const RowBlocks blocks(args.rows, kMostRows);
  for (int64_t b = 0; b < blocks.count; ++b) {
    const int64_t row = blocks.begin(b);
    with_word_rows(blocks.size(b), [&]<int kRows>() VOLLEY_AVX512_Q8_0 {
      if (b == 0) {
        Q8BlocksAhead ahead(args, group, kGroups, kWordBytesAhead);
        multiply_q8_0_words<kRows, kGroups>(args, row, group, ahead);
      } else {
        multiply_q8_0_words<kRows, kGroups>(args, row, group, [](const std::byte*, int64_t) {});
      }
    });
  }
}

VOLLEY_AVX512_Q8_0 void multiply_q8_0_by_words(const GroupedProductArgs& args) {
  int64_t group = 0;
  for (; group + 2 <= args.groups; group += 2) multiply_q8_0_groups_by_words<2>(args, group);
  if (group < args.groups) multiply_q8_0_groups_by_words<1>(args, group);
}

}  // namespace
}  // namespace volley
