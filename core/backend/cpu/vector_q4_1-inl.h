// Products of q4_1 weights, included once for each target.

#if defined(VOLLEY_VECTOR_Q4_1_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef VOLLEY_VECTOR_Q4_1_INL_H_
#undef VOLLEY_VECTOR_Q4_1_INL_H_
#else
#define VOLLEY_VECTOR_Q4_1_INL_H_
#endif

#include "core/backend/cpu/vector_blocks-inl.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#undef VOLLEY_HAS_BYTE_DOTS
#define VOLLEY_HAS_BYTE_DOTS (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4)

// Adds the dot products of quads of unsigned 4-bit numbers and quads of signed bytes, to be ended by
// whole_dots. A word holds, with byte dots, two i16 sums of pairs: eight additions of at most 2 * 15 * 127
// stay below 2^15.
HWY_INLINE hn::Vec<Words> add_quad_dots(hn::Vec<Words> dots, hn::Vec<Words> numbers, hn::Vec<Words> bytes) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<Words>{_mm512_add_epi16(dots.raw, _mm512_maddubs_epi16(numbers.raw, bytes.raw))};
#elif HWY_TARGET == HWY_AVX2
  return hn::Vec<Words>{_mm256_add_epi16(dots.raw, _mm256_maddubs_epi16(numbers.raw, bytes.raw))};
#elif HWY_TARGET == HWY_SSE4
  return hn::Vec<Words>{_mm_add_epi16(dots.raw, _mm_maddubs_epi16(numbers.raw, bytes.raw))};
#else
  const auto add = [&](auto left, auto right) {  // the left shifts that bring a byte to the top
    dots = hn::Add(dots, hn::Mul(hn::ShiftRight<24>(left), hn::ShiftRight<24>(right)));
  };
  add(hn::ShiftLeft<24>(numbers), hn::ShiftLeft<24>(bytes));
  add(hn::ShiftLeft<16>(numbers), hn::ShiftLeft<16>(bytes));
  add(hn::ShiftLeft<8>(numbers), hn::ShiftLeft<8>(bytes));
  add(numbers, bytes);
  return dots;
#endif
}
HWY_INLINE hn::Vec<Words> whole_dots(hn::Vec<Words> dots) {
#if VOLLEY_HAS_BYTE_DOTS
  return dot_pairs(dots, hn::Set(Words(), 0x00010001));
#else
  return dots;
#endif
}

// A block of one group of 4-bit numbers.
struct FourBitBlock {
  const int8_t* x = nullptr;  // of the first row
  int64_t row_stride = 0;
  const float* row_scales = nullptr;
  const float* row_sums = nullptr;
  const std::byte* panel = nullptr;
  const uint16_t* scales = nullptr;  // and offsets
};

// Adds the dot products of four bytes, the same for all words, and numbers of some vectors.
HWY_INLINE void add_row_dots(hn::Vec<Words> (&dots)[kVectors], const int32_t* quad,
                             const hn::Vec<Words> (&numbers)[kVectors]) {
#if HWY_TARGET == HWY_AVX2
  // As instructions, for the same reason.
  __m256i bytes, products;
  asm("vpbroadcastd %[quad], %[bytes]\n\t"
      "vpmaddubsw %[bytes], %[numbers0], %[products]\n\t"
      "vpaddw %[products], %[dots0], %[dots0]\n\t"
      "vpmaddubsw %[bytes], %[numbers1], %[bytes]\n\t"
      "vpaddw %[bytes], %[dots1], %[dots1]"
      : [dots0] "+x"(dots[0].raw), [dots1] "+x"(dots[1].raw), [bytes] "=&x"(bytes), [products] "=&x"(products)
      : [quad] "m"(*quad), [numbers0] "x"(numbers[0].raw), [numbers1] "x"(numbers[1].raw));
#elif HWY_TARGET == HWY_AVX3_DL
  // Adds up whole quads; the compiler's flags for this target do not name it.
  asm("vpdpbusd %[quad]%{1to16%}, %[numbers], %[dots]"
      : [dots] "+v"(dots[0].raw)
      : [quad] "m"(*quad), [numbers] "v"(numbers[0].raw));
#else
  const auto bytes = hn::Set(Words(), *quad);
  unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { dots[v] = add_quad_dots(dots[v], numbers[v], bytes); });
