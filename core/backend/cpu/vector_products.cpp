// Products of packed weights for any vector width.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/vector_products.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace volley::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Lanes of a group of 16 features that one vector holds.
using Floats = hn::CappedTag<float, kGroupColumns>;
using Words = hn::RebindToSigned<Floats>;
using Halves = hn::Rebind<hwy::float16_t, Floats>;
constexpr int kLanes = hn::MaxLanes(Floats());
constexpr int kVectors = kGroupColumns / kLanes;

// Rows of a block: as many as leave their sums in registers.
constexpr int kBlockRows = HWY_MAX_BYTES >= 64 ? 8 : HWY_MAX_BYTES >= 32 ? 6 : 2;
constexpr int kFourBitRows = HWY_MAX_BYTES >= 64 ? 8 : HWY_MAX_BYTES >= 32 ? 4 : 2;

// Groups that are multiplied side by side, one step of the depth after the other: memory is read faster in
// several places at a time than in one.
constexpr int64_t kStreams = 2;

// Asks for what is multiplied next, a share of it in each step of a loop over `steps`, so that memory is read
// all the time and not only in the first of several passes over a panel. It goes to the second-level cache:
// the first has no room beside the rows.
class Ahead {
 public:
  Ahead(const std::byte* begin, int64_t bytes, int64_t steps)
      : next_(begin), step_bytes_((bytes / kLine + steps - 1) / steps * kLine), end_(begin + bytes) {}
  HWY_INLINE void step() {
    const std::byte* stop = end_ - next_ < step_bytes_ ? end_ : next_ + step_bytes_;
    for (; next_ < stop; next_ += kLine) __builtin_prefetch(next_, 0, 2);
  }

 private:
  static constexpr int64_t kLine = 64;
  const std::byte* next_;
  int64_t step_bytes_;
  const std::byte* end_;
};

// Calls body(0) ... body(kCount - 1) with constants. GCC keeps an array in registers only if it sees every
// index as a constant before it unrolls loops.
#undef VOLLEY_UNROLLED
#define VOLLEY_UNROLLED HWY_ATTR __attribute__((always_inline))
template <int kCount, class Body>
HWY_INLINE void unrolled(const Body& body) {
  [&]<int... i>(std::integer_sequence<int, i...>) VOLLEY_UNROLLED {
    (body(std::integral_constant<int, i>()), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

// Sums of some rows and groups, in memory between the steps of the depth.
template <int kRows>
struct Sums {
  hn::Vec<Floats> of[kStreams][kRows][kVectors];

  HWY_INLINE void clear() {
    for (auto& group : of) {
      for (auto& row : group) {
        for (auto& sum : row) sum = hn::Zero(Floats());
      }
    }
  }
  HWY_INLINE void store(const GroupedProductArgs& args, int64_t row, int64_t group, int64_t count) const {
    for (int64_t g = 0; g < count; ++g) {
      for (int r = 0; r < kRows; ++r) {
        float* out = args.out + ((row + r) * args.groups + group + g) * kGroupColumns;
        for (int v = 0; v < kVectors; ++v) hn::StoreU(of[g][r][v], Floats(), out + v * kLanes);
      }
    }
  }
};

// Groups whose sums lie in registers together: a multiply-add waits for the one before it in the same sum.
template <int kRows>
constexpr int groups_together() {
  constexpr int kSums = 12;  // at most
  return kSums / (kRows * kVectors) >= 2 ? 2 : 1;
}

// A step of the depth for some groups.
template <int kRows, int kGroups>
HWY_INLINE void add_bf16_products(const float* x, int64_t row_stride, const int32_t* panel,
                                  int64_t panel_words, hn::Vec<Floats> (*sums)[kRows][kVectors]) {
  const Floats d;
  const Words words;
  const auto upper = hn::Set(words, static_cast<int32_t>(0xffff0000u));
  hn::Vec<Floats> now[kGroups][kRows][kVectors];
  const auto each_sum = [&](const auto& body) VOLLEY_UNROLLED {
    unrolled<kGroups>([&](auto g) VOLLEY_UNROLLED {
      unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
        unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED { body(g, r, v); });
      });
    });
  };
  each_sum([&](auto g, auto r, auto v) VOLLEY_UNROLLED { now[g][r][v] = sums[g][r][v]; });
  for (int64_t k = 0; k < kDepthStep; k += 2, panel += kGroupColumns) {
    unrolled<kGroups>([&](auto g) VOLLEY_UNROLLED {
      hn::Vec<Floats> weight[kVectors];
      const auto add_products = [&](int64_t at) VOLLEY_UNROLLED {
        unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
          const auto value = hn::Set(d, x[r * row_stride + at]);
          unrolled<kVectors>(
              [&](auto v) VOLLEY_UNROLLED { now[g][r][v] = hn::MulAdd(value, weight[v], now[g][r][v]); });
        });
      };
      const int32_t* from = panel + g * panel_words;
      unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
        weight[v] = hn::BitCast(d, hn::ShiftLeft<16>(hn::LoadU(words, from + v * kLanes)));
      });
      add_products(k);
      unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
        weight[v] = hn::BitCast(d, hn::And(hn::LoadU(words, from + v * kLanes), upper));
      });
      add_products(k + 1);
    });
  }
  each_sum([&](auto g, auto r, auto v) VOLLEY_UNROLLED { sums[g][r][v] = now[g][r][v]; });
}

