// Products of q8_0 weights, included once for each target.

#if defined(VOLLEY_VECTOR_Q8_0_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VOLLEY_VECTOR_Q8_0_INL_H_
#undef VOLLEY_VECTOR_Q8_0_INL_H_
#else
#define VOLLEY_VECTOR_Q8_0_INL_H_
#endif

#include "core/backend/cpu/vector_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The block's quants of four neighbours of the depth, as two words of i16: (0, 2) and (1, 3).
struct SplitQuads {
  hn::Vec<Words> even, odd;
};
HWY_INLINE SplitQuads split_quads(const std::byte* quads) {
  const Words words;
  const auto bytes = hn::LoadU(words, reinterpret_cast<const int32_t*>(quads));
#if HWY_TARGET == HWY_SCALAR
  const auto pair = [&](auto first, auto second) {  // of sign-extended bytes
    return hn::Or(hn::And(first, hn::Set(words, 0xffff)), hn::ShiftLeft<16>(second));
  };
  return {pair(hn::ShiftRight<24>(hn::ShiftLeft<24>(bytes)), hn::ShiftRight<24>(hn::ShiftLeft<8>(bytes))),
          pair(hn::ShiftRight<24>(hn::ShiftLeft<16>(bytes)), hn::ShiftRight<24>(bytes))};
#else
  const hn::Repartition<int16_t, Words> halves;
  const auto pairs = hn::BitCast(halves, bytes);
  return {hn::BitCast(words, hn::ShiftRight<8>(hn::ShiftLeft<8>(pairs))),
          hn::BitCast(words, hn::ShiftRight<8>(pairs))};
#endif
}

// Adds the dot products of four i16, the same for all words, and quads of some vectors.
HWY_INLINE void add_pairs_dots(hn::Vec<Words> (&dots)[kVectors], const int32_t* row,
                               const SplitQuads (&quads)[kVectors]) {
#if HWY_TARGET == HWY_AVX2
  // As instructions: the compiler would read the pairs of many rows first, and move sums about in memory.
  __m256i pair, products;
  asm("vpbroadcastd %[first], %[pair]\n\t"
      "vpmaddwd %[even0], %[pair], %[products]\n\t"
      "vpaddd %[products], %[dots0], %[dots0]\n\t"
      "vpmaddwd %[even1], %[pair], %[pair]\n\t"
      "vpaddd %[pair], %[dots1], %[dots1]\n\t"
      "vpbroadcastd %[second], %[pair]\n\t"
      "vpmaddwd %[odd0], %[pair], %[products]\n\t"
      "vpaddd %[products], %[dots0], %[dots0]\n\t"
      "vpmaddwd %[odd1], %[pair], %[pair]\n\t"
      "vpaddd %[pair], %[dots1], %[dots1]"
      : [dots0] "+x"(dots[0].raw), [dots1] "+x"(dots[1].raw), [pair] "=&x"(pair), [products] "=&x"(products)
      : [first] "m"(row[0]), [second] "m"(row[1]), [even0] "x"(quads[0].even.raw),
        [even1] "x"(quads[1].even.raw), [odd0] "x"(quads[0].odd.raw), [odd1] "x"(quads[1].odd.raw));
#else
  const Words words;
  const auto first = hn::Set(words, row[0]), second = hn::Set(words, row[1]);
  unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
    dots[v] = hn::Add(dots[v], dot_pairs(first, quads[v].even));
    dots[v] = hn::Add(dots[v], dot_pairs(second, quads[v].odd));
  });
#endif
}

// A block of one group.
struct QuantizedBlock {
  const int16_t* x = nullptr;  // [depth / 4][rows][4]
  const float* row_scales = nullptr;
  const std::byte* panel = nullptr;
  const uint16_t* scales = nullptr;
};

// Rows kFirst to kFirst + kCount of a block of kRows.
template <int kRows, int kFirst, int kCount>
HWY_INLINE void add_q8_0_rows(const QuantizedBlock& block, hn::Vec<Floats> (&sums)[kRows][kVectors]) {
  const Floats d;
  const Words words;
  hn::Vec<Words> dots[kCount][kVectors];
  unrolled<kCount>([&](auto r) VOLLEY_UNROLLED {
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { dots[r][v] = hn::Zero(words); });
  });
  const std::byte* panel = block.panel;
  const int16_t* x = block.x + kFirst * 4;
#pragma GCC unroll 1
  for (int64_t q = 0; q < kDepthStep / 4; ++q, panel += 4 * kGroupColumns, x += 4 * kRows) {
    SplitQuads quads[kVectors];
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { quads[v] = split_quads(panel + v * kLanes * 4); });
    unrolled<kCount>([&](auto r) VOLLEY_UNROLLED {
      const auto* from = reinterpret_cast<const int32_t*>(x + r * 4);
      add_pairs_dots(dots[r], from, quads);
    });
  }
  hn::Vec<Floats> weight_scales[kVectors];
  unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
    weight_scales[v] = hn::PromoteTo(
        d, hn::LoadU(Halves(), reinterpret_cast<const hwy::float16_t*>(block.scales) + v * kLanes));
  });
  unrolled<kCount>([&](auto r) VOLLEY_UNROLLED {
    const auto row_scale = hn::Set(d, block.row_scales[kFirst + r]);
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
      auto& sum = sums[kFirst + r][v];
      sum = hn::MulAdd(hn::ConvertTo(d, dots[r][v]), hn::Mul(weight_scales[v], row_scale), sum);
    });
  });
}

template <int kRows>
HWY_INLINE void add_q8_0_products(const QuantizedBlock& block, hn::Vec<Floats> (&sums)[kRows][kVectors]) {
  constexpr int kMost = kVectors <= 2 ? 8 / kVectors : 2;  // rows whose sums lie in registers together
  constexpr int kParts = (kRows + kMost - 1) / kMost;
  unrolled<kParts>([&](auto part) VOLLEY_UNROLLED {
    constexpr int kFirst = kRows * part / kParts, kEnd = kRows * (part + 1) / kParts;
    add_q8_0_rows<kRows, kFirst, kEnd - kFirst>(block, sums);
  });
}

template <int kRows>
void multiply_q8_0_groups(const GroupedProductArgs& args, int64_t row, int64_t group, int64_t count,
                          Ahead& ahead) {
  const int64_t blocks = args.segment_depth / kDepthStep;
  const int64_t panel_bytes = args.segment_depth * kGroupColumns;
  Sums<kRows> sums;
  sums.clear();
  for (int64_t b = 0; b < blocks; ++b) {
    ahead.step();
    for (int64_t g = 0; g < count; ++g) {
      add_q8_0_products<kRows>(
          {.x = static_cast<const int16_t*>(args.x) + row * args.row_stride + b * kDepthStep * kRows,
           .row_scales = args.row_scales + b * args.scale_stride + row,
           .panel = args.panels + (group + g) * panel_bytes + b * kDepthStep * kGroupColumns,
           .scales = args.scales + ((group + g) * blocks + b) * kGroupColumns},
          sums.of[g]);
    }
  }
  sums.store(args, row, group, count);
}

void multiply_q8_0(const GroupedProductArgs& args) {
  const int64_t blocks = args.segment_depth / kDepthStep;
  for_blocks<kInterleavedRows>(
      args,
      {.panel_bytes = args.segment_depth * kGroupColumns, .scales = blocks * kGroupColumns, .steps = blocks},
      [&](auto rows, int64_t row, int64_t group, int64_t count, Ahead& ahead)
          HWY_ATTR { multiply_q8_0_groups<decltype(rows)::value>(args, row, group, count, ahead); });
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each target
