#pragma once

// What products of quantised weights by VPDPBUSD have in common: a word of four bytes of a row, in all lanes,
// times four neighbours of the depth of 16 features. Files that include it use VOLLEY_WORDS functions only
// where the processor has these instructions.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/groups_ahead.h"

#define VOLLEY_WORDS __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma")))
// Of a part of a kernel: GCC keeps an array in registers only if it is inlined before loops are unrolled.
#define VOLLEY_WORDS_INLINE VOLLEY_WORDS __attribute__((always_inline))

namespace volley {
namespace {

// Four bytes of a row, beside each other in every lane.
VOLLEY_WORDS_INLINE inline __m512i every_quad(const void* quad) {
  int32_t word;
  std::memcpy(&word, quad, sizeof(word));
  return _mm512_set1_epi32(word);
}

VOLLEY_WORDS_INLINE inline __m512 load_halves(const uint16_t* halves) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
}

// Of each of two groups that are read side by side: with twice as much, memory was read no faster.
inline constexpr int64_t kWordBytesAhead = 1024;
// Rows of a block at most: with 6 or 7, eight and more rows took longer, though of eight not all stays in
// registers.
inline constexpr int kWordRows = 8;

// Calls body.operator()<kRows>() for that number of rows, 1 to kWordRows.
template <int kRows = kWordRows, class Body>
VOLLEY_WORDS inline void with_word_rows(int64_t rows, const Body& body) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return with_word_rows<kRows - 1>(rows, body);
  }
  body.template operator()<kRows>();
}

// sums [kGroups, kRows] of vectors, to the call's rows and groups from `row` and `group` on.
template <int kGroups, int kRows>
VOLLEY_WORDS_INLINE inline void store_sums(const GroupedProductArgs& args, int64_t row, int64_t group,
                                           const __m512 (&sums)[kGroups][kRows]) {
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    float* out = args.out + (row * args.groups + group + g) * kGroupColumns;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * args.groups * kGroupColumns, sums[g][r]);
  }
}

template <int kGroups, int kRows>
VOLLEY_WORDS_INLINE inline void clear_sums(__m512 (&sums)[kGroups][kRows]) {
#pragma GCC unroll 2
  for (auto& of_group : sums) {
#pragma GCC unroll 8
    for (auto& sum : of_group) sum = _mm512_setzero_ps();
  }
}

// kRows rows of the call, from `row` on, times kGroups groups. Calls ahead(block, group) before each block of
// the depth of each group. A Kernel has
//   Ahead              BlocksAhead of its type;
//   Rows<kRows>        so many rows, at a block of the depth: Rows(args, row) at the first; read() what a
//   block needs;
//                      advance() to the next, as pointers: addresses reckoned anew took one row 7 % longer;
//   add_block<kRows>   (rows, block, scales, sums): sums[r] += the products of a row and a block of one
//   group.
template <class Kernel, int kRows, int kGroups, class Ahead>
VOLLEY_WORDS void multiply_rows_by_words(const GroupedProductArgs& args, int64_t row, int64_t group,
                                         Ahead&& ahead) {
  constexpr int64_t kBlockBytes = Kernel::Ahead::kBytes, kBlockScales = Kernel::Ahead::kScales;
  const int64_t blocks = args.segment_depth / kDepthStep;
  const int64_t group_bytes = blocks * kBlockBytes, group_scales = blocks * kBlockScales;
  const std::byte* panel = args.panels + group * group_bytes;
  const uint16_t* scales = args.scales + group * group_scales;
  __m512 sums[kGroups][kRows];
  clear_sums(sums);
  typename Kernel::template Rows<kRows> rows(args, row);
  for (int64_t b = 0; b < blocks; ++b) {
    rows.read();
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      ahead(panel + g * group_bytes, g);
      Kernel::template add_block<kRows>(rows, panel + g * group_bytes, scales + g * group_scales, sums[g]);
    }
    rows.advance();
    panel += kBlockBytes;
    scales += kBlockScales;
  }
  store_sums(args, row, group, sums);
}

// The first rows ask for the groups behind those that they are multiplied with; the others find them in the
// cache.
template <class Kernel, int kGroups>
VOLLEY_WORDS void multiply_groups_by_words(const GroupedProductArgs& args, int64_t group) {
  const RowBlocks blocks(args.rows, kWordRows);
  for (int64_t b = 0; b < blocks.count; ++b) {
    const int64_t row = blocks.begin(b);
    with_word_rows(blocks.size(b), [&]<int kRows>() VOLLEY_WORDS {
      if (b == 0) {
        typename Kernel::Ahead ahead(args, group, kGroups, kWordBytesAhead);
        multiply_rows_by_words<Kernel, kRows, kGroups>(args, row, group, ahead);
      } else {
        multiply_rows_by_words<Kernel, kRows, kGroups>(args, row, group, [](const std::byte*, int64_t) {});
      }
    });
  }
}

template <class Kernel>
VOLLEY_WORDS void multiply_by_words(const GroupedProductArgs& args) {
  int64_t group = 0;
  for (; group + 2 <= args.groups; group += 2) multiply_groups_by_words<Kernel, 2>(args, group);
  if (group < args.groups) multiply_groups_by_words<Kernel, 1>(args, group);
}

}  // namespace
}  // namespace volley
