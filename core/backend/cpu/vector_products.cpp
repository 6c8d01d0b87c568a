// Products of packed bf16 and q8_0 weights for any vector width.
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/vector_products.cpp"
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

// As many rows as leave the sums in registers.
constexpr int kBlockRows = HWY_MAX_BYTES >= 64 ? 8 : HWY_MAX_BYTES >= 32 ? 4 : 2;

template <int kRows>
void multiply_bf16_group(const GroupedProductArgs& args, int64_t row, int64_t group) {
  const Floats d;
  const Words words;
  const auto upper = hn::Set(words, static_cast<int32_t>(0xffff0000u));
  const auto* panel = reinterpret_cast<const int32_t*>(
      args.panels + group * args.segments * args.segment_depth * kGroupColumns * 2);
  const auto* x = static_cast<const float*>(args.x) + row * args.row_stride;
  hn::Vec<Floats> sums[kRows][kVectors];
  for (auto& sum : sums) {
    for (auto& s : sum) s = hn::Zero(d);
  }
  for (int64_t s = 0; s < args.segments; ++s) {
    const float* from = x + args.offsets[s];
    for (int64_t k = 0; k < args.segment_depth; k += 2, panel += kGroupColumns) {
      for (int v = 0; v < kVectors; ++v) {
        const auto pairs = hn::LoadU(words, panel + v * kLanes);
        const auto first = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
        const auto second = hn::BitCast(d, hn::And(pairs, upper));
        for (int r = 0; r < kRows; ++r) {
          const float* source = from + r * args.row_stride + k;
          sums[r][v] = hn::MulAdd(hn::Set(d, source[0]), first, sums[r][v]);
          sums[r][v] = hn::MulAdd(hn::Set(d, source[1]), second, sums[r][v]);
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[r][v], d, args.out + ((row + r) * args.groups + group) * kGroupColumns + v * kLanes);
    }
  }
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

template <int kRows>
void multiply_q8_0_group(const GroupedProductArgs& args, int64_t row, int64_t group) {
  const Floats d;
  const Words words;
  const int64_t blocks = args.segment_depth / kDepthStep;
  const auto* x = static_cast<const int16_t*>(args.x) + row * args.row_stride;
  const float* row_scales = args.row_scales + row * blocks;
  const std::byte* panel = args.panels + group * blocks * kDepthStep * kGroupColumns;
  const uint16_t* scales = args.scales + group * blocks * kGroupColumns;
  hn::Vec<Floats> sums[kRows][kVectors];
  for (auto& sum : sums) {
    for (auto& s : sum) s = hn::Zero(d);
  }
  for (int64_t b = 0; b < blocks; ++b, panel += kDepthStep * kGroupColumns, scales += kGroupColumns) {
    for (int v = 0; v < kVectors; ++v) {
      hn::Vec<Words> dots[kRows];
      for (auto& dot : dots) dot = hn::Zero(words);
      for (int64_t q = 0; q < kDepthStep / 4; ++q) {
        const SplitQuads quads = split_quads(panel + q * 64 + v * kLanes * 4);
        for (int r = 0; r < kRows; ++r) {
          const auto* from =
              reinterpret_cast<const int32_t*>(x + r * args.row_stride + b * kDepthStep + q * 4);
          dots[r] = hn::Add(dots[r], dot_pairs(hn::Set(words, from[0]), quads.even));
          dots[r] = hn::Add(dots[r], dot_pairs(hn::Set(words, from[1]), quads.odd));
        }
      }
      const auto half_scales =
          hn::LoadU(Halves(), reinterpret_cast<const hwy::float16_t*>(scales) + v * kLanes);
      const auto weight_scale = hn::PromoteTo(d, half_scales);
      for (int r = 0; r < kRows; ++r) {
        const auto scale = hn::Mul(weight_scale, hn::Set(d, row_scales[r * blocks + b]));
        sums[r][v] = hn::MulAdd(hn::ConvertTo(d, dots[r]), scale, sums[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[r][v], d, args.out + ((row + r) * args.groups + group) * kGroupColumns + v * kLanes);
    }
  }
}

void multiply_bf16(const GroupedProductArgs& args) {
  int64_t r = 0;
  for (; r + kBlockRows <= args.rows; r += kBlockRows) {
    for (int64_t group = 0; group < args.groups; ++group) multiply_bf16_group<kBlockRows>(args, r, group);
  }
  for (; r < args.rows; ++r) {
    for (int64_t group = 0; group < args.groups; ++group) multiply_bf16_group<1>(args, r, group);
  }
}

void multiply_q8_0(const GroupedProductArgs& args) {
  int64_t r = 0;
  for (; r + kBlockRows <= args.rows; r += kBlockRows) {
    for (int64_t group = 0; group < args.groups; ++group) multiply_q8_0_group<kBlockRows>(args, r, group);
  }
  for (; r < args.rows; ++r) {
    for (int64_t group = 0; group < args.groups; ++group) multiply_q8_0_group<1>(args, r, group);
  }
}

}  // namespace volley::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace volley {
namespace {

HWY_EXPORT(multiply_bf16);
HWY_EXPORT(multiply_q8_0);

class VectorProducts : public GroupedProducts {
 public:
  std::string_view name() const override { return "vector"; }
  RowFormat row_format(WeightType type) const override {
    return type == WeightType::kBF16 ? RowFormat::kRoundedF32 : RowFormat::kInterleaved16;
  }
  void multiply_bf16(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_bf16)(args);
  }
  void multiply_q8_0(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_q8_0)(args);
  }
};

}  // namespace

std::unique_ptr<const GroupedProducts> make_vector_products() {
  return std::make_unique<VectorProducts>();
}

}  // namespace volley
#endif  // HWY_ONCE