template <int kRows>
void multiply_bf16_groups(const GroupedProductArgs& args, int64_t row, int64_t group, int64_t count,
                          Ahead& ahead) {
  const int64_t panel_words = args.segments * args.segment_depth * kGroupColumns / 2;
  const auto* panel = reinterpret_cast<const int32_t*>(args.panels) + group * panel_words;
  const auto* x = static_cast<const float*>(args.x) + row * args.row_stride;
  Sums<kRows> sums;
  sums.clear();
  for (int64_t s = 0; s < args.segments; ++s) {
    const float* segment = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += kDepthStep, panel += kDepthStep * kGroupColumns / 2) {
      ahead.step();
      constexpr int kTogether = groups_together<kRows>();
      int64_t g = 0;
      for (; g + kTogether <= count; g += kTogether) {
        add_bf16_products<kRows, kTogether>(segment + k, args.row_stride, panel + g * panel_words,
                                            panel_words, sums.of + g);
      }
      for (; g < count; ++g) {
        add_bf16_products<kRows, 1>(segment + k, args.row_stride, panel + g * panel_words, panel_words,
                                    sums.of + g);
      }
    }
  }
  sums.store(args, row, group, count);
}

// a[2i] * b[2i] + a[2i + 1] * b[2i + 1] of the i16 halves of each word.
HWY_INLINE hn::Vec<Words> dot_pairs(hn::Vec<Words> a, hn::Vec<Words> b) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<Words>{_mm512_madd_epi16(a.raw, b.raw)};
#elif HWY_TARGET == HWY_AVX2
  return hn::Vec<Words>{_mm256_madd_epi16(a.raw, b.raw)};
#elif HWY_TARGET == HWY_SSE4
  return hn::Vec<Words>{_mm_madd_epi16(a.raw, b.raw)};
#else
  const auto low = [](auto v) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  return hn::Add(hn::Mul(low(a), low(b)), hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b)));
#endif
}

// Adds the dot products of two i16, the same for all words, and pairs of i16.
HWY_INLINE void add_pair_dots(hn::Vec<Words>& dots, const int32_t* pair, hn::Vec<Words> pairs) {
#if HWY_TARGET == HWY_AVX2
  // As instructions: the compiler would read the pairs of many rows first, and move sums about in memory.
  __m256i products;
  asm("vpbroadcastd %[pair], %[products]\n\t"
      "vpmaddwd %[pairs], %[products], %[products]\n\t"
      "vpaddd %[products], %[dots], %[dots]"
      : [dots] "+x"(dots.raw), [products] "=&x"(products)
      : [pair] "m"(*pair), [pairs] "x"(pairs.raw));
#else
  dots = hn::Add(dots, dot_pairs(hn::Set(Words(), *pair), pairs));
#endif
}

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

// The same pointer, of which the compiler knows nothing: what it points to is loaded here, not before a loop
// only to lie in memory again for want of registers.
template <class T>
HWY_INLINE const T* opaque(const T* pointer) {
  asm volatile("" : "+r"(pointer));
  return pointer;
}

// A block of one group.
struct QuantizedBlock {
  const int16_t* x = nullptr;  // [depth / 4][rows][4]
  const float* row_scales = nullptr;
  int64_t scale_stride = 0;
  const std::byte* panel = nullptr;
  const uint16_t* scales = nullptr;
};

