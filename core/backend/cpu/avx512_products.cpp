// Products by the dot-product instructions of AVX-512: VDPBF16PS for bf16, VPDPBUSD for q8_0 and q4_1.
#include "core/backend/cpu/grouped_products.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "core/backend/cpu/avx512_q4_1-inl.h"
#include "core/backend/cpu/avx512_q8_0-inl.h"
#include "core/backend/cpu/packed_weight.h"
#include "hwy/targets.h"

#define VOLLEY_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni,f16c,fma")))

namespace volley {
namespace {

// Rows of a block: their sums stay in registers beside the weight's.
constexpr int64_t kBlockRows = 8;

VOLLEY_AVX512 inline __m512i broadcast_word(const void* place) {
  int32_t word;
  std::memcpy(&word, place, sizeof(word));
  return _mm512_set1_epi32(word);
}

template <int kRows, int kGroups>
VOLLEY_AVX512 void multiply_bf16_block(const GroupedProductArgs& args, int64_t row, int64_t group) {
  const int64_t group_bytes = args.segments * args.segment_depth * kGroupColumns * 2;
  const std::byte* panel = args.panels + group * group_bytes;
  const auto* x = static_cast<const uint16_t*>(args.x) + row * args.row_stride;
  __m512 sums[kRows][kGroups];
  for (auto& sum : sums) {
    for (auto& s : sum) s = _mm512_setzero_ps();
  }
  for (int64_t s = 0; s < args.segments; ++s) {
    const uint16_t* from = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += 2, panel += 64) {
      __m512bh weights[kGroups];
      for (int g = 0; g < kGroups; ++g) {
        weights[g] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + g * group_bytes));
      }
      for (int r = 0; r < kRows; ++r) {
        const auto pair = reinterpret_cast<__m512bh>(broadcast_word(from + r * args.row_stride + k));
        for (int g = 0; g < kGroups; ++g) sums[r][g] = _mm512_dpbf16_ps(sums[r][g], pair, weights[g]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int g = 0; g < kGroups; ++g) {
      _mm512_storeu_ps(args.out + ((row + r) * args.groups + group + g) * kGroupColumns, sums[r][g]);
    }
  }
}

template <int kRows>
VOLLEY_AVX512 void multiply_bf16_rows(const GroupedProductArgs& args, int64_t row) {
  constexpr int kGroups = kRows == 1 ? 4 : 2;  // several sums in flight
  int64_t group = 0;
  for (; group + kGroups <= args.groups; group += kGroups)
    multiply_bf16_block<kRows, kGroups>(args, row, group);
  for (; group < args.groups; ++group) multiply_bf16_block<kRows, 1>(args, row, group);
}

class Avx512Products : public GroupedProducts {
 public:
  std::string_view name() const override { return "avx512"; }
  RowFormat row_format(WeightType type) const override {
    return type == WeightType::kBF16 ? RowFormat::kBF16 : RowFormat::kSigned8;
  }
  void multiply_bf16(const GroupedProductArgs& args) const override {
    int64_t r = 0;
    for (; r + kBlockRows <= args.rows; r += kBlockRows) multiply_bf16_rows<kBlockRows>(args, r);
    for (; r + 2 <= args.rows; r += 2) multiply_bf16_rows<2>(args, r);
    for (; r < args.rows; ++r) multiply_bf16_rows<1>(args, r);
  }
  void multiply_q8_0(const GroupedProductArgs& args) const override { multiply_by_words<Q8_0Words>(args); }
  void multiply_q4_1(const GroupedProductArgs& args) const override { multiply_by_words<Q4_1Words>(args); }
};

}  // namespace

std::unique_ptr<const GroupedProducts> make_avx512_products() {
  const bool there = (hwy::SupportedTargets() & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512bf16") &&
                     __builtin_cpu_supports("avx512vnni");
  return there ? std::make_unique<Avx512Products>() : nullptr;
}

}  // namespace volley

#else

namespace volley {

std::unique_ptr<const GroupedProducts> make_avx512_products() {
  return nullptr;
}

}  // namespace volley

#endif