#endif
}

template <int kRows>
HWY_INLINE void add_q4_1_products(const FourBitBlock& block, hn::Vec<Floats> (&sums)[kRows][kVectors]) {
  constexpr int kWords = kDepthStep / 8;  // of a feature's block
  const Floats d;
  const Words words;
  const auto lower = hn::Set(words, 0x0f0f0f0f);
  hn::Vec<Words> dots[kRows][kVectors];
  unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { dots[r][v] = hn::Zero(words); });
  });
  const auto* panel = reinterpret_cast<const int32_t*>(block.panel);
  const int8_t* x = block.x;
#pragma GCC unroll 1
  for (int q = 0; q < kWords; ++q, panel += kGroupColumns, x += 8) {
    hn::Vec<Words> first[kVectors], second[kVectors];  // the lower and the upper halves of bytes
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
      const auto pair = hn::LoadU(words, panel + v * kLanes);
      first[v] = hn::And(pair, lower);
      second[v] = hn::And(hn::ShiftRight<4>(pair), lower);
    });
    unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
      const auto* quads = reinterpret_cast<const int32_t*>(x + r * block.row_stride);
      add_row_dots(dots[r], quads, first);
      add_row_dots(dots[r], quads + 1, second);
    });
  }
  hn::Vec<Floats> weight_scales[kVectors], offsets[kVectors];
  unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
    const auto* halves = reinterpret_cast<const hwy::float16_t*>(block.scales) + v * kLanes;
    weight_scales[v] = hn::PromoteTo(d, hn::LoadU(Halves(), halves));
    offsets[v] = hn::PromoteTo(d, hn::LoadU(Halves(), halves + kGroupColumns));
  });
  unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
    const auto row_scale = hn::Set(d, block.row_scales[r]);
    const auto row_sum = hn::Set(d, block.row_sums[r]);
    unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
      const auto dot = hn::ConvertTo(d, whole_dots(dots[r][v]));
      const auto sum = hn::MulAdd(dot, hn::Mul(weight_scales[v], row_scale), sums[r][v]);
      sums[r][v] = hn::MulAdd(offsets[v], row_sum, sum);
    });
  });
}

template <int kRows>
void multiply_q4_1_groups(const GroupedProductArgs& args, int64_t row, int64_t group, int64_t count,
                          Ahead& ahead) {
  const int64_t blocks = args.segment_depth / kDepthStep;
  constexpr int64_t kBlockBytes = kDepthStep * kGroupColumns / 2;
  Sums<kRows> sums;
  sums.clear();
  for (int64_t b = 0; b < blocks; ++b) {
    ahead.step();
    for (int64_t g = 0; g < count; ++g) {
      add_q4_1_products<kRows>(
          {.x = static_cast<const int8_t*>(args.x) + row * args.row_stride + b * kDepthStep,
           .row_stride = args.row_stride,
           .row_scales = args.row_scales + b * args.scale_stride + row,
           .row_sums = args.row_sums + b * args.scale_stride + row,
           .panel = args.panels + ((group + g) * blocks + b) * kBlockBytes,
           .scales = args.scales + ((group + g) * blocks + b) * 2 * kGroupColumns},
          sums.of[g]);
    }
  }
  sums.store(args, row, group, count);
}

void multiply_q4_1(const GroupedProductArgs& args) {
  const int64_t blocks = args.segment_depth / kDepthStep;
  for_blocks<kFourBitRows>(args,
                           {.panel_bytes = args.segment_depth * kGroupColumns / 2,
                            .scales = blocks * 2 * kGroupColumns,
                            .steps = blocks},
                           [&](auto rows, int64_t row, int64_t group, int64_t count, Ahead& ahead) HWY_ATTR {
                             multiply_q4_1_groups<decltype(rows)::value>(args, row, group, count, ahead);
                           });
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each target