template <int kRows>
HWY_INLINE void add_q8_0_products(const QuantizedBlock& block, hn::Vec<Floats> (&sums)[kRows][kVectors]) {
  // Vectors of the group that are multiplied in one pass over the block: as many as leave sums in registers.
  constexpr int kAcross = kRows * kVectors <= 8 ? kVectors : 1;
  const Floats d;
  const Words words;
  unrolled<kVectors / kAcross>([&](auto pass) VOLLEY_UNROLLED {
    constexpr int kFirst = pass * kAcross;
    hn::Vec<Words> dots[kRows][kAcross];
    unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
      unrolled<kAcross>([&](auto v) VOLLEY_UNROLLED { dots[r][v] = hn::Zero(words); });
    });
    const std::byte* panel = block.panel + kFirst * kLanes * 4;
    const int16_t* x = block.x;
#pragma GCC unroll 1
    for (int64_t q = 0; q < kDepthStep / 4; ++q, panel += 4 * kGroupColumns, x += 4 * kRows) {
      SplitQuads quads[kAcross];
      unrolled<kAcross>([&](auto v) VOLLEY_UNROLLED { quads[v] = split_quads(panel + v * kLanes * 4); });
      unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
        const auto* from = reinterpret_cast<const int32_t*>(x + r * 4);
        unrolled<kAcross>([&](auto v) VOLLEY_UNROLLED { add_pair_dots(dots[r][v], from, quads[v].even); });
        unrolled<kAcross>([&](auto v) VOLLEY_UNROLLED { add_pair_dots(dots[r][v], from + 1, quads[v].odd); });
      });
    }
    unrolled<kAcross>([&](auto v) VOLLEY_UNROLLED {
      const auto halves =
          hn::LoadU(Halves(), reinterpret_cast<const hwy::float16_t*>(block.scales) + (kFirst + v) * kLanes);
      const auto weight_scale = hn::PromoteTo(d, halves);
      unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
        const auto scale = hn::Mul(weight_scale, hn::Set(d, block.row_scales[r * block.scale_stride]));
        sums[r][kFirst + v] = hn::MulAdd(hn::ConvertTo(d, dots[r][v]), scale, sums[r][kFirst + v]);
      });
    });
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
           .row_scales = args.row_scales + row * blocks + b,
           .scale_stride = blocks,
           .panel = args.panels + (group + g) * panel_bytes + b * kDepthStep * kGroupColumns,
           .scales = args.scales + ((group + g) * blocks + b) * kGroupColumns},
          sums.of[g]);
    }
  }
  sums.store(args, row, group, count);
}

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
  int64_t scale_stride = 0;
  const std::byte* panel = nullptr;
  const uint16_t* scales = nullptr;  // and offsets
};

template <int kRows>
HWY_INLINE void add_q4_1_products(const FourBitBlock& block, hn::Vec<Floats> (&sums)[kRows][kVectors]) {
  constexpr int kWords = kDepthStep / 8;  // of a feature's block
  const Floats d;
  const Words words;
  const auto lower = hn::Set(words, 0x0f0f0f0f);
  unrolled<kVectors>([&](auto v) VOLLEY_UNROLLED {
    hn::Vec<Words> numbers[2 * kWords];  // by quads of the depth
    unrolled<kWords>([&](auto q) VOLLEY_UNROLLED {
      const auto* from = reinterpret_cast<const int32_t*>(block.panel) + q * kGroupColumns + v * kLanes;
      const auto pair = hn::LoadU(words, from);
      numbers[2 * q] = hn::And(pair, lower);
      numbers[2 * q + 1] = hn::And(hn::ShiftRight<4>(pair), lower);
    });
    const auto* halves = reinterpret_cast<const hwy::float16_t*>(block.scales) + v * kLanes;
    const auto weight_scale = hn::PromoteTo(d, hn::LoadU(Halves(), halves));
    const auto offset = hn::PromoteTo(d, hn::LoadU(Halves(), halves + kGroupColumns));
    unrolled<kRows>([&](auto r) VOLLEY_UNROLLED {
      const auto* from = opaque(reinterpret_cast<const int32_t*>(block.x + r * block.row_stride));
      auto dots = hn::Zero(words);
      unrolled<2 * kWords>(
          [&](auto q) VOLLEY_UNROLLED { dots = add_quad_dots(dots, numbers[q], hn::Set(words, from[q])); });
      const auto scale =
          hn::Mul(weight_scale, hn::Set(d, *opaque(block.row_scales + r * block.scale_stride)));
      const auto sum = hn::MulAdd(hn::ConvertTo(d, whole_dots(dots)), scale, sums[r][v]);
      sums[r][v] = hn::MulAdd(offset, hn::Set(d, *opaque(block.row_sums + r * block.scale_stride)), sum);
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
           .row_scales = args.row_scales + row * blocks + b,
           .row_sums = args.row_sums + row * blocks + b,
           .scale_stride = blocks,
           .panel = args.panels + ((group + g) * blocks + b) * kBlockBytes,
           .scales = args.scales + ((group + g) * blocks + b) * 2 * kGroupColumns},
          sums.of[g]);
    }
  }
  sums.store(args, row, group, count);
}

// Calls run(std::integral_constant<int, n>) for n = rows, 1 <= rows <= kMost.
template <int kMost, class Run>
HWY_INLINE void with_rows(int64_t rows, const Run& run) {
  if constexpr (kMost > 1) {
    if (rows < kMost) return with_rows<kMost - 1>(rows, run);
  }
  run(std::integral_constant<int, kMost>());
}

// Multiplies blocks of at most kMost rows with kStreams groups side by side, which stay in the cache for all
// blocks while the next ones are asked for. multiply(n, row, group, count, ahead) multiplies n (a constant)
// rows with `count` groups.
template <int kMost, class Multiply>
HWY_INLINE void for_blocks(const GroupedProductArgs& args, int64_t panel_bytes, const Multiply& multiply) {
  const RowBlocks blocks(args.rows, kMost);
  const int64_t steps = blocks.count * args.segments * (args.segment_depth / kDepthStep);
  for (int64_t group = 0; group < args.groups; group += kStreams) {
    const int64_t next = std::min(group + kStreams, args.groups);
    const int64_t next_count = std::min(kStreams, args.groups + args.following - next);
    Ahead ahead(args.panels + next * panel_bytes, next_count * panel_bytes, steps);
    for (int64_t b = 0; b < blocks.count; ++b) {
      with_rows<kMost>(blocks.size(b), [&](auto rows) HWY_ATTR {
        multiply(rows, blocks.begin(b), group, next - group, ahead);
      });
    }
  }
}

void multiply_bf16(const GroupedProductArgs& args) {
  for_blocks<kBlockRows>(args, args.segments * args.segment_depth * kGroupColumns * 2,
                         [&](auto rows, int64_t row, int64_t group, int64_t count, Ahead& ahead) HWY_ATTR {
                           multiply_bf16_groups<decltype(rows)::value>(args, row, group, count, ahead);
                         });
}

void multiply_q8_0(const GroupedProductArgs& args) {
  for_blocks<kInterleavedRows>(
      args, args.segment_depth * kGroupColumns,
      [&](auto rows, int64_t row, int64_t group, int64_t count, Ahead& ahead)
          HWY_ATTR { multiply_q8_0_groups<decltype(rows)::value>(args, row, group, count, ahead); });
}

void multiply_q4_1(const GroupedProductArgs& args) {
  for_blocks<kFourBitRows>(args, args.segment_depth * kGroupColumns / 2,
                           [&](auto rows, int64_t row, int64_t group, int64_t count, Ahead& ahead) HWY_ATTR {
                             multiply_q4_1_groups<decltype(rows)::value>(args, row, group, count, ahead);
                           });
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {
namespace {

HWY_EXPORT(multiply_bf16);
HWY_EXPORT(multiply_q8_0);
HWY_EXPORT(multiply_q4_1);

class VectorProducts : public GroupedProducts {
 public:
  std::string_view name() const override { return "vector"; }
  RowFormat row_format(WeightType type) const override {
    return type == WeightType::kBF16   ? RowFormat::kRoundedF32
           : type == WeightType::kQ8_0 ? RowFormat::kInterleaved16
                                       : RowFormat::kSigned8;
  }
  void multiply_bf16(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_bf16)(args);
  }
  void multiply_q8_0(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_q8_0)(args);
  }
  void multiply_q4_1(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_q4_1)(args);
  }
};

}  // namespace

std::unique_ptr<const GroupedProducts> make_vector_products() {
  return std::make_unique<VectorProducts>();
}

}  // namespace volley
#endif  // HWY_ONCE
